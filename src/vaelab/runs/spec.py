r"""The spec of a run: a frozen value that declares every setting once.

    Spec  <->  {"network": {"name": "mlp", "hidden": [400]}, "latent_dim": 20, ...}  <->  --network mlp:hidden=400

Each field says its type, its default, its help and its other spellings. Everything else follows from that: the keyword
arguments of `vaelab.train`, the flags of the command line with their help, the entries of study files, the JSON of a
run and the table of settings in the documentation.

A choice among several kinds (network, distortion, objective) is a union of frozen dataclasses. A member is written as
one word with optional fields, `mlp:hidden=400,200` or `beta:kl_weight=0.5,warmup=0.1`, or as a table with its `name`.
The union is the registry: a new member is known here, to the files and to the command line at once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vaelab.core.codec import (
    field_hints,
    member_name,
    parse_value,
    stored_name,
    to_plain,
    to_text,
    to_word,
    violations,
)
from vaelab.core.constraints import (
    Count,
    Finite,
    Fraction,
    LongCount,
    LongNatural,
    Natural,
    Positive,
    Seed,
    Side,
    UnitInterval,
)
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.core.registry import is_family, members
from vaelab.models.likelihoods import Distortion, Gaussian
from vaelab.models.networks import Conv, Network
from vaelab.models.priors import Prior, StandardNormal
from vaelab.objectives.elbo import BetaVAE
from vaelab.objectives.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from vaelab.models.vae import VAE

__all__ = [
    "SettingInfo",
    "Spec",
    "accepted_names",
    "build_model",
    "check_spec",
    "run_key",
    "spec_from_dict",
    "spec_settings",
    "spec_to_dict",
    "to_argv",
    "updated",
]


def setting(
    default: Any = MISSING,
    *,
    help: str,
    default_factory: Callable[[], Any] | Any = MISSING,
    name: str | None = None,
    aliases: tuple[str, ...] = (),
    shortcuts: Mapping[str, str] | None = None,
    flag: bool = True,
    legacy: Any = MISSING,
) -> Any:
    """Declare a setting: a field of `Spec` with all that its users meet.

    Args:
        default: The value without which nothing is asked for, or `default_factory`, which makes it.
        help: What it is, in one sentence, for `vaelab train --help` and the documentation.
        name: Its name in files, on the command line and in messages, where this is not the field's.
        aliases: Other names that are accepted.
        shortcuts: Names for fields of its members, with their help: `kl_weight` for `objective.kl_weight`.
        flag: Whether the command line has a flag for it.
        legacy: For a field added later, the value that gives the behaviour before it. A spec with that value keeps the
            key that it had before the field was there.
    """
    metadata: dict[str, Any] = {"help": help, "name": name, "aliases": aliases, "flag": flag}
    metadata["shortcuts"] = shortcuts or {}
    if legacy is not MISSING:
        metadata["legacy"] = legacy
    return field(default=default, default_factory=default_factory, metadata=metadata)


@dataclass(frozen=True)
class Spec:
    """Everything that shapes the numbers of a run, except the machine's precision.

    Example:
        >>> from vaelab import Spec
        >>> Spec(data="digits", latent_dim=8).lr
        0.001
    """

    data: str = setting(
        "digits",
        flag=False,
        help="A folder of images, .npy, .npz, parquet files, a name under $VAELAB_DATA, or a Hugging Face id.",
    )
    size: Side | None = setting(None, help="Side in pixels to which pictures are cropped and resized.")
    network: Network = setting(
        default_factory=Conv,
        help="conv, conv:widths=32,64,128, mlp:hidden=400,200, mlp:activation=tanh or report-a (valid-conv); each with "
        "init=torch, he or glorot (how weights are drawn) and output_bias=mean (starts at the mean training image).",
    )
    latent_dim: Count = setting(32, help="Number of latent dimensions.")
    distortion: Distortion = setting(
        default_factory=Gaussian,
        name="loss",
        aliases=("distortion", "likelihood"),
        help="The distortion: gaussian (also gaussian:sigma=optimal, sigma=pixel or a number), cross-entropy (ce), "
        "squared-error (se), their sum (ce+se), continuous-bernoulli (cb), laplace, or "
        "discretised-logistic:components=5.",
    )
    objective: Objective = setting(
        default_factory=BetaVAE,
        help="How distortion and KL are weighed, such as beta:kl_weight=0.5,warmup=0.1,free_bits=0.1,reduction=mean; "
        "or capacity:capacity=25, beta-tc:tc_weight=6, factor:gamma=10, info-mmd, dip, iwae:k=5,gradient=dreg.",
        shortcuts={"kl_weight": "Short for the objective's KL weight."},
    )
    prior: Prior = setting(
        default_factory=StandardNormal,
        legacy=StandardNormal(),
        help="The distribution of codes before an image is seen.",
    )
    epochs: LongCount = setting(20, help="Passes over the training images.")
    steps: LongCount | None = setting(
        None, legacy=None, aliases=("max_steps",), help="Steps of the training in place of epochs."
    )
    minutes: Positive | None = setting(None, aliases=("max_minutes",), help="A time budget in place of epochs.")
    estimates: tuple[LongNatural, ...] | None = setting(
        None,
        legacy=None,
        help="How the number of steps was estimated under a time budget: a step, then the number of steps that was "
        "expected there, and so on, such as 0,900,450,1000. With --steps it repeats a training with --minutes.",
    )
    batch_size: Count = setting(128, help="Images in a step.")
    lr: Positive = setting(1e-3, aliases=("learning_rate",), help="Learning rate of Adam.")
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", help="Of the learning rate: constant, linear or cosine, which fall to 0."
    )
    lr_warmup: UnitInterval = setting(0.0, help="Fraction of the training over which the learning rate rises from 0.")
    clip: Positive | None = setting(None, aliases=("grad_clip",), help="Largest norm of the gradient.")
    ema: Fraction = setting(0.0, help="Decay of averaged weights, which are then the ones kept, such as 0.999.")
    flips: bool = setting(False, aliases=("horizontal_flip",), help="Mirror half of the training pictures.")
    shift: Natural = setting(
        0,
        legacy=0,
        aliases=("random_shift",),
        help="Move each training picture at random by up to so many pixels; its edges are repeated.",
    )
    validation: Fraction = setting(0.1, help="Fraction of the training images held out.")
    keep: Literal["last", "best"] = setting(
        "last",
        aliases=("select",),
        help="Weights of the last epoch, or of the best one in validation: last or best.",
    )
    subset: LongCount | None = setting(None, legacy=None, help="Only so many training images, evenly over categories.")
    binarise: Literal["dynamic", "fixed"] | None = setting(
        None,
        aliases=("binarize",),
        legacy=None,
        help="Draw pixels black or white, with their grey value as the probability: dynamic (anew at each visit) or "
        "fixed.",
    )
    value_range: tuple[Finite, ...] | None = setting(
        None,
        legacy=None,
        help="The values that become black and white in pictures of more than 8 bits and in arrays, such as 0,4095; "
        "none: what the pictures suggest.",
    )
    split_seed: Seed = setting(
        0,
        legacy=0,
        help="Seed of the validation and test splits and of the subset, where the data do not store them; 0: the usual "
        "ones.",
    )
    seed: Seed = setting(0, help="Seed of weights, order and noise.")
    parent: str | None = setting(None, flag=False, help="Key of the run whose weights this one starts from.")

    @property
    def loss(self) -> Distortion:
        """The distortion, under the name that it has in files and on the command line."""
        return self.distortion

    def num_steps(self, num_images: int) -> int:
        """The steps of a training on so many images; where a time budget ends it, those of its epochs."""
        return self.steps or self.epochs * math.ceil(num_images / self.batch_size)

    def num_epochs(self, num_images: int) -> int:
        """The epochs of a training on so many images, the last of which may be a part."""
        return math.ceil(self.num_steps(num_images) / math.ceil(num_images / self.batch_size))

    @property
    def data_settings(self) -> dict[str, Any]:
        """The settings with which the data are loaded."""
        names = ("size", "validation", "subset", "binarise", "value_range", "split_seed")
        return {name: getattr(self, name) for name in names}


# What follows from the declarations.


class SettingInfo(NamedTuple):
    """A setting as its user meets it.

    `name` is its name in files, on the command line and in messages; `attribute` that of the field, or a path such as
    `objective.kl_weight`; `hint` its type; `default` its value in `Spec()`; `flag` says whether `train` has a flag.
    """

    name: str
    attribute: str
    hint: Any
    default: Any
    help: str
    aliases: tuple[str, ...] = ()
    flag: bool = True


@cache
def spec_settings() -> dict[str, SettingInfo]:
    """All settings by name, in the order in which they are declared.

    Example:
        >>> spec_settings()["binarise"].aliases
        ('binarize',)
    """
    default, hints = Spec(), field_hints(Spec)
    settings: dict[str, SettingInfo] = {}
    for f in fields(Spec):
        value, meta = getattr(default, f.name), f.metadata
        info = SettingInfo(stored_name(f), f.name, hints[f.name], value, meta["help"], meta["aliases"], meta["flag"])
        settings[info.name] = info
        for name, text in meta["shortcuts"].items():
            inner = field_hints(type(value))[name]
            settings[name] = SettingInfo(name, f"{f.name}.{name}", inner, getattr(value, name), text)
    return settings


@cache
def accepted_names() -> dict[str, SettingInfo]:
    """The setting that each accepted name stands for: its own name, its aliases, the name of its field."""
    names: dict[str, SettingInfo] = {}
    for info in spec_settings().values():
        for name in (info.name, *info.aliases):
            names[name] = info
    return names


# Changing and checking.


def updated(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """The spec with some settings changed.

    Args:
        spec: What to start from.
        changes: Settings by any accepted name. Values may be words, as on the command line. `objective.warmup` names a
            field of a member, and applies after whole members whatever the order.

    Raises:
        UserError: A setting is unknown, or its value cannot be read.

    Example:
        >>> spec = updated(Spec(), {"network": "mlp:hidden=64", "objective.warmup": 0.1})
        >>> spec.network.hidden, spec.objective.warmup
        ((64,), 0.1)
    """
    inner: list[tuple[str, str, Any]] = []
    given: list[str] = []
    for name, value in changes.items():
        attribute = _resolve_attribute(name)
        if "." in attribute:
            inner.append((name, attribute, value))
            continue
        info = _info_of(attribute)
        spec = replace(spec, **{attribute: parse_value(info.name, info.hint, value)})
        given.append(attribute)
    spec = _with_given_length(spec, given)
    for name, path, value in inner:
        attribute, _, rest = path.partition(".")
        spec = replace(spec, **{attribute: _update_member(getattr(spec, attribute), rest, name, value)})
    return spec


def _with_given_length(spec: Spec, given: Sequence[str]) -> Spec:
    """The spec without a time budget or a number of steps that would hide the length that was given now."""
    if "epochs" in given and "steps" not in given:
        spec = replace(spec, steps=None)
    if ("epochs" in given or "steps" in given) and "minutes" not in given:
        spec = replace(spec, minutes=None)
    if any(name in given for name in ("epochs", "steps", "minutes")) and "estimates" not in given:
        spec = replace(spec, estimates=None)
    return spec


def _resolve_attribute(name: str) -> str:
    """The field that a name stands for, or the path to a member's field."""
    plain = name.replace("-", "_")
    head, dot, rest = plain.partition(".")
    known = accepted_names()
    if head not in known:
        raise unknown_name_error("setting", name, known)
    return known[head].attribute + dot + rest


