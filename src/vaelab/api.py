"""The verbs of vaelab, one typed function each: the Python interface, and what the command line calls.

Each reads what it needs, calls the packages below and returns its result. What is heavy is imported when a verb runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

from vaelab.core.console import command_line, count_text, format_duration, is_distributed, notice
from vaelab.core.constraints import MAX_LONG_COUNT, require_count, require_seed
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.runs.summary import dataset_remarks, startup_lines

if TYPE_CHECKING:
    import numpy as np

    from vaelab.core.jobs import Executor
    from vaelab.datasets.images import Dataset
    from vaelab.evaluation.diagnostics import Diagnosis
    from vaelab.models.summary import Layer
    from vaelab.runs.run import Run
    from vaelab.runs.spec import Spec
    from vaelab.studies.results import StudyResults
    from vaelab.training.job import TrainingJob

__all__ = [
    "cache",
    "data",
    "doctor",
    "embed",
    "evaluate",
    "interpolate",
    "list_",
    "model",
    "reconstruct",
    "report",
    "sample",
    "study",
    "train",
]

if TYPE_CHECKING:
    RunLike = Run | str | Path
    StudyLike = Union["StudyResult", Run, str, Path]  # noqa: UP007
else:  # what the command line parses
    RunLike = StudyLike = Path

IMAGE_FORMATS = (".png", ".pdf")

SURVEY_SIZE = 64  # pixels a side to which pictures are resized where only their number and kind are asked for

MAX_EVIDENCE_SAMPLES = 5000  # of an image, for its evidence

MAX_SAMPLES = 100_000  # images drawn from the prior at once

MAX_PAIRS, MAX_PATH_STEPS = 1000, 1000  # of an interpolation

MAX_WORKERS = 1024

NOTICEABLE_MULTIPLY_ADDS = 2e11  # of a training, which then takes more than a few seconds on a processor


def train(
    data: str | None = None,
    *,
    preset: str | None = None,
    from_: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    snapshots: Sequence[int] | None = None,
    figures: bool = True,
    pdf: bool = False,
    out: Path = Path("runs"),
    **settings: Any,
) -> Run:
    """Train a VAE on images and store it under OUT. The same command continues where it was interrupted.

    Under `torchrun --nproc-per-node N -m vaelab train ...` several processes train one model together.

    Settings that are not given are as in the preset. Without a preset: conv, 32 latent dimensions, a calibrated
    Gaussian; and without --epochs a training of 3,000 steps that suits the number and kind of the pictures.

    Args:
        data: A folder of images (subfolders are categories), .npy, .npz, a folder of parquet files, a name under
            $VAELAB_DATA, digits, mnist, cifar10 or a Hugging Face id.
        preset: textbook, fast, faces (also report-a), or mnist and cifar10 (also report-b).
        from_: A run whose weights and settings to start from.
        device: cpu, cuda, cuda:1 or mps; the fastest there is if not given.
        precision: float32 or bfloat16; bfloat16 where the processor has it if not given.
        threads: Threads on a CPU.
        snapshots: Epochs after which reconstructions are kept for epochs.png.
        figures: Draw the pictures of the run at the end.
        pdf: Draw them as PDF too.
        out: The folder that receives the run's own folder.
        **settings: The settings of a `Spec`, by name: `latent_dim=8`, `network="mlp:hidden=400"`, `kl_weight=0.5`.

    Returns:
        The finished run. `run.outcome` is "trained", "resumed" or "existing".

    Raises:
        UserError: A setting is unknown or out of bounds, the data cannot be read, or training diverged.

    Example:
        >>> run = vaelab.train("digits", latent_dim=2, epochs=1, network="mlp:hidden=16", figures=False)
        >>> run.model.latent_dim
        2
    """
    from vaelab.core.devices import choose_device
    from vaelab.core.distributed import distributed_context
    from vaelab.core.folders import check_folder
    from vaelab.datasets.loading import load_dataset
    from vaelab.runs.spec import check_spec
    from vaelab.training.fit import plan_jobs, train_jobs
    from vaelab.training.plan import explain_plan
    from vaelab.training.repetition import explain_repetition
    from vaelab.training.resources import check_resources

    _check_snapshots(snapshots)
    spec, parent = _resolve_spec(data, preset, from_, settings)
    check_spec(spec)
    check_folder(Path(out))
    with distributed_context().main_first():
        dataset = load_dataset(spec.data, **spec.data_settings)
    plan = partial(
        plan_jobs,
        dataset=dataset,
        out=Path(out),
        device=device,
        precision=precision,
        threads=threads,
        parent=parent,
        thin_history=True,
    )
    check_resources(spec, dataset.splits["train"].shape, Path(out), choose_device(device))
    [job] = plan([spec])
    if preset is None and parent is None and _wants_suited_settings(job, settings):
        [job] = _plan_suited_run(job, settings, plan)
    for line in startup_lines(job.spec, dataset):  # what is refused is refused before anything is printed
        notice(line)
    notice(explain_plan(job.spec, job.plan))
    _announce_length(job)
    [run] = train_jobs([job], snapshots).runs_or_raise()
    _report_fitted_likelihood(run)
    if run.outcome != "existing" and (repetition := explain_repetition(run)):
        notice(repetition)
    if figures and distributed_context().is_main:
        with _compute_threads(job.plan.threads):
            _draw_missing_figures(run, dataset, pdf)
    return run


def _wants_suited_settings(job: TrainingJob, settings: dict[str, Any]) -> bool:
    """Whether the user left the length of the training to us.

    A run that an earlier version began with the plain defaults continues with them.
    """
    began_before = job.distributed.broadcast((job.run.path / "spec.json").exists())
    return settings.get("epochs") is None and not began_before


def _plan_suited_run(
    job: TrainingJob, settings: dict[str, Any], plan: Callable[..., list[TrainingJob]]
) -> list[TrainingJob]:
    """The run with settings of training that suit its data.

    Steps of convolutions are not compiled: in so short a training that gains less time than it takes.
    """
    from vaelab.models.networks import Mlp
    from vaelab.runs.defaults import given_fields, suited_settings
    from vaelab.runs.spec import accepted_names, check_spec

    names = accepted_names()
    given: set[str] = set()
    for name, value in settings.items():
        if value is not None:
            head, dot, rest = name.replace("-", "_").partition(".")
            given |= given_fields(names[head].attribute + dot + rest, value)
    spec = replace(job.spec, **suited_settings(job.spec, job.dataset, given))
    check_spec(spec)
    return plan([spec], compiled=None if isinstance(spec.network, Mlp) else False)


def _announce_length(job: TrainingJob) -> None:
    """Print how long training will take, where it is more than a few seconds."""
    from vaelab.training.budget import training_seconds
    from vaelab.training.plan import count_multiply_adds

    spec = job.spec
    if job.distributed.broadcast(job.run.finished):
        return
    if spec.minutes is not None:
        notice(f"training: {format_duration(60 * spec.minutes)}, as --minutes says")
        return
    length = f"training: {count_text(job.total_steps, 'step')} in batches of {spec.batch_size}"
    multiply_adds = 3 * job.total_steps * spec.batch_size * count_multiply_adds(spec, job.train_images.shape)
    if multiply_adds >= NOTICEABLE_MULTIPLY_ADDS:
        length += f", about {format_duration(training_seconds(job))}"
    notice(length)


def _check_snapshots(snapshots: Sequence[int] | None) -> None:
    epochs = list(snapshots or ())
    if any(not 1 <= epoch <= MAX_LONG_COUNT for epoch in epochs):
        raise UserError(f"snapshots are epochs from 1 on, got {', '.join(map(str, epochs))}", settings=["snapshots"])


def _check_setting_names(settings: dict[str, Any]) -> None:
    """Refuse keyword arguments that are no settings, also suggesting `train`'s own arguments."""
    from vaelab.runs.spec import accepted_names

    known = {name for name, info in accepted_names().items() if info.flag}
    for name in settings:
        if name.replace("-", "_").partition(".")[0] not in known:
            own = [argument for argument in inspect.signature(train).parameters if argument != "settings"]
            raise unknown_name_error("setting", name, [*known, *own])


