r"""The spec of a run: a frozen value, and the one codec between it, JSON, TOML and the command line.

    Spec  <->  {"network": {"name": "mlp", "hidden": [400]}, "latent_dim": 20, ...}  <->  --network mlp:hidden=400

A choice among several kinds (network, loss, objective) is a union of frozen dataclasses. A member is written as one
word with optional fields, `mlp:hidden=400,200` or `beta:kl_weight=0.5,warmup=0.1`, or as a table with its `name`; the
union is the registry, so that a new member is known here, to the files and to the command line at once.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from vaelab.errors import UserError, unknown
from vaelab.laws import Count, Fraction, Law, Natural, Part, Positive, Side
from vaelab.likelihoods import CrossEntropy, Distortion, Gaussian, SquaredError
from vaelab.networks import Conv, Mlp, Network, ReportA
from vaelab.objectives import Beta, Objective

__all__ = ["PRESETS", "Spec", "change", "check", "decode", "encode", "flags", "key", "preset"]


@dataclass(frozen=True)
class Spec:
    """Everything that shapes the numbers of a run, except the machine's precision.

    A field that is added later carries `metadata={"legacy": value}`, the value that reproduces the behaviour before it:
    with that value it stays out of `key`, and older runs keep theirs.
    """

    data: str = "digits"
    size: Side | None = None  # side in pixels to which pictures are cropped and resized; none: as they are
    network: Network = field(default_factory=Conv)
    latent_dim: Count = 32
    loss: Distortion = field(default_factory=Gaussian)
    objective: Objective = field(default_factory=Beta)
    epochs: Count = 20
    minutes: Positive | None = None  # a time budget in place of epochs
    batch_size: Count = 128
    lr: Positive = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the learning rate, towards 0
    lr_warmup: Part = 0.0  # the part of the training over which the learning rate rises from 0
    clip: Positive | None = None  # largest norm of the gradient
    ema: Fraction = 0.0  # decay of the averaged weights, which are then the ones evaluated and kept
    flips: bool = False  # mirror half of the training pictures
    validation: Fraction = 0.1  # the fraction of the training pictures held out
    keep: Literal["last", "best"] = "last"  # best: the epoch of lowest validation loss
    subset: Count | None = field(default=None, metadata={"legacy": None})  # only so many training pictures
    # Pixels drawn to be black or white, with their grey value as the probability: anew at each visit, or once.
    binarise: Literal["dynamic", "fixed"] | None = field(default=None, metadata={"legacy": None})
    seed: Natural = 0  # of weights, batch order and noise
    parent: str | None = None  # key of the run whose weights this one starts from

    @property
    def loaded(self) -> dict[str, Any]:
        """The settings with which the data are loaded."""
        return {"size": self.size, "validation": self.validation, "subset": self.subset, "binarise": self.binarise}


PRESETS: dict[str, Spec] = {
    # The VAE of the PyTorch examples.
    "textbook": Spec(network=Mlp(), latent_dim=20, loss=CrossEntropy(), epochs=10, validation=0.0),
    # The same network and loss at the textbook's figure in a quarter of its steps: larger batches, a learning rate that
    # rises to 20 times the textbook's and falls to 0. Chosen on 10,000 training images that were held out.
    "fast": Spec(
        network=Mlp(),
        latent_dim=20,
        loss=CrossEntropy(),
        epochs=4,
        validation=0.0,
        batch_size=192,
        lr=0.02,
        schedule="linear",
        lr_warmup=0.2,
    ),
    # Report A, row A5 read as the sum over pixels; learning rate and batch size are open there.
    "report-a": Spec(
        size=32, network=ReportA(), latent_dim=64, loss=SquaredError(), objective=Beta(kl_weight=0.5), epochs=80
    ),
    # Report B: architecture, epochs and batch size are open there; initial weights as PyTorch draws them.
    "report-b": Spec(
        network=Conv(widths=(32, 64, 128), init="torch"), latent_dim=128, loss=CrossEntropy(), epochs=10, lr=5e-4
    ),
}
PRESETS["report-b on cifar10"] = replace(PRESETS["report-b"], epochs=20)

SHORT = {"kl_weight": "objective.kl_weight"}  # what is asked for so often that it needs no prefix


def preset(name: str | None, data: str) -> Spec:
    """The preset called `name` for `data`, or the default spec."""
    if name is None:
        return Spec(data=data)
    named = f"{name} on {PurePath(data).name}"
    if named not in PRESETS and name not in PRESETS:
        raise unknown("preset", name, (n for n in PRESETS if " on " not in n))
    return replace(PRESETS.get(named) or PRESETS[name], data=data)


def change(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """The spec with some fields changed; values may be words. `objective.warmup` names a field of a member."""
    hints = _hints(Spec)
    inner = []
    for name, value in changes.items():
        plain = name.replace("-", "_")
        head, _, rest = SHORT.get(plain, plain).partition(".")
        if head not in hints:
            raise unknown("setting", name, [*hints, *SHORT])
        if rest:
            inner.append((name, head, rest, value))
        else:
            spec = replace(spec, **{head: parse(head, hints[head], value)})
    for name, head, rest, value in inner:  # after whole members, whatever the order in which they were given
        spec = replace(spec, **{head: _change_member(getattr(spec, head), rest, name, value)})
    return spec


def _change_member(member: Any, inner: str, name: str, value: Any) -> Any:
    hints = _hints(type(member))
    if inner not in hints:
        raise UserError(f"{_word(type(member))} has no {inner} (it has: {', '.join(hints) or 'no fields'})")
    return replace(member, **{inner: parse(name, hints[inner], value)})


def decode(table: Mapping[str, Any]) -> Spec:
    """The spec that `encode` wrote, perhaps before some fields were there; other names are refused."""
    lacking = [f.name for f in fields(Spec) if f.name not in table and "legacy" not in f.metadata]
    if lacking:
        raise UserError(f"a stored spec lacks {', '.join(lacking)}")
    return change(Spec(**{f.name: f.metadata["legacy"] for f in fields(Spec) if "legacy" in f.metadata}), table)


def encode(spec: Spec) -> dict[str, Any]:
    """Spec -> JSON or TOML, every field."""
    return {f.name: _plain(getattr(spec, f.name)) for f in fields(spec)}


def key(spec: Spec, fingerprint: str, precision: str) -> str:
    """The name of a run: a hash of what shapes its numbers, with the content of the data in place of their path."""
    spec = decode(encode(spec))  # equal specs have equal keys, also where one says 4 and the other 4.0
    table = _hashed(spec) | {"data": fingerprint, "precision": precision}
    return hashlib.blake2b(json.dumps(table, sort_keys=True).encode(), digest_size=8).hexdigest()


def _hashed(member: Any) -> dict[str, Any]:
    """The fields of a spec or of a member that enter its key: not those that are as before they were there."""
    values = {f.name: getattr(member, f.name) for f in fields(member)
              if "legacy" not in f.metadata or getattr(member, f.name) != f.metadata["legacy"]}  # fmt: skip
    plain = {n: _hashed(v) if hasattr(v, "__dataclass_fields__") else _plain(v) for n, v in values.items()}
    return plain if isinstance(member, Spec) else {"name": member.name} | plain


def check(spec: Spec) -> None:
    """Refuse values that cannot be meant, all of them in one message."""
    wrong = list(broken(spec))
    if spec.keep == "best" and spec.validation == 0:
        wrong.append("keep must be last where validation is 0, got best")
    if wrong:
        raise UserError("; ".join(wrong))


def broken(member: Any) -> Iterator[str]:
    """What breaks the law of its field, in a dataclass and the members that it holds."""
    for name, hint in _hints(type(member)).items():
        value = getattr(member, name)
        if hasattr(value, "__dataclass_fields__"):
            yield from broken(value)
        values = value if isinstance(value, tuple) else (value,)
        for law in _laws(hint):
            numbers = (v for v in values if isinstance(v, int | float))  # a word may stand in place of one
            yield from (f"{name} must be {law.said}, got {v}" for v in numbers if not law.holds(v))


def _laws(hint: Any) -> list[Law]:
    """The laws in a type such as `Positive | None` or `tuple[Count, ...]`."""
    if get_origin(hint) is Annotated:
        return [law for law in hint.__metadata__ if isinstance(law, Law)]
    return [law for inner in get_args(hint) for law in _laws(inner)]


# The codec: type hints say how a value is read.


def parse(name: str, hint: Any, value: Any) -> Any:
    """Read `value`, a word or plain JSON, as what `hint` says; errors name the setting."""
    flag = name.replace("_", "-")
    members = _members(hint)
    if members:
        return _member(flag, members, value)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(name, args, value)
    if origin is Literal:
        if value not in args:
            raise unknown(flag, str(value), args)
        return value
    if origin is tuple:
        items = [v for v in value.split(",") if v.strip()] if isinstance(value, str) else value
        items = items if isinstance(items, list | tuple) else [items]
        return tuple(parse(name, args[0], item) for item in items)
    return _scalar(flag, hint, value)


def _one_of(name: str, hints: tuple[Any, ...], value: Any) -> Any:
    """Read a value that may be none, one of some words, or of another kind."""
    if type(None) in hints and (value is None or value in ("none", "None")):
        return None
    words = [w for hint in hints if get_origin(hint) is Literal for w in get_args(hint)]
    others = [h for h in hints if h is not type(None) and get_origin(h) is not Literal]
    if value in words or not others:
        return parse(name, Literal[*words], value)
    try:
        return parse(name, others[0], value)
    except UserError as error:
        raise UserError(f"{error} (or {', '.join(words)})" if words else str(error)) from None


KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _scalar(flag: str, kind: type, value: Any) -> Any:
    wrong = UserError(f'{flag} must be {KINDS[kind]}, got "{value}"')
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in words:
            raise wrong
        return words[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise wrong
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise wrong from None


def _members(hint: Any) -> tuple[type, ...]:
    """The dataclasses of a union of them (or the only one); none for other types."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return members if all(hasattr(m, "__dataclass_fields__") for m in members) else ()