def _info_of(attribute: str) -> SettingInfo:
    return next(info for info in spec_settings().values() if info.attribute == attribute)


def _update_member(member: Any, inner: str, name: str, value: Any) -> Any:
    """The member with its field `inner` changed; `name` is what the setting was called."""
    if not hasattr(member, "__dataclass_fields__"):
        raise UserError(f'unknown setting "{name}": {name.partition(".")[0]} has no fields')
    hints = field_hints(type(member))
    if inner not in hints:
        raise UserError(f"{member_name(type(member))} has no {inner} (it has: {', '.join(hints) or 'no fields'})")
    return replace(member, **{inner: parse_value(name, hints[inner], value)})


def check_spec(spec: Spec) -> None:
    """Refuse values that make no sense.

    Raises:
        UserError: It names all of them in one message.
    """
    names, sentences = [], []
    for name, sentence in violations(spec):
        names.append(name)
        sentences.append(sentence)
    if spec.keep == "best" and spec.validation == 0:
        names += ["keep", "validation"]
        sentences.append("keep must be last where validation is 0, got best")
    if spec.value_range is not None and not _is_range(spec.value_range):
        names.append("value_range")
        sentences.append(f"value_range must be two numbers, the smaller one first, got {to_text(spec.value_range)}")
    if spec.estimates is not None and not _are_estimates(spec.estimates, spec.steps):
        names.append("estimates")
        sentences.append(
            "estimates must be pairs of a step and the number of steps expected there, the first one at step 0, the "
            f"last one of the --steps, got {to_text(spec.estimates)}"
        )
    if sentences:
        raise UserError("; ".join(sentences), settings=names)


