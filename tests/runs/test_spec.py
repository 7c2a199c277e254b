"""The spec and its codec: words, JSON and back, keys, and what is refused with which words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from vaelab.core.codec import to_word
from vaelab.core.errors import UserError
from vaelab.models.likelihoods import CrossEntropy, CrossEntropyPlusSquaredError, Gaussian, SquaredError
from vaelab.models.networks import Conv, Mlp
from vaelab.objectives.elbo import BetaVAE
from vaelab.runs.presets import PRESETS, get_preset
from vaelab.runs.spec import Spec, check_spec, run_key, spec_from_dict, spec_to_dict, updated

SPECS = [
    *PRESETS.values(),
    Spec(size=64, clip=1.0, minutes=2.5, flips=True, keep="best", ema=0.99, schedule="cosine"),
    Spec(network=Mlp(hidden=()), distortion=Gaussian(0.1, "identity"), objective=BetaVAE(0.5, 0.1, 0.2, "mean")),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_json_and_words_bring_back_the_same_spec(spec: Spec) -> None:
    table = json.loads(json.dumps(spec_to_dict(spec)))
    assert spec_from_dict(table) == spec
    check_spec(spec)
    words = {name: to_word(getattr(spec, name)) for name in ("network", "loss", "objective")}
    assert updated(Spec(), table | words) == spec


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loss": "ce"}, Spec(distortion=CrossEntropy())),
        ({"loss": "squared-error"}, Spec(distortion=SquaredError())),
        ({"loss": "ce+se:squared_error=0.5"}, Spec(distortion=CrossEntropyPlusSquaredError(1.0, 0.5))),
        ({"loss": {"name": "gaussian", "sigma": 0.3}}, Spec(distortion=Gaussian(0.3))),
        ({"loss": "gaussian:sigma=none"}, Spec()),
        ({"network": "mlp:hidden=400,200"}, Spec(network=Mlp((400, 200)))),
        ({"network": "mlp:hidden="}, Spec(network=Mlp(()))),
        ({"network": "conv", "kl_weight": "0.5"}, Spec(network=Conv(), objective=BetaVAE(0.5))),
        ({"objective": "beta:kl-weight=2,warmup=0.1", "latent-dim": 8}, Spec(objective=BetaVAE(2, 0.1), latent_dim=8)),
        ({"kl-weight": 0.5, "objective": "beta:warmup=0.1"}, Spec(objective=BetaVAE(0.5, 0.1))),
        ({"objective.free_bits": 0.25, "flips": "yes"}, Spec(objective=BetaVAE(free_bits=0.25), flips=True)),
    ],
    ids=str,
)
def test_words_are_read(changes: dict[str, Any], expected: Spec) -> None:
    assert updated(Spec(), changes) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": "abc"}, 'lr must be a number, got "abc"'),
        ({"lr": "nan"}, "lr must be a positive number, got nan"),
        ({"epochs": 2.5}, 'epochs must be a whole number, got "2.5"'),
        ({"epochs": -1}, "epochs must be at least 1, got -1"),
        (
            {"latent_dim": 0, "batch_size": 0},
            "latent_dim must be at least 1, got 0; batch_size must be at least 1, got 0",
        ),
        ({"size": 4}, "size must be from 8 to 256 pixels, got 4"),
        ({"network": "cnn"}, 'unknown network "cnn"; did you mean "conv"? (have: conv, mlp, report-a)'),
        (
            {"network": "mlp:widths=3"},
            "network mlp has no field widths (it has: init, output_bias, inputs, hidden",
        ),
        ({"network": "mlp:hidden=0"}, "hidden must be at least 1, got 0"),
        ({"loss": "mse"}, 'unknown loss "mse"'),
        ({"objective": "beta:3"}, '"3" is not of the form field=value'),
        ({"schedule": "cosin"}, 'did you mean "cosine"?'),
        ({"latentdim": 3}, 'unknown setting "latentdim"; did you mean "latent_dim"?'),
        ({"kl_weight": -1}, "kl_weight must be a number of at least 0, got -1"),
        ({"keep": "best", "validation": 0}, "keep must be last where validation is 0, got best"),
        ({"loss": "gaussian:sigma=0"}, "sigma must be a positive number, got 0"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        check_spec(updated(Spec(), changes))
    assert said in str(error.value)


def test_presets_are_values() -> None:
    assert get_preset("report-b", "mnist").epochs == 10
    assert get_preset("report-b", "some/where/cifar10").epochs == 20
    assert get_preset("report-a", "faces").objective.kl_weight == 0.5
    with pytest.raises(UserError, match='did you mean "textbook"'):
        get_preset("textbok", "mnist")


def test_old_words_are_those_of_the_same_things() -> None:
    assert get_preset("report-a", "faces") == get_preset("faces", "faces")
    assert get_preset("report-b", "mnist") == get_preset("mnist", "mnist")
    assert get_preset("report-b", "cifar10") == get_preset("cifar10", "cifar10")
    assert updated(Spec(), {"network": "valid-conv:hidden=8"}) == updated(Spec(), {"network": "report-a:hidden=8"})
    assert spec_to_dict(updated(Spec(), {"network": "valid-conv"}))["network"]["name"] == "report-a"


def test_a_key_follows_what_shapes_numbers_and_nothing_else() -> None:
    spec = Spec(data="here")
    assert run_key(spec, "f", "float32") == run_key(replace(spec, data="moved"), "f", "float32")
    assert run_key(spec_from_dict(spec_to_dict(spec)), "f", "float32") == run_key(spec, "f", "float32")
    assert run_key(replace(spec, objective=BetaVAE(4)), "f", "float32") == run_key(
        replace(spec, objective=BetaVAE(4.0)), "f", "float32"
    )
    others = [(replace(spec, seed=1), "f", "float32"), (spec, "g", "float32"), (spec, "f", "bfloat16")]
    assert len({run_key(*o) for o in [*others, (spec, "f", "float32")]}) == 4


@pytest.mark.parametrize("network", ["mlp", "conv", "report-a"])
def test_a_stored_network_means_what_it_meant_before_a_setting_was_added(network: str) -> None:
    stored = spec_to_dict(updated(Spec(), {"network": f"{network}:init=glorot,output_bias=mean"}))
    assert spec_from_dict(stored).network.init == "glorot"
    for added in ("init", "output_bias", "inputs", "linear_path"):
        stored["network"].pop(added, None)
    earlier = spec_from_dict(stored).network
    assert (earlier.name, earlier.init, earlier.output_bias, earlier.inputs) == (network, "torch", "init", "unit")


def test_keys_of_stored_runs_stay_what_they_are() -> None:
    """A change here orphans every run that users have: give a new field its `legacy` value instead."""
    assert run_key(Spec(network=Conv(init="torch")), "fingerprint", "float32") == "0c7631e740f2ade0"