def _member(flag: str, members: tuple[type, ...], value: Any) -> Any:
    if type(value) in members:
        return value
    if isinstance(value, Mapping):
        settings = dict(value)
        word = str(settings.pop("name", ""))
    else:
        word, _, rest = str(value).strip().partition(":")
        settings = _settings(flag, rest)
    known = {name: m for m in members for name in (_word(m), *getattr(m, "short", ()))}
    if word not in known:
        raise unknown(flag, word, dict.fromkeys(_word(m) for m in members))
    return _build(flag, known[word], settings)


def _settings(flag: str, text: str) -> dict[str, str]:
    """`hidden=400,200,bias=1` -> {"hidden": "400,200", "bias": "1"}: what has no = goes on with the value before."""
    settings: dict[str, str] = {}
    for piece in filter(None, text.split(",")):
        name, equals, value = piece.partition("=")
        if equals:
            settings[name.strip().replace("-", "_")] = value
        elif settings:
            last = next(reversed(settings))
            settings[last] += f",{piece}"
        else:
            raise UserError(f'{flag}: "{text}" is not of the form field=value,field=value')
    return settings


def _build(flag: str, member: type, settings: Mapping[str, Any]) -> Any:
    hints = _hints(member)
    for name in settings:
        if name not in hints:
            raise UserError(f"{flag} {_word(member)} has no field {name} (it has: {', '.join(hints) or 'none'})")
    return member(**{n: parse(f"{flag}:{n}", hints[n], v) for n, v in settings.items()})


def _hints(member: type) -> dict[str, Any]:
    hints = get_type_hints(member, include_extras=True)
    return {f.name: hints[f.name] for f in fields(member)}


def _word(member: type) -> str:
    return member.name  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {"name": value.name} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def flags(spec: Spec) -> list[str]:
    """The words after `vaelab train` that give this spec."""
    plain, words = Spec(data=spec.data), [spec.data]
    for f in fields(spec):
        value = getattr(spec, f.name)
        if value != getattr(plain, f.name) and f.name != "parent":
            told = [] if value is True else [word(value) if hasattr(value, "__dataclass_fields__") else _text(value)]
            words += [f"--{f.name.replace('_', '-')}", *told]
    return words


def word(value: Any) -> str:
    """A member as the command line writes it, with the fields that differ from their defaults."""
    default = type(value)()
    shown = [f"{f.name}={_text(getattr(value, f.name))}" for f in fields(value)
             if getattr(value, f.name) != getattr(default, f.name)]  # fmt: skip
    return _word(type(value)) + (":" + ",".join(shown) if shown else "")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