def _are_estimates(estimates: tuple[int, ...], steps: int | None) -> bool:
    """Whether numbers are the estimates of a training with so many steps."""
    starts, totals = estimates[::2], estimates[1::2]
    if len(starts) != len(totals) or not totals or starts[0] != 0 or totals[-1] != steps:
        return False
    return list(starts) == sorted(starts) and all(s < total for s, total in zip(starts, totals, strict=True))


def _is_range(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and values[0] < values[1]


# Files, keys and the command line.


def spec_from_dict(table: Mapping[str, Any]) -> Spec:
    """The spec that `spec_to_dict` wrote, perhaps before some fields were there.

    Raises:
        UserError: A field is missing that has always been there, or one is unknown.
    """
    legacy: dict[str, Any] = {}
    missing = []
    for f in fields(Spec):
        if "legacy" in f.metadata:
            legacy[f.name] = f.metadata["legacy"]
        elif stored_name(f) not in table:
            missing.append(stored_name(f))
    if missing:
        raise UserError(f"a stored spec lacks {', '.join(missing)}")
    return updated(Spec(**legacy), {name: _with_legacy_fields(name, value) for name, value in table.items()})


def _with_legacy_fields(name: str, value: Any) -> Any:
    """The stored value of a setting; a member gets the fields that were added after it was stored."""
    info = accepted_names().get(name)
    if info is None or not is_family(info.hint) or not isinstance(value, Mapping):
        return value
    for member in members(info.hint):
        if value.get("name") == member_name(member):
            added = {stored_name(f): f.metadata["legacy"] for f in fields(member) if "legacy" in f.metadata}
            return added | dict(value)
    return value


def spec_to_dict(spec: Spec) -> dict[str, Any]:
    """All settings as JSON or TOML holds them."""
    return {stored_name(f): to_plain(getattr(spec, f.name)) for f in fields(spec)}


def run_key(spec: Spec, fingerprint: str, precision: str) -> str:
    """The name of a run: a hash of what shapes its numbers, with the content of the data in place of their path."""
    spec = spec_from_dict(spec_to_dict(spec))  # equal specs have equal keys, also where one says 4 and the other 4.0
    table = hashed_fields(spec) | {"data": fingerprint, "precision": precision}
    return hashlib.blake2b(json.dumps(table, sort_keys=True).encode(), digest_size=8).hexdigest()


def hashed_fields(member: Any) -> dict[str, Any]:
    """The fields of a spec or of a member that enter its key: not those with the value from before they were there."""
    table = {} if isinstance(member, Spec) else {"name": member.name}
    for f in fields(member):
        value = getattr(member, f.name)
        if "legacy" in f.metadata and value == f.metadata["legacy"]:
            continue
        table[stored_name(f)] = hashed_fields(value) if hasattr(value, "__dataclass_fields__") else to_plain(value)
    return table


def to_argv(spec: Spec) -> list[str]:
    """The words after `vaelab train` that give this spec.

    Example:
        >>> to_argv(Spec(latent_dim=8, flips=True))
        ['digits', '--latent-dim', '8', '--flips']
    """
    argv = [spec.data]
    for info in spec_settings().values():
        if not info.flag or "." in info.attribute:
            continue
        value = getattr(spec, info.attribute)
        if value == info.default:
            continue
        argv.append(f"--{info.name.replace('_', '-')}")
        if hasattr(value, "__dataclass_fields__"):
            argv.append(to_word(value))
        elif value is not True:
            argv.append(to_text(value))
    return argv


def build_model(
    spec: Spec, shape: tuple[int, int, int], seed: int | None = None, mean_image: Tensor | None = None
) -> VAE:
    """The model of a spec.

    Args:
        spec: What is trained.
        shape: The shape of an image, (C, H, W).
        seed: The seed of the initial weights; without one they are any.
        mean_image: The image that reconstructions start at, (C, H, W), where the network's output bias asks for it.
    """
    import torch

    from vaelab.core.rng import generator
    from vaelab.models.vae import VAE

    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the default generator
        torch.default_generator.manual_seed(generator(seed, "weights").initial_seed())
        model = VAE(spec.network, spec.distortion, shape, spec.latent_dim, spec.prior)
        if mean_image is not None:
            model.start_at(mean_image)
        model.critic = spec.objective.critic(spec.latent_dim)
        return model