def _resolve_spec(
    data: str | None, preset: str | None, parent: str | Path | None, settings: dict[str, Any]
) -> tuple[Spec, Run | None]:
    """The spec asked for: of a preset, of the run to start from, or the default, with the settings that were given."""
    from vaelab.runs.presets import get_preset
    from vaelab.runs.run import load
    from vaelab.runs.spec import updated

    _check_setting_names(settings)
    changes = {name: value for name, value in settings.items() if value is not None}
    if parent is None:
        if data is None:
            raise UserError(
                "say what to train on: a folder of images, mnist, cifar10, digits, ... (`vaelab train DATA`)"
            )
        return updated(get_preset(preset, str(data)), changes), None
    run = load(parent)
    if not run.finished:
        raise UserError(f"{run.path} is not finished, so there are no weights to start from")
    source = str(data or run.spec.data)
    base = get_preset(preset, source) if preset else replace(run.spec, data=source)
    return replace(updated(base, changes), parent=run.key), run


def _report_fitted_likelihood(run: Run) -> None:
    """Print what the parameters that all pixels share came to, where a run was trained now."""
    if run.outcome == "existing":
        return
    kl_weight = run.spec.objective.effective_kl_weight(run.model.shape, run.spec.latent_dim)
    text = run.spec.distortion.describe_fit(run.model.shared, kl_weight)
    if text:
        notice(text)


