"""The verbs of vaelab, one typed function each: the Python interface, and what the command line calls.

Each reads what it needs, calls the parts below and returns its result. What is heavy is imported when a verb runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

from vaelab.core.console import command_line, is_distributed, notice
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.runs.summary import dataset_remarks, startup_lines

if TYPE_CHECKING:
    import numpy as np

    from vaelab.datasets.images import Dataset
    from vaelab.evaluation.diagnostics import Diagnosis
    from vaelab.models.summary import Layer
    from vaelab.runs.run import Run
    from vaelab.runs.spec import Spec
    from vaelab.studies.results import StudyResults

__all__ = [
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

SURVEY_SIZE = 64  # pixels a side as which pictures are looked through that need resizing

MAX_EVIDENCE_SAMPLES = 5000  # of an image, for its evidence


def train(
    data: str | None = None,
    *,
    preset: str | None = None,
    size: int | None = None,
    network: str | None = None,
    latent_dim: int | None = None,
    loss: str | None = None,
    objective: str | None = None,
    kl_weight: float | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: str | None = None,
    lr_warmup: float | None = None,
    clip: float | None = None,
    ema: float | None = None,
    flips: bool | None = None,
    validation: float | None = None,
    keep: str | None = None,
    subset: int | None = None,
    binarise: str | None = None,
    seed: int | None = None,
    from_: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    snapshots: Sequence[int] | None = None,
    figures: bool = True,
    pdf: bool = False,
    out: Path = Path("runs"),
) -> Run:
    """Train a VAE on images and store it under OUT. The same command goes on where it was interrupted.

    Under `torchrun --nproc-per-node N -m vaelab train ...` several processes train one model together.

    What is not given is as in the preset; without one: conv, 32 latent dimensions, a calibrated Gaussian, 20 epochs.

    Parameters
    ----------
    data
        A folder of images (subfolders are categories), .npy, .npz, a folder of parquet files, a name under
        $VAELAB_DATA, digits, mnist, cifar10 or a Hugging Face id.
    preset
        textbook, fast, report-a or report-b.
    size
        Side in pixels to which pictures are cropped and resized.
    network
        conv, conv:widths=32,64,128, conv:init=torch (PyTorch's initial weights in place of He's), mlp:hidden=400,200,
        mlp:activation=tanh or report-a.
    latent_dim
        Number of latent dimensions.
    loss
        The distortion: gaussian (also gaussian:sigma=optimal, sigma=pixel or a number), cross-entropy (ce),
        squared-error (se), their sum (ce+se), continuous-bernoulli (cb), laplace, or
        discretised-logistic:components=5.
    objective
        How distortion and KL are weighed, such as beta:kl_weight=0.5,warmup=0.1,free_bits=0.1,reduction=mean; or
        capacity:capacity=25, beta-tc:tc_weight=6, factor:gamma=10, info-mmd, dip, iwae:k=5,gradient=dreg.
    kl_weight
        Short for the objective's KL weight.
    epochs
        Passes over the training images.
    minutes
        A time budget in place of epochs.
    batch_size
        Images a step.
    lr
        Learning rate of Adam.
    schedule
        Of the learning rate: constant, linear or cosine.
    lr_warmup
        Part of the training over which the learning rate rises from 0.
    clip
        Largest norm of the gradient.
    ema
        Decay of averaged weights, which are then the ones kept, such as 0.999.
    flips
        Mirror half of the training pictures.
    validation
        Fraction of the training images held out.
    keep
        Weights of the last epoch, or of the best one in validation: last or best.
    subset
        Only so many training images, evenly over categories.
    binarise
        Draw pixels black or white, with their grey value as the probability: dynamic (anew at each visit) or fixed.
    seed
        Of weights, order and noise.
    from_
        A run whose weights and settings to start from.
    device
        cpu, cuda, cuda:1 or mps; the fastest there is if not given.
    precision
        float32 or bfloat16; bfloat16 where the processor has it if not given.
    threads
        Threads on a CPU.
    snapshots
        Epochs after which reconstructions are kept for epochs.png.
    figures
        Draw the pictures of the run at the end.
    pdf
        Draw them as PDF too.
    out
        The folder that receives the run's own folder.
    """
    given = {
        "size": size,
        "network": network,
        "latent_dim": latent_dim,
        "loss": loss,
        "objective": objective,
        "kl_weight": kl_weight,
        "epochs": epochs,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule,
        "lr_warmup": lr_warmup,
        "clip": clip,
        "ema": ema,
        "flips": flips,
        "validation": validation,
        "keep": keep,
        "subset": subset,
        "binarise": binarise,
        "seed": seed,
    }
    from vaelab.core.distributed import distributed_context
    from vaelab.datasets.loading import load_dataset
    from vaelab.runs.spec import check_spec
    from vaelab.training.fit import fit, validate_inputs
    from vaelab.training.plan import choose_plan

    if any(epoch < 1 for epoch in snapshots or ()):
        raise UserError(f"snapshots are epochs from 1 on, got {', '.join(map(str, snapshots or ()))}")
    spec, parent = _resolve_spec(
        data, preset, from_, {name: value for name, value in given.items() if value is not None}
    )
    check_spec(spec)
    with distributed_context().main_first():
        dataset = load_dataset(spec.data, **spec.data_settings)
    choose_plan(spec, dataset.splits["train"], device, precision, threads)
    validate_inputs(spec, dataset, parent)  # what is refused is refused before anything is said
    for line in startup_lines(spec, dataset):
        notice(line)
    [run] = fit(
        [spec],
        dataset,
        Path(out),
        device=device,
        precision=precision,
        threads=threads,
        snapshots=snapshots,
        parent=parent,
    )
    weight = spec.objective.effective_kl_weight(run.model.shape)
    if run.outcome != "existing" and (settled := spec.loss.describe_fit(run.model.shared, weight)):
        notice(settled)
    if figures and distributed_context().is_main:
        from vaelab.figures import run_figures

        drawn = run.path / "figures"
        missing = [
            n
            for n in run_figures.RUN_FIGURES
            if not all((drawn / f"{n}.{s}").exists() for s in ("png", "pdf")[: 1 + pdf])
        ]
        run_figures.draw_run_figures(run, dataset, pdf=pdf, names=missing)
    return run


def _resolve_spec(
    data: str | None, preset: str | None, parent: str | Path | None, settings: dict[str, Any]
) -> tuple[Spec, Run | None]:
    """The spec asked for: of a preset, of the run to start from, or the default, with what was given."""
    from vaelab.runs import presets, spec
    from vaelab.runs.run import load

    if parent is None:
        if data is None:
            raise UserError(
                "say what to train on: a folder of images, mnist, cifar10, digits, ... (`vaelab train DATA`)"
            )
        return spec.updated(presets.get_preset(preset, data), settings), None
    run = load(parent)
    if not run.finished:
        raise UserError(f"{run.path} is not finished, so there are no weights to start from")
    base = (
        presets.get_preset(preset, data or run.spec.data) if preset else replace(run.spec, data=data or run.spec.data)
    )
    return replace(spec.updated(base, settings), parent=run.key), run


def evaluate(
    run: RunLike,
    *,
    data: str | None = None,
    split: str | None = None,
    n: int | None = None,
    evidence: int | None = None,
    full: bool = False,
    inception: Path | None = None,
) -> dict[str, Any]:
    """Measure a run on a split of its data, or of other data: every metric with its standard error over images.

    The log evidence is measured with 100 samples on 500 images, unless EVIDENCE says with how many on all.

    Parameters
    ----------
    run
        The folder of a run.
    data
        Other images, cropped and resized to the run's shape.
    split
        test, validation or train; test if not given, or all of other data that store no test split.
    n
        Only N images, spread evenly over the split.
    evidence
        Samples an image for the log evidence of all images, up to 5,000; 0 leaves it out.
    full
        Also how well categories are told apart, and how near prior samples are to images (trains a classifier once).
    inception
        The Inception network of FID as TorchScript: adds FID and KID.
    """
    from vaelab.analysis import representation, samples
    from vaelab.core.devices import num_processors, num_threads
    from vaelab.datasets.images import select_split
    from vaelab.evaluation.evidence import evidence_metrics
    from vaelab.evaluation.metrics import metrics_record

    run = _open_run(run)
    if evidence is not None and (not 0 <= evidence <= MAX_EVIDENCE_SAMPLES or evidence == 1):
        raise UserError(
            f"evidence is a number of samples from 2 to {MAX_EVIDENCE_SAMPLES}, or 0 to leave it out, got {evidence}"
        )
    network = samples.load_inception(inception) if inception else None
    dataset = run.dataset if data is None else _load_for_run(data, run)
    for line in dataset_remarks(dataset) if data else ():
        notice(line)
    images = dataset.evaluation_images() if data and split is None else select_split(dataset, split or "test")
    if n is not None:
        images = images.evenly_spaced(_require_positive("n", n))
    with num_threads(
        min(run.origin["plan"]["threads"], num_processors())
    ):  # as when metrics.json was written: the same digits
        found = metrics_record(run.key, run.model, run.spec.objective, data or run.spec.data, images)
        found["metrics"] |= evidence_metrics(run, images, evidence)
        if full:
            apart = images.split in ("validation", "test")  # from the training images, to which a probe may be fitted
            found["metrics"] |= representation.separability_metrics(
                run, images, dataset.splits["train"] if apart else None
            )
        if full or network:
            found["metrics"] |= samples.sample_quality_metrics(run, images, network)
    return found


def doctor(run: RunLike) -> list[Diagnosis]:
    """Say what ails a run: each ailment with the number that shows it, what it means, and one command to try.

    Parameters
    ----------
    run
        The folder of a run.
    """
    from vaelab.evaluation.diagnostics import RunContext, compute_latent_stats, diagnose

    run = _open_run(run)
    if not run.history:
        notice(f"{run.path} has no history.jsonl any more: what shows in it alone stays open")
    splits = run.dataset.splits
    images = splits.get("validation") or splits["train"]
    return diagnose(RunContext(run.spec, run.history, run.model, compute_latent_stats(run.model, images)))


def reconstruct(run: RunLike, images: Sequence[str | Path], *, out: Path | None = None) -> np.ndarray:
    """Reconstruct picture files of any size; OUT shows the originals above their reconstructions.

    Parameters
    ----------
    run
        The folder of a run.
    images
        Picture files.
    out
        The picture to write, .png or .pdf.

    Returns
    -------
    The mean images of the posterior means, (N, C, H, W) in [0, 1].
    """
    import torch

    from vaelab.datasets.decoding import read_images
    from vaelab.figures import layout, tiles

    out = _output_path(out, *IMAGE_FORMATS)
    run = _open_run(run)
    pixels = read_images(list(images), run.model.shape)
    with torch.no_grad():
        made = run.model.reconstruct(torch.from_numpy(pixels).float() / 255).numpy()
    if out is not None:
        layout.save_figure(tiles.plot_reconstructions(pixels, made, f"Reconstructions by run {run.key}"), out)
    return made


def interpolate(
    run: RunLike,
    *,
    from_: str | None = None,
    to: str | None = None,
    pairs: int = 7,
    steps: int = 6,
    path: Literal["linear", "slerp"] = "linear",
    split: str = "test",
    sampled: bool = False,
    seed: int = 0,
    out: Path | None = None,
) -> np.ndarray:
    """Decode the way between pictures or categories, z = alpha z1 + (1 - alpha) z2; OUT shows it.

    Parameters
    ----------
    run
        The folder of a run.
    from_
        alpha = 0: a category or a picture file. Without it, any pictures.
    to
        alpha = 1: likewise.
    pairs
        How many pairs to draw from the categories.
    steps
        How many values of alpha, the two ends included.
    path
        linear or slerp.
    split
        Where pictures of categories come from.
    sampled
        Take samples of the posteriors in place of their means.
    seed
        Of the draw of pairs, and of samples.
    out
        The figure to write, .png or .pdf, or an animation, .gif.

    Returns
    -------
    The images, (pairs, steps, C, H, W) in [0, 1].
    """
    import torch

    from vaelab.analysis import interpolation as paths
    from vaelab.analysis.interpolation import load_path_ends
    from vaelab.core.rng import generator
    from vaelab.figures import layout, tiles

    out = _output_path(out, *IMAGE_FORMATS, ".gif")
    run = _open_run(run)
    start, end = load_path_ends(run, (from_, to), _require_positive("pairs", pairs), split, seed)
    noise = torch.randn(len(start), 2, run.model.latent_dim, generator=generator(seed, "codes")) if sampled else None
    made = paths.interpolate_images(run.model, start, end, paths.alpha_values(steps), path=path, noise=noise)
    if out is not None and out.suffix.lower() == ".gif":
        tiles.save_animation(list(made.images.transpose(0, 1).numpy()), out)
    elif out is not None:
        names = tuple(Path(end).stem if end and Path(end).is_file() else end or "" for end in (from_, to))
        figure = tiles.plot_interpolations(
            made.originals.numpy(),
            made.images.numpy(),
            made.alphas.numpy(),
            (names[0], names[1]),
            f"Interpolations by run {run.key}, {path}",
        )
        layout.save_figure(figure, out)
    return made.images.numpy()


def sample(run: RunLike, *, n: int = 64, seed: int = 0, out: Path | None = None) -> np.ndarray:
    """Decode codes drawn from the prior; OUT shows them.

    Parameters
    ----------
    run
        The folder of a run.
    n
        How many.
    seed
        Of the draw.
    out
        The picture to write, .png or .pdf.

    Returns
    -------
    The mean images, (n, C, H, W) in [0, 1].
    """
    from vaelab.analysis.samples import has_prior_term, sample_prior
    from vaelab.figures import layout, tiles

    out = _output_path(out, *IMAGE_FORMATS)
    run = _open_run(run)
    if not has_prior_term(run.spec, run.model.shape):
        raise UserError(
            f"run {run.key} was trained with KL weight 0: its codes do not follow the prior, so samples mean nothing"
        )
    made = sample_prior(run.model, _require_positive("n", n), seed).numpy()
    if out is not None:
        layout.save_figure(tiles.plot_grid(made, f"Samples of the prior by run {run.key}"), out)
    return made


def embed(run: RunLike, data: str, *, out: Path = Path("codes.parquet")) -> Path:
    """Write the posterior of every image of DATA, a row each: path or index, split, label, mean_*, logvar_*, error.

    error is the mean squared error of the mean reconstruction, per pixel value.

    Parameters
    ----------
    run
        The folder of a run.
    data
        Any images, cropped and resized to the run's shape.
    out
        The parquet file to write.
    """
    import pyarrow.parquet as pq

    from vaelab.analysis.embedding import embedding_table
    from vaelab.core.files import atomic_write

    _output_path(out, ".parquet")
    run = _open_run(run)
    dataset = _load_for_run(data, run)
    for line in dataset_remarks(dataset):
        notice(line)
    codes = embedding_table(run.model, dataset)
    with atomic_write(Path(out)) as temporary:
        pq.write_table(codes, temporary)
    return Path(out)


def data(data: str, *, size: int | None = None) -> dict[str, Any]:
    """Tell what is in DATA: counts, sizes, modes, splits, skipped files, duplicates across splits.

    Parameters
    ----------
    data
        As for train.
    size
        Side in pixels to which pictures are cropped and resized.
    """
    from vaelab.datasets.cache import SizeError
    from vaelab.datasets.loading import describe_dataset, load_dataset

    try:
        return describe_dataset(load_dataset(data, size=size))
    except SizeError:
        facts = describe_dataset(load_dataset(data, size=SURVEY_SIZE))
        facts["notes"].insert(
            0, f"the sizes differ or are out of bounds: train with --size, such as --size {SURVEY_SIZE}"
        )
        return facts


def model(run: RunLike, *, out: Path | None = None) -> list[Layer]:
    """The layers of a run's model with shapes and parameters; OUT shows them as a diagram.

    Parameters
    ----------
    run
        The folder of a run.
    out
        The picture to write, .png or .pdf.
    """
    from vaelab.core.codec import to_word
    from vaelab.figures import diagram, layout
    from vaelab.models.summary import layers

    out = _output_path(out, *IMAGE_FORMATS)
    run = _open_run(run)
    rows = layers(run.model)
    if out is not None:
        layout.save_figure(
            diagram.plot_model(rows, run.model.latent_dim, to_word(run.spec.loss), f"Run {run.key}"), out
        )
    return rows


class StudyResult(NamedTuple):
    """A study as far as it has come: its folder, report and results, and the images trained on now."""

    folder: Path
    report: Path
    results: StudyResults
    images_trained: int

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
    workers: int | None = None,
    backend: Literal["local", "ray"] = "local",
    dry_run: bool = False,
    list_: bool = False,
    device: str | None = None,
    out: Path = Path(),
) -> StudyResult | dict[str, Any]:
    """Carry out a study: its runs, table, figures, verdicts and report. Only what is missing is trained.

    Parameters
    ----------
    study
        A shipped study (digits, mnist, cifar10, faces, ...; --list names them) or a file that ends in .toml.
    data
        Other images than the study names.
    seeds
        Seeds 1 to N in place of the study's.
    epochs
        Other epochs for every run.
    workers
        Worker processes on a CPU, one thread each; one for each processor if not given.
    backend
        local: worker processes of this machine; ray: a Ray cluster, whose machines see the same folders.
    dry_run
        Only say how many runs there are, which exist, and about how long the rest takes.
    list_
        Only name the shipped studies.
    device
        cpu, cuda, cuda:1 or mps; the fastest there is if not given.
    out
        The folder that receives runs/ and studies/NAME.
    """
    from vaelab.core.devices import choose_device
    from vaelab.studies import parsing

    if list_:
        return {name: parsing.read_study(name).title for name in parsing.shipped_studies()}
    if is_distributed():
        raise UserError("a study sends its runs to workers by itself: start it without torchrun")
    if study is None:
        raise UserError(f"say which study: {', '.join(parsing.shipped_studies())}, or a file that ends in .toml")
    from vaelab.core.devices import num_processors
    from vaelab.core.jobs import Executor
    from vaelab.figures import study_figures
    from vaelab.reporting import outputs
    from vaelab.studies import estimate, runner

    if workers is not None:
        _require_positive("workers", workers)
    asked = parsing.with_overrides(parsing.read_study(study), data, seeds, epochs)
    study_figures.check_figures(asked)
    choose_device(device)
    jobs = runner.plan_runs(asked, Path(out), device)
    there = sum(job.run.finished for job in jobs.values())
    if backend == "ray":
        from vaelab.core import ray_jobs

        crew, drawing = ray_jobs.ray_executor(workers), num_processors()
    else:
        crew = Executor(drawing := workers or num_processors())
    workers = crew.max_workers
    if dry_run:
        seconds = estimate.estimate_seconds(asked, jobs, crew, device)
        return {
            "study": asked.name,
            "trials": len(asked.trials),
            "runs": len(jobs),
            "existing": there,
            "missing": len(jobs) - there,
            "workers": workers,
            "seconds": round(seconds, 1),
        }
    notice(f"study {asked.name}: {len(jobs)} runs, {there} exist, {len(jobs) - there} to train, {workers} workers")
    results, images = runner.run_study(asked, jobs, Path(out), crew, device)
    folder = Path(out) / "studies" / asked.name
    return StudyResult(folder, outputs.write_study_outputs(results, folder, drawing, command_line()), results, images)


def report(study: StudyLike, *, workers: int | None = None) -> Path:
    """Write the document of a study, or of one run, anew; gives its path.

    Parameters
    ----------
    study
        The folder of a study or of a run.
    workers
        Processes that draw; one for each processor if not given.
    """
    from vaelab.core.devices import num_processors
    from vaelab.core.jobs import Executor
    from vaelab.reporting import outputs
    from vaelab.studies import runner

    workers = num_processors() if workers is None else _require_positive("workers", workers)
    place = (
        Path(study) if isinstance(study, str | Path) else study.folder if isinstance(study, StudyResult) else study.path
    )
    if (place / "study.toml").is_file():
        return outputs.write_study_outputs(runner.resume_study(place, Executor(workers)), place, workers)
    run = _open_run(place)
    if not run.finished:
        raise UserError(f"{run.path} is not finished; train it to its end first")
    return outputs.write_study_outputs(runner.single_run_study(run, workers), run.path, workers)


def list_(dir: Path = Path(), *, sort: str | None = None) -> list[dict[str, Any]]:
    """The runs below DIR with their main numbers and disk use.

    Parameters
    ----------
    dir
        A folder of runs.
    sort
        A metric of the test split, smallest first.
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
    names = {name for row in rows for name in row["metrics"]}
    if sort is not None and rows:
        if sort not in names:
            raise unknown_name_error("metric", sort, names)
        rows.sort(key=lambda row: (sort not in row["metrics"], row["metrics"].get(sort, 0)))
    return rows


def _open_run(run: RunLike) -> Run:
    from vaelab.runs.run import Run, load

    return run if isinstance(run, Run) else load(run)


def _load_for_run(data: str, run: Run) -> Dataset:
    """Other images as the run's model takes them."""
    from vaelab.datasets.loading import load_dataset

    channels, *sides = run.model.shape
    return load_dataset(data, size=(sides[0], sides[1]), channels=channels, binarise=run.spec.binarise)


def _require_positive(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")
    return value


def _output_path(out: Path | None, *formats: str) -> Path | None:
    """The file to draw, refused before the work where its ending says nothing to draw with."""
    if out is not None and Path(out).suffix.lower() not in formats:
        raise UserError(f'--out must end in {" or ".join(formats)}, got "{out}"')
    return None if out is None else Path(out)
