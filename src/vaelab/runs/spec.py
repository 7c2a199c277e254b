r"""The spec of a run: a frozen value, and the one codec between it, JSON, TOML and the command line.

    Spec  <->  {"network": {"name": "mlp", "hidden": [400]}, "latent_dim": 20, ...}  <->  --network mlp:hidden=400

A choice among several kinds (network, loss, objective) is a union of frozen dataclasses. A member is written as one
word with optional fields, `mlp:hidden=400,200` or `beta:kl_weight=0.5,warmup=0.1`, or as a table with its `name`; the
union is the registry, so that a new member is known here, to the files and to the command line at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from vaelab.core.codec import field_hints, member_name, parse_value, to_plain, to_text, to_word, violations
from vaelab.core.constraints import Count, Fraction, Natural, Positive, Side, UnitInterval
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.models.likelihoods import Distortion, Gaussian
from vaelab.models.networks import Conv, Network
from vaelab.objectives.elbo import BetaVAE
from vaelab.objectives.objective import Objective

if TYPE_CHECKING:
    from vaelab.models.vae import VAE

__all__ = ["Spec", "build_model", "check_spec", "run_key", "spec_from_dict", "spec_to_dict", "to_argv", "updated"]


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
    objective: Objective = field(default_factory=BetaVAE)
    epochs: Count = 20
    minutes: Positive | None = None  # a time budget in place of epochs
    batch_size: Count = 128
    lr: Positive = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the learning rate, towards 0
    lr_warmup: UnitInterval = 0.0  # the part of the training over which the learning rate rises from 0
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
    def data_settings(self) -> dict[str, Any]:
        """The settings with which the data are loaded."""
        return {"size": self.size, "validation": self.validation, "subset": self.subset, "binarise": self.binarise}


FIELD_ALIASES = {"kl_weight": "objective.kl_weight"}  # what is asked for so often that it needs no prefix


def updated(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """The spec with some fields changed; values may be words. `objective.warmup` names a field of a member."""
    hints = field_hints(Spec)
    inner = []
    for name, value in changes.items():
        plain = name.replace("-", "_")
        head, _, rest = FIELD_ALIASES.get(plain, plain).partition(".")
        if head not in hints:
            raise unknown_name_error("setting", name, [*hints, *FIELD_ALIASES])
        if rest:
            inner.append((name, head, rest, value))
        else:
            spec = replace(spec, **{head: parse_value(head, hints[head], value)})
    for name, head, rest, value in inner:  # after whole members, whatever the order in which they were given
        spec = replace(spec, **{head: _update_member(getattr(spec, head), rest, name, value)})
    return spec


def _update_member(member: Any, inner: str, name: str, value: Any) -> Any:
    hints = field_hints(type(member))
    if inner not in hints:
        raise UserError(f"{member_name(type(member))} has no {inner} (it has: {', '.join(hints) or 'no fields'})")
    return replace(member, **{inner: parse_value(name, hints[inner], value)})


def spec_from_dict(table: Mapping[str, Any]) -> Spec:
    """The spec that `encode` wrote, perhaps before some fields were there; other names are refused."""
    lacking = [f.name for f in fields(Spec) if f.name not in table and "legacy" not in f.metadata]
    if lacking:
        raise UserError(f"a stored spec lacks {', '.join(lacking)}")
    return updated(Spec(**{f.name: f.metadata["legacy"] for f in fields(Spec) if "legacy" in f.metadata}), table)


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """Spec -> JSON or TOML, every field."""
    return {f.name: to_plain(getattr(spec, f.name)) for f in fields(spec)}


def run_key(spec: Spec, fingerprint: str, precision: str) -> str:
    """The name of a run: a hash of what shapes its numbers, with the content of the data in place of their path."""
    spec = spec_from_dict(spec_to_dict(spec))  # equal specs have equal keys, also where one says 4 and the other 4.0
    table = hashed_fields(spec) | {"data": fingerprint, "precision": precision}
    return hashlib.blake2b(json.dumps(table, sort_keys=True).encode(), digest_size=8).hexdigest()


def hashed_fields(member: Any) -> dict[str, Any]:
    """The fields of a spec or of a member that enter its key: not those that are as before they were there."""
    values = {
        f.name: getattr(member, f.name)
        for f in fields(member)
        if "legacy" not in f.metadata or getattr(member, f.name) != f.metadata["legacy"]
    }
    plain = {n: hashed_fields(v) if hasattr(v, "__dataclass_fields__") else to_plain(v) for n, v in values.items()}
    return plain if isinstance(member, Spec) else {"name": member.name} | plain


def check_spec(spec: Spec) -> None:
    """Refuse values that cannot be meant, all of them in one message."""
    wrong = list(violations(spec))
    if spec.keep == "best" and spec.validation == 0:
        wrong.append("keep must be last where validation is 0, got best")
    if wrong:
        raise UserError("; ".join(wrong))


def to_argv(spec: Spec) -> list[str]:
    """The words after `vaelab train` that give this spec."""
    plain, words = Spec(data=spec.data), [spec.data]
    for f in fields(spec):
        value = getattr(spec, f.name)
        if value != getattr(plain, f.name) and f.name != "parent":
            told = (
                [] if value is True else [to_word(value) if hasattr(value, "__dataclass_fields__") else to_text(value)]
            )
            words += [f"--{f.name.replace('_', '-')}", *told]
    return words


def build_model(spec: Spec, shape: tuple[int, int, int], seed: int | None = None) -> VAE:
    """The model of a spec for images of `shape`; with a seed its initial weights are those of that seed alone."""
    import torch

    from vaelab.core.rng import generator
    from vaelab.models.vae import VAE

    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the default generator
        torch.default_generator.manual_seed(generator(seed, "weights").initial_seed())
        model = VAE(spec.network, spec.loss, shape, spec.latent_dim)
        model.critic = spec.objective.critic(spec.latent_dim)
        return model