def _draw_missing_figures(run: Run, dataset: Dataset, pdf: bool) -> None:
    """Draw the figures of a run that are not in its folder yet."""
    from vaelab.figures.run_figures import RUN_FIGURES, draw_run_figures

    folder = run.path / "figures"
    suffixes = ["png", "pdf"] if pdf else ["png"]
    missing = []
    for name in RUN_FIGURES:
        if not all((folder / f"{name}.{suffix}").exists() for suffix in suffixes):
            missing.append(name)
    draw_run_figures(run, dataset, pdf=pdf, names=missing)


def evaluate(
    run: RunLike,
    *,
    data: str | None = None,
    split: str | None = None,
    n: int | None = None,
    evidence: int | None = None,
    full: bool = False,
    inception: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure a run on a split of its data, or of other data: every metric with its standard error over images.

    The log evidence is measured with 500 samples on 200 images, unless EVIDENCE says with how many on all. Where the
    run's data are gone and nothing else is asked for, the metrics are those that were stored when it was trained.

    Args:
        run: The folder of a run.
        data: Other images, cropped and resized to the run's shape; or the run's own, where they have moved.
        split: test, validation or train; test if not given, or all of other data that store no test split.
        n: Only N images, spread evenly over the split.
        evidence: Samples an image for the log evidence of all images, up to 5,000; 0 leaves it out.
        full: Also how well categories are separated, and how near prior samples are to images (trains a classifier
            once).
        inception: The Inception network of FID as TorchScript: adds FID and KID.
        threads: Threads on a CPU; if not given as many as the run was trained with, which gives the same digits.

    Returns:
        `{"run", "data", "split", "n", "metrics": {name: {"value", "stderr"}}, ...}`, bounds in nats per image.

    Raises:
        UserError: There is no such run or split, or the data are gone.

    Example:
        >>> vaelab.evaluate(run, n=20, evidence=0)["n"]
        20
    """
    from vaelab.analysis import representation, samples
    from vaelab.core.devices import check_threads, num_processors, num_threads
    from vaelab.datasets.images import select_split
    from vaelab.evaluation.evidence import evidence_metrics
    from vaelab.evaluation.metrics import evaluate_model

    run = _open_run(run)
    _check_evaluation(n, evidence)
    network = samples.load_inception(inception, run.model.shape) if inception else None
    only_stored = n is None and evidence is None and not full and network is None
    try:
        dataset, is_other = _dataset_for(run, data)
    except MissingDataError as error:
        stored = run.metrics.get(split or "test")
        if stored is None or not only_stored:
            raise
        notice(f"{error}\nThese are the metrics that were stored when it was trained.")
        return stored
    for line in dataset_remarks(dataset) if is_other else ():
        notice(line)
    images = dataset.evaluation_images() if is_other and split is None else select_split(dataset, split or "test")
    if n is not None:
        images = images.evenly_spaced(n)
    trained_with: int = run.origin["plan"]["threads"]
    with num_threads(min(trained_with, num_processors()) if threads is None else check_threads(threads)):
        source = data if is_other and data else run.spec.data
        evaluation = evaluate_model(run.key, run.model, run.spec.objective, source, images)
        evaluation = evaluation.with_metrics(evidence_metrics(run, images, evidence))
        if full:
            held_out = images.split in ("validation", "test")  # the training images may then be fitted to
            train_images = dataset.splits["train"] if held_out else None
            evaluation = evaluation.with_metrics(representation.separability_metrics(run, images, train_images))
        if full or network:
            evaluation = evaluation.with_metrics(samples.sample_quality_metrics(run, images, network))
    return evaluation.to_dict()


def _check_evaluation(n: int | None, evidence: int | None) -> None:
    if n is not None:
        require_count("n", n, most=MAX_LONG_COUNT)
    if evidence is not None and (not 0 <= evidence <= MAX_EVIDENCE_SAMPLES or evidence == 1):
        raise UserError(
            f"evidence is a number of samples from 2 to {MAX_EVIDENCE_SAMPLES}, or 0 to leave it out, got {evidence}",
            settings=["evidence"],
        )


def doctor(run: RunLike, *, data: str | None = None, threads: int | None = None) -> list[Diagnosis]:
    """Say what is wrong with a run: each issue with the number that shows it, what it means, and one command to try.

    Args:
        run: The folder of a run.
        data: Other images to look at it with; or the run's own, where they have moved.
        threads: Threads on a CPU; one if not given.

    Returns:
        One `Diagnosis` for each check: its issue, state ("alarm", "note", "well" or "open"), number, meaning, remedy.

    Raises:
        UserError: There is no such run.

    Example:
        >>> {diagnosis.state for diagnosis in vaelab.doctor(run)} <= {"alarm", "note", "well", "open"}
        True
    """
    from vaelab.evaluation.diagnostics import RunContext, compute_latent_stats, diagnose
    from vaelab.runs.run import DivergedError

    run = _open_run(run)
    command = run.origin.get("command")
    history = _history_if_intact(run)
    try:
        model = run.model
    except DivergedError:
        return diagnose(RunContext(run.spec, history, command=command, has_finite_weights=False))
    try:
        dataset, _ = _dataset_for(run, data)
    except MissingDataError as error:
        notice(f"{error}\nWhat only the images show stays open.")
        return diagnose(RunContext(run.spec, history, model, command=command))
    images = dataset.splits.get("validation") or dataset.splits["train"]
    with _compute_threads(threads):
        stats = compute_latent_stats(run.model, images)
    return diagnose(RunContext(run.spec, history, run.model, stats, command))


def _history_if_intact(run: Run) -> list[dict[str, Any]]:
    """The history of a run; none, with a notice, where it is gone or damaged."""
    from vaelab.runs.run import HistoryError

    try:
        history = run.history
    except HistoryError as error:
        notice(f"{error}\nWhat only the history shows stays open.")
        return []
    if not history:
        notice(f"{run.path} has no history.jsonl any more: what only the history shows stays open")
    return history


def reconstruct(
    run: RunLike, images: Sequence[str | Path], *, threads: int | None = None, out: Path | None = None
) -> np.ndarray:
    """Reconstruct picture files of any size; OUT shows the originals above their reconstructions.

    Args:
        run: The folder of a run.
        images: Picture files.
        threads: Threads on a CPU; one if not given.
        out: The picture to write, .png or .pdf.

    Returns:
        The mean images of the posterior means, float32 (N, C, H, W) in [0, 1].

    Raises:
        UserError: A file is not a picture, or OUT has another ending.

    Example:
        >>> vaelab.reconstruct(run, [picture]).shape
        (1, 1, 8, 8)
    """
    import torch

    from vaelab.datasets.decoding import read_images
    from vaelab.evaluation.metrics import require_finite
    from vaelab.figures.verb_figures import save_reconstructions

    out = _output_path(out, *IMAGE_FORMATS)
    run = _open_run(run)
    pixels = read_images(list(images), run.model.shape, lambda: run.value_ranges)
    with _compute_threads(threads), torch.no_grad():
        reconstructions = run.model.reconstruct(torch.from_numpy(pixels).float() / 255)
    require_finite(reconstructions)
    if out is not None:
        save_reconstructions(run, pixels, reconstructions.numpy(), out)
    return reconstructions.numpy()


def interpolate(
    run: RunLike,
    *,
    from_: str | None = None,
    to: str | None = None,
    data: str | None = None,
    pairs: int = 7,
    steps: int = 6,
    path: Literal["linear", "slerp"] = "linear",
    split: str = "test",
    sampled: bool = False,
    seed: int = 0,
    threads: int | None = None,
    out: Path | None = None,
) -> np.ndarray:
    """Decode the path between pictures or categories, z = alpha z1 + (1 - alpha) z2; OUT shows it.

    Args:
        run: The folder of a run.
        from_: alpha = 0: a category or a picture file. Without it, any pictures.
        to: alpha = 1: likewise.
        data: Other images to draw pairs from; or the run's own, where they have moved.
        pairs: How many pairs to draw from the categories.
        steps: How many values of alpha, the two ends included.
        path: linear or slerp.
        split: Where pictures of categories come from.
        sampled: Take samples of the posteriors in place of their means.
        seed: Of the draw of pairs, and of samples.
        threads: Threads on a CPU; one if not given.
        out: The figure to write, .png or .pdf, or an animation, .gif.

    Returns:
        The images, float32 (pairs, steps, C, H, W) in [0, 1].

    Raises:
        UserError: A category or file is unknown, a number is out of bounds, or the data are gone.

    Example:
        >>> vaelab.interpolate(run, from_="3", to="8", pairs=2, steps=4).shape
        (2, 4, 1, 8, 8)
    """
    import torch

    from vaelab.analysis import interpolation as paths
    from vaelab.core.rng import generator
    from vaelab.datasets.images import select_split
    from vaelab.figures.verb_figures import save_interpolations

    out = _output_path(out, *IMAGE_FORMATS, ".gif")
    run = _open_run(run)
    require_count("pairs", pairs, most=MAX_PAIRS)
    require_count("steps", steps, least=2, most=MAX_PATH_STEPS)
    require_seed("seed", seed)
    alphas = paths.alpha_values(steps)
    files_only = all(end is not None and Path(end).is_file() for end in (from_, to))
    images = None if files_only else select_split(_dataset_for(run, data)[0], split)
    start, end = paths.load_path_ends(
        (from_, to), run.model.shape, images, pairs, seed, value_ranges=lambda: run.value_ranges
    )
    noise = torch.randn(len(start), 2, run.model.latent_dim, generator=generator(seed, "codes")) if sampled else None
    with _compute_threads(threads):
        result = paths.interpolate_images(run.model, start, end, alphas, path=path, noise=noise)
    if out is not None:
        names = (_end_name(from_), _end_name(to))
        save_interpolations(run, result, names, out, images, path=path, sampled=sampled)
    return result.images.numpy()


def _end_name(end: str | None) -> str:
    """What an end of a path is called in a figure: a category, a picture file without its suffix, or nothing."""
    if end is None:
        return ""
    return Path(end).stem if Path(end).is_file() else end


def sample(
    run: RunLike, *, n: int = 64, seed: int = 0, threads: int | None = None, out: Path | None = None
) -> np.ndarray:
    """Decode codes drawn from the prior; OUT shows them.

    Args:
        run: The folder of a run.
        n: How many.
        seed: Of the draw.
        threads: Threads on a CPU; one if not given.
        out: The picture to write, .png or .pdf.

    Returns:
        The mean images, float32 (n, C, H, W) in [0, 1].

    Raises:
        UserError: The run was trained with KL weight 0, so that its codes do not follow the prior.

    Example:
        >>> vaelab.sample(run, n=3, seed=1).shape
        (3, 1, 8, 8)
    """
    from vaelab.analysis.samples import has_prior_term, sample_prior
    from vaelab.figures.verb_figures import save_samples

    out = _output_path(out, *IMAGE_FORMATS)
    require_count("n", n, most=MAX_SAMPLES)
    require_seed("seed", seed)
    run = _open_run(run)
    if not has_prior_term(run.spec, run.model.shape):
        raise UserError(
            f"run {run.key} was trained with KL weight 0: its codes do not follow the prior, so samples mean nothing"
        )
    with _compute_threads(threads):
        images = sample_prior(run.model, n, seed).numpy()
    if out is not None:
        save_samples(run, images, out)
    return images


def embed(run: RunLike, data: str, *, threads: int | None = None, out: Path = Path("codes.parquet")) -> Path:
    """Write the posterior of every image of DATA, a row each: path or index, split, label, mean_*, logvar_*, error.

    error is the mean squared error of the mean reconstruction, per pixel value.

    Args:
        run: The folder of a run.
        data: Any images, cropped and resized to the run's shape.
        threads: Threads on a CPU; one if not given.
        out: The parquet file to write.

    Returns:
        The path of the file.

    Raises:
        UserError: The data cannot be read, or OUT has another ending.

    Example:
        >>> vaelab.embed(run, "digits", out="codes.parquet").name
        'codes.parquet'
    """
    import pyarrow.parquet as pq

    from vaelab.analysis.embedding import embedding_table
    from vaelab.core.files import atomic_write

    _output_path(out, ".parquet")
    run = _open_run(run)
    dataset = _load_for_run(data, run)
    for line in dataset_remarks(dataset):
        notice(line)
    with _compute_threads(threads):
        codes = embedding_table(run.model, dataset)
    with atomic_write(Path(out)) as temporary:
        pq.write_table(codes, temporary)
    return Path(out)


def data(data: str, *, size: int | None = None, value_range: str | Sequence[float] | None = None) -> dict[str, Any]:
    """Tell what is in DATA: counts, sizes, modes, splits, skipped files, duplicates across splits.

    Args:
        data: As for train.
        size: Side in pixels to which pictures are cropped and resized.
        value_range: The values that become black and white in pictures of more than 8 bits and in arrays, as 0,4095.

    Returns:
        The facts as the command line prints them with --json: "shape", "splits", "sizes", "modes", "skipped", ...

    Raises:
        UserError: There is no such data, or no picture of it can be read.

    Example:
        >>> vaelab.data("digits")["shape"]
        [1, 8, 8]
    """
    from vaelab.core.codec import parse_value
    from vaelab.datasets.cache import SizeError
    from vaelab.datasets.loading import describe_dataset, load_dataset

    limits = parse_value("value_range", tuple[float, ...], value_range) if value_range is not None else None
    try:
        return describe_dataset(load_dataset(data, size=size, value_range=limits))
    except SizeError:
        facts = describe_dataset(load_dataset(data, size=SURVEY_SIZE, value_range=limits))
        remedy = f"the sizes differ or are out of bounds: train with --size, such as --size {SURVEY_SIZE}"
        facts["notes"].insert(0, remedy)
        return facts


def model(run: RunLike, *, out: Path | None = None) -> list[Layer]:
    """The layers of a run's model with shapes and parameters; OUT shows them as a diagram.

    Args:
        run: The folder of a run.
        out: The picture to write, .png or .pdf.

    Returns:
        A `Layer` for each: part, name, shape of its output, number of parameters.

    Raises:
        UserError: There is no such run, or OUT has another ending.

    Example:
        >>> vaelab.model(run)[0].part
        'encoder'
    """
    from vaelab.figures.verb_figures import save_model
    from vaelab.models.summary import layers

    out = _output_path(out, *IMAGE_FORMATS)
    run = _open_run(run)
    rows = layers(run.model)
    if out is not None:
        save_model(run, out)
    return rows


class StudyResult(NamedTuple):
    """A study as far as it has come: its folder, report and results."""

    folder: Path
    report: Path
    results: StudyResults

    @property
    def images_trained(self) -> int:
        """How many images were trained on now."""
        return self.results.images_trained

    @property
    def claims(self) -> list[dict[str, Any]]:
        """What claims.json holds: every claim under each reading, with its verdict."""
        return self.results.claims


def study(
    study: str | None = None,
    *,
    data: str | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    decide: bool | None = None,
    most_seeds: int | None = None,
    workers: int | None = None,
    backend: Literal["local", "ray"] = "local",
    dry_run: bool = False,
    list_: bool = False,
    device: str | None = None,
    out: Path = Path(),
) -> StudyResult | dict[str, Any]:
    """Carry out a study: its runs, table, figures, verdicts and report. Only what is missing is trained.

    Args:
        study: A shipped study (digits, mnist, cifar10, faces, ...; --list names them) or a file that ends in .toml.
        data: Other images than the study names.
        seeds: Seeds 1 to N in place of the study's.
        epochs: Other epochs for every run.
        decide: Add seeds to the settings of claims that are still open, until each claim is decided.
        most_seeds: Seeds of a setting at which that ends; 12 if neither this nor the study file says.
        workers: Worker processes on a CPU, one thread each; one for each processor if not given.
        backend: local: worker processes of this machine; ray: a Ray cluster, whose machines see the same folders.
        dry_run: Only say how many runs there are, which exist, and about how long the rest takes.
        list_: Only name the shipped studies.
        device: cpu, cuda, cuda:1 or mps; the fastest there is if not given.
        out: The folder that receives runs/ and studies/NAME.

    Returns:
        The result, with its `folder`, `report` and `claims`. With `dry_run` the numbers of runs and the estimated
        seconds, with `list_` the titles of the shipped studies.

    Raises:
        UserError: The study file is wrong, or its data cannot be read.

    Example:
        >>> "digits" in vaelab.study(list_=True)
        True
    """
    from vaelab.studies import parsing

    if list_:
        return {name: parsing.read_study(name).title for name in parsing.shipped_studies()}
    if is_distributed():
        raise UserError("a study sends its runs to workers by itself: start it without torchrun")
    if study is None:
        raise UserError(f"say which study: {', '.join(parsing.shipped_studies())}, or a file that ends in .toml")
    from vaelab.reporting.outputs import plan_checked_study, write_study_outputs
    from vaelab.studies.estimate import estimate_seconds
    from vaelab.studies.lock import lock_study
    from vaelab.studies.runner import run_study

    executor, drawing_workers = _study_executor(backend, workers)
    overrides = parsing.Overrides(data, seeds, epochs, decide, most_seeds)
    definition = parsing.with_overrides(parsing.read_study(study), overrides)
    if most_seeds is not None and not definition.decide:
        raise UserError("most_seeds says where decide ends: give --decide too", settings=["most_seeds"])
    planned_runs = plan_checked_study(definition, Path(out), device)
    existing = sum(planned.run.finished for planned in planned_runs.values())
    missing = len(planned_runs) - existing
    if dry_run:
        seconds = estimate_seconds(definition, planned_runs, executor.max_workers, device)
        return {
            "study": definition.name,
            "trials": len(definition.trials),
            "runs": len(planned_runs),
            "existing": existing,
            "missing": missing,
            "most_runs": len({trial.spec for trial in definition.with_all_seeds().trials}),
            "workers": executor.max_workers,
            "seconds": round(seconds, 1),
        }
    counts = f"{count_text(len(planned_runs), 'run')}, {existing} exist, {missing} to train"
    notice(f"study {definition.name}: {counts}, {count_text(executor.max_workers, 'worker')}")
    folder = Path(out) / "studies" / definition.name
    with lock_study(folder):
        results = run_study(definition, planned_runs, Path(out), executor, device)
        document = write_study_outputs(results, folder, drawing_workers, command_line())
    return StudyResult(folder, document, results)


def _study_executor(backend: str, workers: int | None) -> tuple[Executor, int]:
    """What carries out the jobs of a study, and how many processes draw its figures."""
    from vaelab.core.devices import num_processors
    from vaelab.core.jobs import Executor

    if workers is not None:
        require_count("workers", workers, most=MAX_WORKERS)
    if backend == "ray":
        from vaelab.core.ray_jobs import ray_executor

        return ray_executor(workers), num_processors()
    workers = workers or num_processors()
    return Executor(workers), workers


def report(study: StudyLike, *, data: str | None = None, workers: int | None = None) -> Path:
    """Write the document of a study, or of one run, anew; gives its path.

    Args:
        study: The folder of a study or of a run.
        data: Where the images are now, if they have moved since the run was trained.
        workers: Processes that draw; one for each processor if not given.

    Returns:
        The path of report.html.

    Raises:
        UserError: There is no such study or run, it is not finished, or its data are gone.

    Example:
        >>> vaelab.report(run).name  # doctest: +SKIP
        'report.html'
    """
    from vaelab.core.devices import num_processors
    from vaelab.core.jobs import Executor
    from vaelab.reporting.outputs import write_study_outputs
    from vaelab.studies.lock import lock_study
    from vaelab.studies.runner import resume_study, single_run_study

    workers = num_processors() if workers is None else require_count("workers", workers, most=MAX_WORKERS)
    folder = _folder_of(study)
    if (folder / "study.toml").is_file():
        with lock_study(folder):
            if data:
                _relocate_study(folder, data)
            with _hint_at_moved_data(folder, data):
                results = resume_study(folder, Executor(workers), data)
            if data and not any(setting.runs for setting in results.setting_results):
                raise UserError(f"the images of {data} are not those that the study in {folder} was made with")
            return write_study_outputs(results, folder, workers, anew=True)
    run = _open_run(folder)
    if not run.finished:
        raise UserError(f"{run.path} is not finished; train it to its end first")
    if data:
        run = _relocate(run, data)
    _run_dataset(run)  # named before the work where it is gone
    return write_study_outputs(single_run_study(run), run.path, workers)


def _relocate_study(folder: Path, data: str) -> None:
    """Record for each finished run of a study where its data are now."""
    from vaelab.studies.parsing import Overrides, read_study, with_overrides
    from vaelab.studies.plan import plan_runs

    study = with_overrides(read_study(folder / "study.toml", folder.name), Overrides(data=data))
    for planned in plan_runs(study.with_all_seeds(), folder.parent.parent).values():
        if planned.run.finished:
            _relocate(planned.run, data)


@contextmanager
def _hint_at_moved_data(folder: Path, data: str | None) -> Iterator[None]:
    """Say with an error that --data helps, where the images of a study's runs are gone."""
    from vaelab.runs.run import find_runs

    try:
        yield
    except UserError as error:
        runs = find_runs(folder.parent.parent / "runs")
        if data or not any(_data_are_gone(run) for run in runs):
            raise
        raise MissingDataError(f"{error}\nif they have moved, say with --data where they are now") from None


def _folder_of(study: StudyLike) -> Path:
    if isinstance(study, str | Path):
        return Path(study)
    return study.folder if isinstance(study, StudyResult) else study.path


def list_(dir: Path = Path(), *, sort: str | None = None) -> list[dict[str, Any]]:
    """The runs below DIR with their main numbers and disk use.

    Args:
        dir: A folder of runs.
        sort: A metric of the test split, smallest first.

    Returns:
        A row for each run: "path", "spec", "state", "metrics", "notes", "bytes".

    Raises:
        UserError: There is no such folder, or no run has the metric.

    Example:
        >>> [row["state"] for row in vaelab.list(run.path.parent)]
        ['finished']
    """
    from vaelab.runs.run import find_runs, summarise_run

    if not Path(dir).is_dir():
        raise UserError(f"there is no folder {dir}")
    rows = []
    for run in find_runs(Path(dir)):
        try:
            rows.append(summarise_run(run))
        except (UserError, LookupError, TypeError, AttributeError) as error:  # one damaged run does not hide the others
            notice(f"left out, damaged: {run.path} ({error})")
    names: set[str] = set()
    for row in rows:
        names.update(row["metrics"])
    if sort is not None and rows:
        if sort not in names:
            raise unknown_name_error("metric", sort, names)
        rows.sort(key=lambda row: (sort not in row["metrics"], row["metrics"].get(sort, 0)))
    return rows


def cache(*, clear: bool = False) -> dict[str, Any]:
    """Tell what the cache of decoded images and compiled programs takes; --clear empties it.

    It lies in the user's cache folder, or where $VAELAB_CACHE says. Beyond 20 GiB, or $VAELAB_CACHE_LIMIT, what was not
    used for longest is removed.

    Args:
        clear: Remove all of it. It is made again where it is needed.

    Returns:
        "folder", "bytes", "limit", "freed" and "items", with "kind", "path" and "bytes" of each.

    Raises:
        UserError: Something cannot be removed.

    Example:
        >>> vaelab.cache()["freed"]
        0
    """
    from vaelab.core.cache import cache_items, cache_limit, clear_cache
    from vaelab.core.files import cache_folder

    freed = clear_cache() if clear else 0
    items = cache_items()
    return {
        "folder": str(cache_folder()),
        "bytes": sum(item.num_bytes for item in items),
        "limit": cache_limit(),
        "freed": freed,
        "items": [{"kind": item.kind, "path": str(item.path), "bytes": item.num_bytes} for item in items],
    }


# Runs, their data and the files to write.


class MissingDataError(UserError):
    """The images of a run are no longer where they were."""


def _compute_threads(threads: int | None) -> AbstractContextManager[None]:
    """Compute with so many threads on a CPU. One, if nothing is said, is never much slower than more."""
    from vaelab.core.devices import check_threads, num_threads

    return num_threads(1 if threads is None else check_threads(threads))


def _open_run(run: RunLike) -> Run:
    from vaelab.runs.run import Run, load

    return run if isinstance(run, Run) else load(run)


def _run_dataset(run: Run) -> Dataset:
    """The data that a run was trained on.

    Raises:
        MissingDataError: The place where they were is gone.
    """
    try:
        return run.dataset
    except UserError:
        if not _data_are_gone(run):
            raise
        location = run.origin["data"]["location"]
        raise MissingDataError(
            f"the images of run {run.key} are no longer at {location}; say with --data where they are now"
        ) from None


def _dataset_for(run: Run, data: str | None) -> tuple[Dataset, bool]:
    """The images to use a run with, and whether they are others than it was trained on.

    `data` names other images, or the run's own where these have moved.
    """
    if data is None:
        return _run_dataset(run), False
    if _data_are_gone(run):
        with suppress(UserError):  # other images may need another size
            dataset = _moved_dataset(run, data)
            if dataset is not None:
                vars(run)["dataset"] = dataset  # for all that is computed from the run
                return dataset, False
    return _load_for_run(data, run), True


def _data_are_gone(run: Run) -> bool:
    """Whether the place where the run's data were is no longer there."""
    location = Path(run.origin["data"]["location"])
    return location.is_absolute() and not location.exists()


def _moved_dataset(run: Run, data: str) -> Dataset | None:
    """The run's own data at another place; None where `data` holds other images."""
    from vaelab.datasets.loading import load_dataset

    dataset = load_dataset(data, **run.spec.data_settings)
    return dataset if dataset.fingerprint == run.origin["data"]["fingerprint"] else None


def _relocate(run: Run, data: str) -> Run:
    """Record where the data of a run are now.

    Raises:
        UserError: The images are not those that the run was trained on.
    """
    from vaelab.runs.run import Run, update_origin

    dataset = _moved_dataset(run, data)
    if dataset is None:
        raise UserError(f"the images of {data} are not those that run {run.key} was trained on")
    update_origin(run, {"data": run.origin["data"] | {"location": dataset.location}})
    return Run(run.path)


def _load_for_run(data: str, run: Run) -> Dataset:
    """Other images as the run's model takes them."""
    from vaelab.datasets.loading import load_dataset

    channels, *sides = run.model.shape
    settings = {"binarise": run.spec.binarise, "value_range": run.spec.value_range, "run_ranges": run.value_ranges}
    return load_dataset(data, size=(sides[0], sides[1]), channels=channels, **settings)


def _output_path(out: Path | None, *formats: str) -> Path | None:
    """The file to write.

    Raises:
        UserError: Its ending is not among the formats, or its folder cannot be written to.
    """
    from vaelab.core.folders import check_folder

    if out is None:
        return None
    if Path(out).suffix.lower() not in formats:
        raise UserError(f'out must end in {" or ".join(formats)}, got "{out}"', settings=["out"])
    path = Path(out)
    check_folder(path.parent, path.name)
    return path
