"""Laws of the spec: every setting by every name, its length, what is stored of it, and the model that it makes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
import torch

from vaelab.core.errors import UserError
from vaelab.core.registry import members
from vaelab.core.rng import generator
from vaelab.models.likelihoods import CrossEntropy
from vaelab.models.networks import Conv, Mlp
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE
from vaelab.objectives.disentangling import FactorVAE
from vaelab.objectives.elbo import BetaVAE
from vaelab.runs.spec import (
    Spec,
    accepted_names,
    build_model,
    check_spec,
    hashed_fields,
    run_key,
    spec_from_dict,
    spec_settings,
    spec_to_dict,
    to_argv,
    updated,
)

# A setting, the words that users have been able to write for it, one spelling of a value, and the value.
SETTINGS: list[tuple[str, list[str], str, Any]] = [
    ("data", [], "mnist", "mnist"),
    ("size", [], "32", 32),
    ("network", [], "mlp:hidden=8", Mlp((8,))),
    ("latent_dim", [], "3", 3),
    ("loss", ["distortion", "likelihood"], "ce", CrossEntropy()),
    ("objective", [], "beta:kl_weight=2", BetaVAE(2.0)),
    ("prior", [], "standard-normal", StandardNormal()),
    ("epochs", [], "7", 7),
    ("steps", ["max_steps"], "700", 700),
    ("minutes", ["max_minutes"], "2.5", 2.5),
    ("estimates", [], "0,900,450,700", (0, 900, 450, 700)),
    ("batch_size", [], "16", 16),
    ("lr", ["learning_rate"], "0.01", 0.01),
    ("schedule", [], "linear", "linear"),
    ("schedule", [], "cosine", "cosine"),
    ("lr_warmup", [], "0.2", 0.2),
    ("clip", ["grad_clip"], "1.5", 1.5),
    ("ema", [], "0.99", 0.99),
    ("flips", ["horizontal_flip"], "true", True),
    ("shift", ["random_shift"], "2", 2),
    ("validation", [], "0.3", 0.3),
    ("keep", ["select"], "best", "best"),
    ("subset", [], "500", 500),
    ("binarise", ["binarize"], "dynamic", "dynamic"),
    ("binarise", ["binarize"], "fixed", "fixed"),
    ("value_range", [], "0,4095", (0.0, 4095.0)),
    ("split_seed", [], "6", 6),
    ("seed", [], "5", 5),
    ("parent", [], "0123abcd", "0123abcd"),
]


@pytest.mark.parametrize(("name", "aliases", "word", "value"), SETTINGS, ids=[f"{s[0]}={s[2]}" for s in SETTINGS])
def test_a_setting_is_changed_by_each_of_its_names(name: str, aliases: list[str], word: str, value: Any) -> None:
    spec = updated(Spec(), {name: word})
    assert getattr(spec, name) == value
    assert spec != Spec() or name == "prior", "the value differs from the default"
    for alias in [name, *aliases]:
        assert updated(Spec(), {alias: word}) == spec
        assert updated(Spec(), {alias.replace("_", "-"): value}) == spec
        assert accepted_names()[alias].name == name
    table = spec_to_dict(spec)
    assert spec_from_dict(table) == spec
    assert list(table) == [name for name, info in spec_settings().items() if "." not in info.attribute]


def read_argv(argv: list[str]) -> Spec:
    """The spec that `vaelab train` reads from words, by the flags of `spec_settings`."""
    changes: dict[str, str] = {"data": argv[0]}
    name = ""
    for word in argv[1:]:
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            assert spec_settings()[name].flag
            changes[name] = "true"
        else:
            changes[name] = word
    return updated(Spec(), changes)


@pytest.mark.parametrize(("name", "word"), [(s[0], s[2]) for s in SETTINGS if s[0] != "parent"])
def test_words_of_a_spec_give_that_spec_and_nothing_superfluous(name: str, word: str) -> None:
    spec = updated(Spec(), {name: word})
    argv = to_argv(spec)
    assert read_argv(argv) == spec
    changed = name not in ("data", "prior")
    assert len(argv) == (1 + (1 if name == "flips" else 2) * changed)


def test_words_of_a_spec_hold_everything_that_was_changed() -> None:
    changes = {name: word for name, _, word, _ in SETTINGS if name != "parent"}
    spec = updated(Spec(), changes)
    assert read_argv(to_argv(spec)) == spec
    without = replace(Spec(validation=0.0), seed=3)
    assert to_argv(without) == ["digits", "--validation", "0.0", "--seed", "3"]


def test_what_has_no_flag_is_the_data_and_the_parent() -> None:
    assert [name for name, info in spec_settings().items() if not info.flag] == ["data", "parent"]
    assert spec_settings()["kl_weight"].attribute == "objective.kl_weight"
    assert spec_settings()["kl_weight"].default == Spec().objective.kl_weight  # type: ignore[attr-defined]
    assert spec_settings()["loss"].attribute == "distortion"
    assert Spec(distortion=CrossEntropy()).loss == CrossEntropy()


def test_a_spec_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        Spec().seed = 3  # type: ignore[misc]
    assert len({Spec(), Spec(), Spec(seed=1)}) == 2


def test_settings_of_the_data_are_those_that_loading_takes() -> None:
    spec = Spec(size=16, validation=0.2, subset=30, binarise="fixed", value_range=(0, 9), split_seed=4)
    assert spec.data_settings == {
        "size": 16,
        "validation": 0.2,
        "subset": 30,
        "binarise": "fixed",
        "value_range": (0, 9),
        "split_seed": 4,
    }


@pytest.mark.parametrize(
    ("spec", "images", "steps", "epochs"),
    [
        (Spec(epochs=3, batch_size=10), 100, 30, 3),
        (Spec(epochs=3, batch_size=10), 101, 33, 3),
        (Spec(epochs=3, batch_size=200), 100, 3, 3),
        (Spec(epochs=3, steps=7, batch_size=10), 50, 7, 2),
        (Spec(epochs=3, steps=10, batch_size=10), 50, 10, 2),
        (Spec(epochs=3, steps=11, batch_size=10), 41, 11, 3),
    ],
    ids=str,
)
def test_a_training_has_whole_epochs_or_the_steps_that_are_given(
    spec: Spec, images: int, steps: int, epochs: int
) -> None:
    assert spec.num_steps(images) == steps
    assert spec.num_epochs(images) == epochs


LENGTHS = Spec(epochs=5, steps=500, minutes=5.0, estimates=(0, 500))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 0}, (5, 500, 5.0, (0, 500))),
        ({"epochs": 2}, (2, None, None, None)),
        ({"steps": 20}, (5, 20, None, None)),
        ({"minutes": 2}, (5, 500, 2.0, None)),
        ({"epochs": 2, "steps": 20}, (2, 20, None, None)),
        ({"epochs": 2, "minutes": 2}, (2, None, 2.0, None)),
        ({"steps": 20, "minutes": 2}, (5, 20, 2.0, None)),
        ({"max-steps": 20}, (5, 20, None, None)),
        ({"steps": 20, "estimates": "0,20"}, (5, 20, None, (0, 20))),
    ],
    ids=str,
)
def test_the_length_given_last_is_not_hidden_by_another(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    spec = updated(LENGTHS, changes)
    assert (spec.epochs, spec.steps, spec.minutes, spec.estimates) == expected


@pytest.mark.parametrize(
    ("spec", "settings", "said"),
    [
        (
            Spec(keep="best", validation=0.0),
            ("keep", "validation"),
            "keep must be last where validation is 0, got best",
        ),
        (Spec(value_range=(1.0,)), ("value_range",), "value_range must be two numbers, the smaller one first, got 1.0"),
        (Spec(value_range=(2.0, 1.0)), ("value_range",), "got 2.0,1.0"),
        (Spec(value_range=(1.0, 1.0)), ("value_range",), "got 1.0,1.0"),
        (Spec(value_range=(1.0, 2.0, 3.0)), ("value_range",), "got 1.0,2.0,3.0"),
        (Spec(value_range=()), ("value_range",), "the smaller one first, got "),
        (Spec(latent_dim=0, seed=-1), ("latent_dim", "seed"), "got 0; seed must be at least 0, got -1"),
        (
            Spec(lr=0.0, keep="best", validation=0.0, value_range=(1.0,)),
            ("lr", "keep", "validation", "value_range"),
            "lr must be a positive number, got 0.0; keep must be last where validation is 0, got best; value_range",
        ),
        (Spec(network=Mlp((0,))), ("network",), "network mlp: hidden must be at least 1, got 0"),
    ],
    ids=str,
)
def test_what_is_refused_names_the_settings(spec: Spec, settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as error:
        check_spec(spec)
    assert said in str(error.value)
    assert error.value.settings == settings


@pytest.mark.parametrize(
    ("estimates", "steps"),
    [
        ((), 9),
        ((0,), 9),
        ((1, 9), 9),
        ((0, 9), 8),
        ((0, 9), None),
        ((0, 9, 4), 9),
        ((0, 20, 9, 15, 5, 12), 12),
        ((0, 20, 12, 12), 12),
        ((0, 5, 6, 6, 7, 9), 9),
    ],
    ids=str,
)
def test_estimates_that_no_training_made_are_refused(estimates: tuple[int, ...], steps: int | None) -> None:
    with pytest.raises(UserError, match=r"estimates must be pairs .* at step 0, the last one of the --steps") as error:
        check_spec(Spec(steps=steps, estimates=estimates))
    assert error.value.settings == ("estimates",)
    assert str(error.value).endswith(f"got {','.join(map(str, estimates))}")


@pytest.mark.parametrize("estimates", [(0, 9), (0, 20, 5, 9), (0, 20, 5, 6, 5, 30, 8, 9)], ids=str)
def test_estimates_of_a_training_are_taken(estimates: tuple[int, ...]) -> None:
    check_spec(Spec(steps=9, estimates=estimates))


@pytest.mark.parametrize(
    "spec",
    [Spec(keep="best"), Spec(validation=0.0), Spec(value_range=(0.0, 1.0)), Spec(value_range=(-1.0, 4095.0))],
    ids=str,
)
def test_what_makes_sense_is_not_refused(spec: Spec) -> None:
    check_spec(spec)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("size", [8, 256], [7, 257]),
        ("latent_dim", [1], [0]),
        ("epochs", [1, 10**12], [0, 10**12 + 1]),
        ("steps", [1], [0]),
        ("minutes", [0.01], [0, -1]),
        ("batch_size", [1, 10**6], [0, 10**6 + 1]),
        ("lr", [1e-9], [0, -1]),
        ("lr_warmup", [0, 1], [-0.1, 1.1]),
        ("clip", [0.1], [0]),
        ("ema", [0, 0.999], [-0.1, 1]),
        ("shift", [0], [-1]),
        ("validation", [0, 0.99], [-0.1, 1]),
        ("subset", [1], [0]),
        ("split_seed", [0, 2**32 - 1], [-1, 2**32]),
        ("seed", [0, 2**32 - 1], [-1, 2**32]),
    ],
)
def test_numbers_are_taken_up_to_their_bounds(name: str, good: list[float], bad: list[float]) -> None:
    for number in good:
        check_spec(updated(Spec(), {name: number}))
    for number in bad:
        with pytest.raises(UserError, match=f"^{name} must be "):
            check_spec(updated(Spec(), {name: number}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective.tc_weight": 3}, "beta has no tc_weight (it has: kl_weight, warmup, free_bits, reduction, k)"),
        ({"loss": "ce", "loss.sigma": 3}, "cross-entropy has no sigma (it has: no fields)"),
        ({"epochs.first": 3}, 'unknown setting "epochs.first": epochs has no fields'),
        ({"objective.kl_weight": "much"}, 'objective.kl_weight must be a number, got "much"'),
        ({"nothing.at_all": 3}, 'unknown setting "nothing.at_all"'),
    ],
    ids=str,
)
def test_a_field_that_no_member_has_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        updated(Spec(), changes)
    assert said in str(error.value)


def test_fields_of_a_member_apply_after_the_member() -> None:
    expected = Spec(objective=FactorVAE(gamma=2.0), network=Conv((4,)))
    assert updated(Spec(), {"objective.gamma": 2, "network.widths": "4", "objective": "factor"}) == expected
    assert updated(Spec(), {"kl-weight": 3, "objective.kl_weight": 2}).objective == BetaVAE(2.0)


def test_a_stored_spec_may_lack_what_came_later_and_nothing_else() -> None:
    table = spec_to_dict(Spec())
    later = {"prior", "steps", "shift", "subset", "binarise", "value_range", "split_seed"}
    assert {f.name for f in fields(Spec) if "legacy" in f.metadata} >= later
    old = {name: value for name, value in table.items() if name not in later}
    assert spec_from_dict(old) == Spec()
    with pytest.raises(UserError, match=r"^a stored spec lacks latent_dim, lr$"):
        spec_from_dict({name: value for name, value in old.items() if name not in ("lr", "latent_dim")})
    for value in ("blue", {"name": "blue"}):
        with pytest.raises(UserError, match='unknown setting "colour"'):
            spec_from_dict(table | {"colour": value})
    with pytest.raises(UserError, match=r"^epochs must be a whole number"):
        spec_from_dict(table | {"epochs": {"name": "beta"}})


@pytest.mark.parametrize("name", ["network", "loss", "objective", "prior"])
def test_a_stored_member_may_lack_what_came_later(name: str) -> None:
    for kind in members(spec_settings()[name].hint):
        later = {f.name: f.metadata["legacy"] for f in fields(kind) if "legacy" in f.metadata}
        table = spec_to_dict(updated(Spec(), {name: kind()}))
        stored = {field: value for field, value in table[name].items() if field not in later}
        read = getattr(spec_from_dict(table | {name: stored}), name)
        assert read == replace(kind(), **later)
        assert getattr(spec_from_dict(table), name) == kind(), "what is stored is kept"


def test_the_key_of_a_run_leaves_out_what_came_later_until_it_is_used() -> None:
    hashed = hashed_fields(Spec())
    for name, value in {
        "prior": None,
        "steps": 9,
        "shift": 1,
        "subset": 9,
        "binarise": "fixed",
        "split_seed": 1,
    }.items():
        assert name not in hashed
        if value is not None:
            assert hashed_fields(replace(Spec(), **{name: value}))[name] == value
    assert {"size", "network", "latent_dim", "loss", "objective", "epochs", "seed", "parent"} <= set(hashed)
    assert hashed_fields(Spec(value_range=(0, 9)))["value_range"] == [0, 9]
    assert "name" not in hashed, "a spec has no name, its members have"
    assert hashed["objective"]["name"] == "beta"
    assert "k" not in hashed["objective"], "a member's later fields are left out, too"
    assert hashed_fields(Spec(objective=BetaVAE(k=2)))["objective"]["k"] == 2


@pytest.mark.parametrize("name", [s[0] for s in SETTINGS if s[0] not in ("data", "prior")])
def test_every_setting_but_the_place_of_the_data_shapes_the_key(name: str) -> None:
    value = next(s[3] for s in SETTINGS if s[0] == name)
    changed = replace(Spec(), **{spec_settings()[name].attribute: value})
    assert run_key(changed, "f", "float32") != run_key(Spec(), "f", "float32")
    assert len(run_key(changed, "f", "float32")) == 16


def weights(spec: Spec, seed: int | None) -> torch.Tensor:
    return torch.cat([p.flatten() for p in build_model(spec, (1, 8, 8), seed).parameters()])


def test_the_model_has_the_parts_of_the_spec_and_the_weights_of_its_seed() -> None:
    spec = Spec(network=Mlp((6,)), latent_dim=3, distortion=CrossEntropy(), objective=FactorVAE(hidden=(5,)))
    state = torch.random.get_rng_state()
    model = build_model(spec, (1, 8, 9), seed=2)
    assert torch.equal(state, torch.random.get_rng_state()), "drawing weights leaves the default generator alone"
    assert (model.shape, model.latent_dim, model.distortion) == ((1, 8, 9), 3, CrossEntropy())
    assert model.critic is not None
    assert [tuple(p.shape) for p in model.critic.parameters()] == [(5, 3), (5,), (1, 5), (1,)]
    assert torch.equal(weights(spec, 2), weights(spec, 2))
    assert not torch.equal(weights(spec, 2), weights(spec, 3))
    assert build_model(replace(spec, objective=BetaVAE()), (1, 8, 8), 2).critic is None
    assert isinstance(model.prior, StandardNormal)


def test_the_weights_of_a_seed_are_those_of_its_named_generator() -> None:
    """Whoever repeats a run with its seed starts from the same weights, in each version."""
    spec = Spec(network=Mlp((6,)), latent_dim=3, distortion=CrossEntropy(), objective=FactorVAE(hidden=(5,)))
    torch.manual_seed(generator(2, "weights").initial_seed())
    model = VAE(spec.network, spec.distortion, (1, 8, 8), 3)
    model.critic = spec.objective.critic(3)
    assert torch.equal(torch.cat([p.flatten() for p in model.parameters()]), weights(spec, 2))


def test_reconstructions_start_at_the_mean_image_that_is_given() -> None:
    spec, mean = Spec(network=Mlp(()), latent_dim=3, distortion=CrossEntropy()), torch.linspace(0.1, 0.9, 64)
    model = build_model(spec, (1, 8, 8), 2, mean.view(1, 8, 8))
    origin = model.decode_mean(torch.zeros(1, 3)).detach()
    torch.testing.assert_close(origin.flatten(), mean)
    assert not torch.allclose(build_model(spec, (1, 8, 8), 2).decode_mean(torch.zeros(1, 3)).flatten(), mean)
