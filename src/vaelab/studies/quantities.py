r"""Quantities: what a claim is about, as an expression over what a run left behind.

    mse                                  a metric of the test split
    validation.kl                        the same of another split
    at(kl, 10), first(kl), last(kl)      a point of a training curve (of the validation images, or train.kl)
    fall(loss)                           first - last
    area(loss)                           the mean of the curve over the training, by trapezoids over epochs
    epochs_to(loss)                      epochs until the curve is as low as every setting gets, for the same seed
    epochs_to(loss, 110)                 epochs until it is as low as 110; all epochs where it never is
    features.correlation                 a number of an analysis

They combine with + - * / and numbers. Between epochs a curve is a straight line.

A metric is a mean over test images, f = mean_i f_i. Where a run keeps the values of its images, a quantity of such
metrics has values of images, too: its value plus the effect of each image, by the chain rule. Their mean is the
quantity, and their spread is the error that comes from the choice of test images.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.errors import UserError, unknown_name_error
from vaelab.evaluation.catalogue import CURVE_NAMES, metric_names

__all__ = ["Curve", "ImageValues", "Quantity", "RunRecord"]

METRIC_SPLITS = ("train", "validation", "test")

CURVE_SPLITS = ("train", "validation")

MAX_TEXT_LENGTH = 500  # characters of an expression: longer ones exhaust the parser's stack

MAX_NUMBER = 1e100  # the largest number in an expression

NUMBERS_WITHOUT_MODEL = {
    "features": ("raw_", "pca_", "classifier_", "correlation_classifier"),
    "baselines": ("pca_mse", "mean_mse"),
    "leaks": ("background_original", "hair_original", "skin_original", "chance"),
}  # how the numbers of analyses begin that say nothing about a model

SLOPE_STEP = 1e-4  # relative step of a numerical derivative

SAME_MEAN = 1e-4  # relative difference up to which values of images belong to a stored metric

Curve = list[tuple[float, float]]

OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

ArraysReader = Callable[[str], Mapping[str, np.ndarray]]  # from the name of an analysis to its arrays


def no_arrays(analysis: str) -> Mapping[str, np.ndarray]:
    """The arrays of a run that keeps none."""
    del analysis
    return {}


class ImageValues(NamedTuple):
    """A quantity for each test image.

    Attributes:
        values: The values, with shape (I,), whose mean is the quantity.
        rows: The rows of the images in the data set, with shape (I,).
    """

    values: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class RunRecord:
    """What a run left behind, read once.

    Attributes:
        metrics: The values of metrics, by split and name.
        history: The rows of history, one an epoch.
        analyses: The numbers of analyses, by analysis and name.
        read_arrays: Reads the arrays of an analysis.
    """

    metrics: Mapping[str, Mapping[str, float]]
    history: Sequence[Mapping[str, Any]]
    analyses: Mapping[str, Mapping[str, float]]
    read_arrays: ArraysReader = no_arrays

    @property
    def curve_split(self) -> str:
        """The split that curves are measured on: validation where the run has one, else train."""
        has_validation = any(row["validation"] for row in self.history)
        return "validation" if has_validation else "train"

    def curve(self, name: str, split: str | None = None) -> Curve:
        """A curve of the history.

        Args:
            name: A term, such as `kl`.
            split: "train" or "validation"; `curve_split` if None.

        Returns:
            The points (epoch, value), in order.

        Raises:
            UserError: The history does not have the term.
        """
        split = split or self.curve_split
        points = [(float(row["epoch"]), row[split][name]) for row in self.history if name in row.get(split, {})]
        if not points:
            raise UserError(f"the history has no {split}.{name}")
        return points

    def number(self, name: str, source: str) -> float:
        """A metric of a split, or a number of an analysis.

        Args:
            name: The metric or number.
            source: The split or analysis.

        Raises:
            UserError: The run does not have it.
        """
        table = self.analyses.get(source) or self.metrics.get(source, {})
        if name not in table:
            raise unknown_name_error(f"number of {source}", name, table)
        return float(table[name])

    def image_values(self, name: str, source: str) -> ImageValues | None:
        """A metric of each test image, or a number of an analysis for each image.

        Args:
            name: The metric or number.
            source: "test", or an analysis.

        Returns:
            The values; None where the run does not keep them, or where the number is no mean over images.
        """
        arrays = self.read_arrays("image_values" if source == "test" else source)
        if name not in arrays or "rows" not in arrays:
            return None
        values, mean = arrays[name].astype(np.float64), self.number(name, source)
        is_defined = ~np.isnan(values)
        if values.shape != arrays["rows"].shape or not is_defined.any():
            return None
        if not math.isclose(values[is_defined].mean(), mean, rel_tol=SAME_MEAN, abs_tol=1e-12):
            return None
        effects = np.where(is_defined, values - values[is_defined].mean(), 0) * len(values) / is_defined.sum()
        return ImageValues(mean + effects, arrays["rows"])


# Functions of a curve


def value_at(curve: Curve, epoch: float) -> float:
    """The value of a curve after a number of epochs.

    Example:
        >>> value_at([(1, 8.0), (3, 4.0)], 2)
        6.0
    """
    epochs, values = zip(*curve, strict=True)
    if not epochs[0] <= epoch <= epochs[-1]:
        raise UserError(f"the curve goes from epoch {epochs[0]:g} to {epochs[-1]:g}, epoch {epoch:g} is not on it")
    return float(np.interp(epoch, epochs, values))


def first_value(curve: Curve) -> float:
    """The value after the first epoch."""
    return curve[0][1]


def last_value(curve: Curve) -> float:
    """The value after the last epoch."""
    return curve[-1][1]


def drop(curve: Curve) -> float:
    """The first value minus the last."""
    return first_value(curve) - last_value(curve)


def mean_over_training(curve: Curve) -> float:
    """The mean of a curve over the epochs that it covers: the area below it, divided by its length.

    Example:
        >>> mean_over_training([(1, 8.0), (3, 4.0)])
        6.0
    """
    epochs, values = zip(*curve, strict=True)
    if len(epochs) == 1:
        return values[0]
    return float(np.trapezoid(values, epochs) / (epochs[-1] - epochs[0]))


def epochs_to(curve: Curve, level: float) -> float:
    """The epochs until a curve is first as low as a level; all of its epochs where it never is.

    Example:
        >>> epochs_to([(1, 8.0), (3, 4.0)], 7)
        1.5
    """
    previous_epoch, previous_value = 0.0, math.inf
    for epoch, value in curve:
        if value <= level and not math.isfinite(previous_value):
            return epoch
        if value <= level:
            return previous_epoch + (epoch - previous_epoch) * (previous_value - level) / (previous_value - value)
        previous_epoch, previous_value = epoch, value
    return curve[-1][0]


CURVE_FUNCTIONS: dict[str, Callable[..., float]] = {
    "at": value_at,
    "first": first_value,
    "last": last_value,
    "fall": drop,
    "area": mean_over_training,
    "epochs_to": epochs_to,
}


# Expressions


@dataclass(frozen=True)
class Quantity:
    """A quantity of a run, from its text. Names that mean nothing are refused at once.

    Args:
        text: The expression, such as `"features.codes_ari - features.raw_ari"`.

    Raises:
        UserError: The text is no expression, or a name in it is unknown.

    Example:
        >>> record = RunRecord({"test": {"mse": 0.5}}, [], {})
        >>> Quantity("2 * mse").value(record)
        1.0
    """

    text: str

    def __post_init__(self) -> None:
        _check_expression(self.tree, self.text)

    @cached_property
    def tree(self) -> ast.expr:
        """The expression, parsed."""
        if len(self.text) > MAX_TEXT_LENGTH:
            raise UserError(f"a measure has at most {MAX_TEXT_LENGTH} characters, got {len(self.text)}")
        try:
            return ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UserError(f'the measure "{self.text}" is no expression') from None

    @property
    def required_analyses(self) -> set[str]:
        """The analyses whose numbers it asks for."""
        return {source for source, _ in self.numbers if source not in METRIC_SPLITS}

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """The metrics and numbers that it asks for, each as (split or analysis, name)."""
        return [(source or "test", name) for name, source in _number_names(self.tree)]

    @property
    def curve_points(self) -> list[float]:
        """The epochs at which it reads a curve, as far as they are plain numbers."""
        points = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "at":
                epoch = _constant_value(node.args[1])
                if epoch is not None:
                    points.append(epoch)
        return points

    @property
    def curve_splits(self) -> set[str]:
        """The splits whose curves it names."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        splits = [_split_name(call.args[0])[1] for call in calls]
        return {split for split in splits if split}

    def value(self, record: RunRecord, peers: Sequence[RunRecord] = ()) -> float:
        """Its value for a run.

        Args:
            record: What the run left behind.
            peers: The records of all settings with the same seed, for `epochs_to` without a level.

        Returns:
            A finite number.

        Raises:
            UserError: The run does not have what the quantity asks for, or the value is not finite.
        """
        try:
            value = float(self._evaluate(self.tree, record, peers or (record,)))
        except ZeroDivisionError:
            raise UserError(f"{self.text} divides by zero") from None
        except OverflowError:
            raise UserError(f"{self.text} is not finite") from None
        if not math.isfinite(value):
            raise UserError(f"{self.text} is not finite")
        return value

    @property
    def is_about_models(self) -> bool:
        """Whether it says something about the models, and not of pixels and classifiers alone."""
        has_curves = any(isinstance(node, ast.Call) for node in ast.walk(self.tree))
        return has_curves or any(not _is_without_model(source, name) for source, name in self.numbers)

    @property
    def may_have_image_values(self) -> bool:
        """Whether it is made of numbers alone that may be means over test images, and of no curve."""
        has_curves = any(isinstance(node, ast.Call) for node in ast.walk(self.tree))
        sources = {source for source, _ in self.numbers}
        return bool(sources) and not has_curves and not sources & {"train", "validation"}

    def image_values(self, record: RunRecord) -> ImageValues | None:
        """Its value for each test image, to first order in the metrics that it is made of.

        Args:
            record: What the run left behind.

        Returns:
            The values, whose mean is the quantity; None where the run keeps no values of images for it.

        Example:
            >>> arrays = {"mse": np.array([0.0, 1.0]), "rows": np.array([0, 1])}
            >>> record = RunRecord({"test": {"mse": 0.5}}, [], {}, lambda analysis: arrays)
            >>> Quantity("2 * mse").image_values(record).values.round(6)
            array([0., 2.])
        """
        if not self.may_have_image_values:
            return None
        effects, rows = [], None
        for source, name in dict.fromkeys(self.numbers):
            term = record.image_values(name, source)
            if term is None or (rows is not None and not np.array_equal(rows, term.rows)):
                return None
            rows = term.rows
            effects.append(self._slope(record, name, source) * (term.values - term.values.mean()))
        return ImageValues(self.value(record) + np.sum(effects, axis=0), rows) if rows is not None else None

    def _slope(self, record: RunRecord, name: str, source: str) -> float:
        """The derivative by one of the numbers that it is made of, from two values close to it."""
        step = SLOPE_STEP * max(abs(record.number(name, source)), SLOPE_STEP)
        ends = [self.value(_shifted(record, name, source, sign * step)) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    def _evaluate(self, node: ast.expr, record: RunRecord, peers: Sequence[RunRecord]) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.BinOp():
                left = self._evaluate(node.left, record, peers)
                right = self._evaluate(node.right, record, peers)
                return OPERATORS[type(node.op)](left, right)
            case ast.UnaryOp():
                return -self._evaluate(node.operand, record, peers)
            case ast.Call():
                arguments = [self._evaluate(argument, record, peers) for argument in node.args[1:]]
                return _evaluate_curve(node, arguments, record, peers)
            case _:
                name, source = _split_name(node)
                return record.number(name, source or "test")


def _shifted(record: RunRecord, name: str, source: str, shift: float) -> RunRecord:
    """The same record with one of its numbers changed."""
    changed = {name: record.number(name, source) + shift}
    if source in record.analyses:
        return replace(record, analyses={**record.analyses, source: {**record.analyses[source], **changed}})
    return replace(record, metrics={**record.metrics, source: {**record.metrics[source], **changed}})


def _evaluate_curve(node: ast.Call, arguments: Sequence[float], record: RunRecord, peers: Sequence[RunRecord]) -> float:
    """A function of a curve; `epochs_to` without a level uses the lowest one that all peers reach."""
    function = ast.unparse(node.func)
    name, split = _split_name(node.args[0])
    if function == "epochs_to" and not arguments:
        lowest_values = []
        for peer in peers:
            lowest_values.append(min(value for _, value in peer.curve(name, split)))
        arguments = [max(lowest_values)]
    return CURVE_FUNCTIONS[function](record.curve(name, split), *arguments)


def _is_without_model(source: str, name: str) -> bool:
    """Whether a number of an analysis is the same for every model of the data and the seed."""
    return name.startswith(NUMBERS_WITHOUT_MODEL.get(source, ()))


def _split_name(node: ast.expr) -> tuple[str, str | None]:
    """`kl` -> (kl, None); `train.kl` -> (kl, train)."""
    source, _, name = ast.unparse(node).rpartition(".")
    return name, source or None


def _number_names(node: ast.expr) -> Iterator[tuple[str, str | None]]:
    """The names of an expression that are no curves, as (name, split or analysis)."""
    match node:
        case ast.BinOp():
            yield from _number_names(node.left)
            yield from _number_names(node.right)
        case ast.UnaryOp():
            yield from _number_names(node.operand)
        case ast.Call():
            for argument in node.args[1:]:
                yield from _number_names(argument)
        case ast.Name() | ast.Attribute():
            yield _split_name(node)


def _constant_value(node: ast.expr) -> float | None:
    """The value of an expression of numbers alone; None where it has names."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.UnaryOp():
            operand = _constant_value(node.operand)
            return None if operand is None else -operand
        case ast.BinOp():
            left, right = _constant_value(node.left), _constant_value(node.right)
            if left is None or right is None or (right == 0 and isinstance(node.op, ast.Div)):
                return None
            return OPERATORS[type(node.op)](left, right)
    return None


# What an expression may be made of


def _check_expression(node: ast.expr, text: str) -> None:
    """Refuse what is neither a number, a known name, a function of a curve, nor arithmetic of these."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if abs(number) > MAX_NUMBER:
                raise UserError(f'the measure "{text}" has a number above {MAX_NUMBER:g}')
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
            _check_expression(node.left, text)
            _check_expression(node.right, text)
        case ast.UnaryOp(op=ast.USub()):
            _check_expression(node.operand, text)
        case ast.Call(func=ast.Name(), args=[_, *_], keywords=[]):
            _check_call(node, text)
        case ast.Name():
            _require_known(node.id, metric_names(), "name", text)
        case ast.Attribute(value=ast.Name()):
            _check_metric(node, text)
        case _:
            raise _not_an_expression_error(text)


def _check_call(node: ast.Call, text: str) -> None:
    """Refuse a call of an unknown function, with a wrong number of arguments, or of what is no curve."""
    function = ast.unparse(node.func)
    _require_known(function, CURVE_FUNCTIONS, "function", text)
    parameters = inspect.signature(CURVE_FUNCTIONS[function]).parameters
    optional = 1 if function == "epochs_to" else 0
    if not len(parameters) - optional <= len(node.args) <= len(parameters):
        raise UserError(f'{function} in the measure "{text}" takes {", ".join(parameters)}')
    name, split = _split_name(node.args[0])
    _require_known(name, CURVE_NAMES, "name", text)
    _require_known(split or "train", CURVE_SPLITS, "name", text)
    for argument in node.args[1:]:
        _check_expression(argument, text)


def _check_metric(node: ast.Attribute, text: str) -> None:
    """Refuse an unknown metric of a split. The numbers of analyses are checked before a study is run."""
    name, source = _split_name(node)
    if source in METRIC_SPLITS:
        _require_known(name, metric_names(), "name", text)


def _require_known(name: str, known: Sequence[str] | Mapping[str, Any], kind: str, text: str) -> None:
    if name not in known:
        raise unknown_name_error(f'{kind} in the measure "{text}"', name, known)


def _not_an_expression_error(text: str) -> UserError:
    return UserError(f'the measure "{text}" is not made of metrics, curves and numbers')
