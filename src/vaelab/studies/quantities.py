r"""Measures: what a claim speaks of, as an expression over what a run left behind.

    mse                                  a metric of the test split
    validation.kl                        the same of another split
    at(kl, 10), first(kl), last(kl)      a point of a training curve (of the validation images, or train.kl)
    fall(loss)                           first - last
    area(loss)                           the mean of the curve over the training, trapezoids over epochs
    epochs_to(loss)                      epochs until the curve is as low as every setting gets, for the same seed
    epochs_to(loss, 110)                 epochs until it is as low as 110; all of them where it never is
    features.correlation                 a number of an examination

with + - * / and numbers. Between epochs curves are straight.
"""

from __future__ import annotations

import ast
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vaelab.core.errors import UserError, unknown_name_error
from vaelab.evaluation.catalogue import CURVE_NAMES, metric_names

__all__ = ["Curve", "Quantity", "RunRecord"]

METRIC_SPLITS = ("train", "validation", "test")

Curve = list[tuple[float, float]]

OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class RunRecord:
    """What a run left behind, read once: metrics by split, history, and the numbers of its examinations."""

    metrics: Mapping[str, Mapping[str, float]]
    history: Sequence[Mapping[str, Any]]
    analyses: Mapping[str, Mapping[str, float]]

    def curve(self, name: str, split: str | None = None) -> Curve:
        """A curve of history: (epoch, value), of the validation images where there are any."""
        split = split or ("validation" if any(row["validation"] for row in self.history) else "train")
        points = [(float(row["epoch"]), row[split][name]) for row in self.history if name in row.get(split, {})]
        if not points:
            raise UserError(f"the history has no {split}.{name}")
        return points

    def number(self, name: str, source: str) -> float:
        """A metric of a split, or a number of an examination."""
        table = self.analyses[source] if source in self.analyses else self.metrics.get(source, {})
        if name not in table:
            raise unknown_name_error(f"number of {source}", name, table)
        return float(table[name])


def value_at(curve: Curve, epoch: float) -> float:
    """The curve after so many epochs."""
    x, y = zip(*curve, strict=True)
    if not x[0] <= epoch <= x[-1]:
        raise UserError(f"the curve goes from epoch {x[0]:g} to {x[-1]:g}, epoch {epoch:g} is not on it")
    return float(np.interp(epoch, x, y))


def first_value(curve: Curve) -> float:
    return curve[0][1]


def last_value(curve: Curve) -> float:
    return curve[-1][1]


def drop(curve: Curve) -> float:
    return first_value(curve) - last_value(curve)


def mean_over_training(curve: Curve) -> float:
    """The mean of the curve over the epochs that it spans."""
    x, y = zip(*curve, strict=True)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else y[0]


def epochs_to(curve: Curve, level: float) -> float:
    """Epochs until the curve first is as low as `level`; all that there were where it never is."""
    for (x0, y0), (x1, y1) in zip([(0.0, np.inf), *curve], curve, strict=False):
        if y1 <= level:
            return x1 if not np.isfinite(y0) else x0 + (x1 - x0) * (y0 - level) / (y0 - y1)
    return curve[-1][0]


CURVE_FUNCTIONS: dict[str, Callable[..., float]] = {
    "at": value_at,
    "first": first_value,
    "last": last_value,
    "fall": drop,
    "area": mean_over_training,
    "epochs_to": epochs_to,
}


@dataclass(frozen=True)
class Quantity:
    """A quantity of a run, from its text; names that mean nothing are refused at once."""

    text: str

    def __post_init__(self) -> None:
        _check_expression(self.tree, self.text)

    @cached_property
    def tree(self) -> ast.expr:
        try:
            return ast.parse(self.text, mode="eval").body
        except SyntaxError:
            raise UserError(f'the measure "{self.text}" is no expression') from None

    @property
    def required_analyses(self) -> set[str]:
        """The examinations that it asks for."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)]
        return {ast.unparse(node.value) for node in nodes} - set(METRIC_SPLITS)

    def value(self, record: RunRecord, peers: Sequence[RunRecord] = ()) -> float:
        """Its value for a run; `peers` are the runs of all settings with the same seed."""
        try:
            value = float(self._evaluate(self.tree, record, peers or (record,)))
        except ZeroDivisionError:
            raise UserError(f"{self.text} divides by zero") from None
        if not math.isfinite(value):
            raise UserError(f"{self.text} is not finite")
        return value

    def _evaluate(self, node: ast.expr, record: RunRecord, peers: Sequence[RunRecord]) -> float:
        match node:
            case ast.Constant():
                return float(node.value)  # type: ignore[arg-type]
            case ast.BinOp():
                left, right = self._evaluate(node.left, record, peers), self._evaluate(node.right, record, peers)
                return OPERATORS[type(node.op)](left, right)
            case ast.UnaryOp():
                return -self._evaluate(node.operand, record, peers)
            case ast.Call():
                name, split = _split_name(node.args[0])
                rest = [self._evaluate(a, record, peers) for a in node.args[1:]]
                if ast.unparse(node.func) == "epochs_to" and not rest:
                    rest = [max(min(y for _, y in peer.curve(name, split)) for peer in peers)]
                return CURVE_FUNCTIONS[ast.unparse(node.func)](record.curve(name, split), *rest)
            case _:
                name, of = _split_name(node)
                return record.number(name, of or "test")


def _split_name(node: ast.expr) -> tuple[str, str | None]:
    """`kl` -> (kl, None); `train.kl` -> (kl, train)."""
    head, _, tail = ast.unparse(node).rpartition(".")
    return tail, head or None


def _check_expression(node: ast.expr, text: str) -> None:
    """Refuse what is neither a number, a name that is known, a function of a curve, nor arithmetic of these."""
    match node:
        case ast.Constant(value=int() | float()):
            pass
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
            _check_expression(node.left, text)
            _check_expression(node.right, text)
        case ast.UnaryOp(op=ast.USub()):
            _check_expression(node.operand, text)
        case ast.Call(func=ast.Name(id=function), args=[curve, *rest]):
            if function not in CURVE_FUNCTIONS:
                raise unknown_name_error(f'function in the measure "{text}"', function, CURVE_FUNCTIONS)
            takes = inspect.signature(CURVE_FUNCTIONS[function]).parameters
            if not len(takes) - (function == "epochs_to") <= 1 + len(rest) <= len(takes):
                raise UserError(f'{function} in the measure "{text}" takes {", ".join(takes)}')
            name, split = _split_name(curve)
            _require_known_name(name, CURVE_NAMES, text)
            _require_known_name(split or "train", ("train", "validation"), text)
            for argument in rest:
                _check_expression(argument, text)
        case ast.Name():
            _require_known_name(node.id, metric_names(), text)
        case ast.Attribute(value=ast.Name(id=of)):
            if of in METRIC_SPLITS:
                _require_known_name(node.attr, metric_names(), text)
        case _:
            raise UserError(f'the measure "{text}" is not made of metrics, curves and numbers')


def _require_known_name(name: str, names: Sequence[str], text: str) -> None:
    if name not in names:
        raise unknown_name_error(f'name in the measure "{text}"', name, names)
