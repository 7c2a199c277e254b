"""The sides of the comparisons, each run in a process of its own: `python contenders.py NAME ARGUMENT...` prints JSON.

`textbook` is the training loop of tutorials: DataLoader, ToTensor for each image, float32, torch.optim.Adam. The
networks have the same layers on every side. Times go from the first step to the last, without imports and files.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

Numbers = dict[str, float]
PRESETS = {"digits": "textbook"}
DATA = {"digits": "digits", "textbook": "mnist", "fast": "mnist", "report-a": "faces", "report-b": "mnist"}


def load_preset(preset: str, epochs: int | None = None, seed: int = 1) -> tuple[Any, Any]:
    """The spec of a preset and its data."""
    from vaelab.datasets.loading import load_dataset
    from vaelab.runs.presets import get_preset as named
    from vaelab.runs.spec import updated

    spec = updated(named(preset, DATA[preset]), {} if epochs is None else {"epochs": epochs})
    return replace(spec, seed=seed), load_dataset(spec.data, **spec.data_settings)


def build_networks(spec: Any, shape: tuple[int, int, int]) -> tuple[Any, Any]:
    from vaelab.runs.spec import build_model

    model = build_model(spec, shape, spec.seed)
    return model.encoder, model.decoder


def textbook(preset: str, epochs: str, seed: str = "1") -> Numbers:
    """The training loop of tutorials."""
    import torch
    from PIL import Image
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Dataset

    spec, dataset = load_preset(preset, int(epochs), int(seed))
    images = dataset.splits["train"]
    pixels, (channels, height, width) = images.uint8(), images.shape

    class Pictures(Dataset):
        """Pictures as torchvision serves them: a PIL image, then ToTensor."""

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, i: int) -> torch.Tensor:
            import numpy as np

            array = pixels[i, 0] if channels == 1 else pixels[i].transpose(1, 2, 0)
            array = np.array(Image.fromarray(np.ascontiguousarray(array)), np.uint8, copy=True)
            tensor = torch.from_numpy(array).view(height, width, channels).permute(2, 0, 1).contiguous()
            return tensor.to(torch.float32).div(255)

    torch.set_num_threads(2)
    torch.manual_seed(spec.seed)
    encoder, decoder = build_networks(spec, images.shape)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=spec.lr)
    loader = DataLoader(Pictures(), batch_size=spec.batch_size, shuffle=True)
    weight, bernoulli = spec.objective.kl_weight, spec.loss.name == "cross-entropy"
    started = time.perf_counter()
    for _ in range(spec.epochs):
        for x in loader:
            optimizer.zero_grad()
            mean, logvar = encoder(x).chunk(2, -1)
            y = torch.sigmoid(decoder(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)))
            distance = F.binary_cross_entropy if bernoulli else F.mse_loss
            loss = distance(y, x, reduction="sum")
            loss = loss - weight * 0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
            (loss / len(x)).backward()
            loss.item()
            optimizer.step()
    seconds = time.perf_counter() - started
    numbers = {"seconds": seconds, "images/s": spec.epochs * len(pixels) / seconds}
    if preset == "textbook":
        from vaelab.evaluation.metrics import compute_metrics
        from vaelab.runs.spec import build_model

        model = build_model(spec, images.shape)
        model.encoder, model.decoder = encoder, decoder
        metrics = compute_metrics(model.eval(), spec.objective, dataset.splits["test"])
        numbers["negative ELBO"] = metrics["negative_elbo"].value
    return numbers


def vaelab(preset: str, epochs: str, seed: str = "1", precision: str = "", threads: str = "") -> Numbers:
    """`fit`, with monitoring, history and states, in the plan that it chooses itself."""
    from vaelab.training.fit import fit

    spec, dataset = load_preset(preset, int(epochs) or None, int(seed))
    with tempfile.TemporaryDirectory() as folder:
        [run] = fit(
            [spec],
            dataset,
            Path(folder),
            device="cpu",
            precision=precision or None,
            snapshots=(),
            threads=int(threads) if threads else None,
        )
        origin = run.origin
        numbers = {"seconds": origin["seconds"], "images/s": origin["images_per_second"]}
        test = run.metrics["test"]["metrics"]
        return numbers | ({"negative ELBO": test["negative_elbo"]["value"]} if "negative_elbo" in test else {})


def pythae(preset: str, epochs: str, seed: str = "1") -> Numbers:
    """pythae's own trainer on the same layers."""
    spec, dataset = load_preset(preset, int(epochs), int(seed))
    images = dataset.splits["train"]
    model = to_pythae_model(*build_networks(spec, images.shape), images.shape, spec.latent_dim)
    seconds = train_with_pythae(model, images, spec)
    return {"seconds": seconds, "images/s": spec.epochs * len(images) / seconds}


def train_with_pythae(model: Any, images: Any, spec: Any) -> float:
    """Seconds in which pythae's trainer takes the epochs of a spec, by two threads."""
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.set_num_threads(2)
    x = torch.from_numpy(images.uint8()).float() / 255
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=spec.epochs,
            learning_rate=spec.lr,
            no_cuda=True,
            per_device_train_batch_size=spec.batch_size,
        )
        trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), None, settings)
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


def pythae_study(study: str) -> Numbers:
    """The runs of a study by pythae, one after another: an epoch of each kind, times epochs and runs."""
    from vaelab.datasets.loading import load_dataset
    from vaelab.studies.parsing import read_study

    runs = list(dict.fromkeys(trial.spec for trial in read_study(study).trials))
    kinds = [replace(spec, seed=0, lr=1e-3, objective=runs[0].objective, epochs=1) for spec in runs]
    total = 0.0
    for kind in dict.fromkeys(kinds):
        images = load_dataset(kind.data, **kind.data_settings).splits["train"]
        model = to_pythae_model(*build_networks(kind, images.shape), images.shape, kind.latent_dim)
        epoch = train_with_pythae(model, images, kind)
        total += epoch * sum(spec.epochs for spec, alike in zip(runs, kinds, strict=True) if alike == kind)
    return {"seconds": total}


def whole(study: str) -> Numbers:
    """A study, from the command to the last file of its report."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "vaelab", "study", study, "--out", folder, "--workers", "2"]
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return {"seconds": time.perf_counter() - started}


def to_pythae_model(encoder: Any, decoder: Any, shape: tuple[int, int, int], latent_dim: int) -> Any:
    """The same layers as a model of pythae."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = encoder

        def forward(self, x: torch.Tensor) -> ModelOutput:
            mean, logvar = self.layers(x).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = decoder

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z).sigmoid())

    config = VAEConfig(input_dim=shape, latent_dim=latent_dim, reconstruction_loss="bce")
    return VAE(config, Encoder(), Decoder())


def evidence(by: str, count: str = "1000", samples: str = "1000") -> Numbers:
    """The evidence of test images by importance sampling, of one model."""
    import torch

    from vaelab.evaluation.evidence import log_evidence

    run, dataset = train_one_epoch()
    model, images = run.model.eval(), dataset.splits["test"].evenly_spaced(int(count))
    likelihood = run.spec.loss.as_likelihood(1.0)
    torch.set_num_threads(2)
    if by == "vaelab":
        started = time.perf_counter()
        value = log_evidence(model, likelihood, images, int(samples)).value.mean().item()
    else:
        theirs = to_pythae_model(model.encoder, model.decoder, images.shape, run.spec.latent_dim).eval()
        x = torch.from_numpy(images.uint8()).float() / 255
        started = time.perf_counter()
        with torch.no_grad():
            value = float(theirs.get_nll(x, n_samples=int(samples), batch_size=100))
    return {"seconds": time.perf_counter() - started, "negative log evidence": -value}


def train_one_epoch() -> tuple[Any, Any]:
    """A run of the textbook network of one epoch, and its data."""
    from vaelab.training.fit import fit

    spec, dataset = load_preset("textbook", 1)
    with tempfile.TemporaryDirectory() as folder:
        [run] = fit([spec], dataset, Path(folder), device="cpu", threads=1, snapshots=(), compiled=False)
        _ = run.model  # read while its file is there
    return run, dataset


def matrix_products(preset: str, precision: str, threads: str) -> Numbers:
    """The rate if a step were only its matrix products and one fused Adam, each timed alone."""
    import torch
    from torch import nn

    from vaelab.core.devices import tune_malloc
    from vaelab.training.optimizer import Adam

    tune_malloc()
    torch.set_num_threads(int(threads))
    spec, dataset = load_preset(preset)
    layers = [
        m
        for part in build_networks(spec, dataset.splits["train"].shape)
        for m in part.modules()
        if isinstance(m, nn.Linear)
    ]
    kind, total = getattr(torch, precision), 0.0
    for i, layer in enumerate(layers):
        x, weight = torch.randn(spec.batch_size, layer.in_features).to(kind), layer.weight.detach().to(kind)
        gradient = torch.randn(spec.batch_size, layer.out_features).to(kind)
        total += fastest(lambda x=x, weight=weight: x @ weight.T) + fastest(
            lambda x=x, gradient=gradient: gradient.T @ x
        )
        total += fastest(lambda gradient=gradient, weight=weight: gradient @ weight) if i else 0.0
    model = nn.ModuleList(layers)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    adam = Adam(model, model)
    total += fastest(lambda: adam.step(1e-3))
    return {"images/s": spec.batch_size / total, "microseconds": 1e6 * total}


def fastest(work: Callable[[], object], times: int = 100) -> float:
    """Seconds of one piece of work, at its best in several bouts."""
    bouts = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(times):
            work()
        bouts.append((time.perf_counter() - started) / times)
    return min(bouts)


STUDY = """
title = "Learning rates"
about = "For timing."
data = "{data}"
seeds = {seeds}
base = {{ preset = "{preset}", epochs = {epochs} }}
[[experiments]]
id = "rates"
title = "Rates"
question = "Which?"
vary = {{ lr = [0.0005, 0.001, 0.002, 0.003] }}
figures = []
"""


def study(preset: str, epochs: str, seeds: str, backend: str = "local", programs: str = "kept") -> Numbers:
    """The runs of a study, from the command to the last file of the report; `anew`, as if none had been compiled."""
    from vaelab.core.files import cache_folder

    if programs == "anew":
        shutil.rmtree(cache_folder() / "programs", ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "timed.toml"
        file.write_text(
            STUDY.format(
                preset="textbook" if preset == "digits" else preset, data=DATA[preset], epochs=epochs, seeds=seeds
            )
        )
        words = [
            sys.executable,
            "-m",
            "vaelab",
            "study",
            str(file),
            "--out",
            folder,
            "--workers",
            "2",
            "--backend",
            backend,
        ]
        started = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        runs = [json.loads(file.read_text()) for file in Path(folder).glob("runs/*/origin.json")]
    images = int(epochs) * sum(run["data"]["images"]["train"] for run in runs)
    trained = sum(run["seconds"] for run in runs)
    return {"seconds": seconds, "images/s": images / seconds, "trained": trained, "runs": len(runs)}


def tsne(by: str, count: str) -> Numbers:
    """Ten thousand codes in the plane; the divergence of the result is computed in one way for both."""
    import numpy as np

    points = encode_test_images(int(count))
    started = time.perf_counter()
    if by == "vaelab":
        from vaelab.analysis.projections import tsne as places_of

        places = places_of(points)
    else:
        from sklearn.manifold import TSNE

        places = TSNE(n_jobs=1, random_state=0).fit_transform(points)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "KL": tsne_divergence(points, np.asarray(places, np.float64))}


def encode_test_images(count: int) -> Any:
    """Codes of an encoder of MNIST's test images, trained briefly."""
    from vaelab.evaluation.metrics import encode_all

    run, dataset = train_one_epoch()
    return encode_all(run.model, dataset.splits["test"].evenly_spaced(count)).mean.numpy()


def tsne_divergence(points: Any, places: Any) -> float:
    """KL(P || Q) of t-SNE at perplexity 30, with Q's normaliser over all pairs."""
    import numpy as np
    from openTSNE.affinity import PerplexityBasedNN

    affinities: Any = PerplexityBasedNN(points, perplexity=30, method="exact", n_jobs=1)
    joint = affinities.P.tocoo()
    square = places**2
    total = 0.0
    for start in range(0, len(places), 1000):
        block = (
            square[start : start + 1000].sum(1)[:, None] + square.sum(1) - 2 * places[start : start + 1000] @ places.T
        )
        total += (1 / (1 + block.clip(0))).sum()
    total -= len(places)
    squared_distances = ((places[joint.row] - places[joint.col]) ** 2).sum(1)
    p = joint.data / joint.data.sum()
    return float((p * (np.log(p) + np.log1p(squared_distances) + np.log(total))).sum())


def torchrun(preset: str, epochs: str, processes: str) -> Numbers:
    """One model trained by several processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "-m",
            "vaelab",
            "train",
            DATA[preset],
            "--preset",
            preset,
            "--epochs",
            epochs,
            "--threads",
            "1",
            "--no-figures",
            "--out",
            folder,
        ]
        torchrun_words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        subprocess.run(
            [sys.executable, *(torchrun_words if processes != "1" else []), *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        origin = json.loads(next(Path(folder).glob("*/origin.json")).read_text())
    return {"seconds": origin["seconds"], "images/s": origin["images_per_second"]}


def command(what: str) -> Numbers:
    """From the shell: a bare interpreter, the help, a list of a thousand runs, the first training step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = {
            "bare": ["-c", "pass"],
            "help": ["-m", "vaelab", "--help"],
            "list": ["-m", "vaelab", "list", name],
            "first step": ["-c", FIRST, name],
        }[what]
        if what == "list":
            train_words = [
                sys.executable,
                "-m",
                "vaelab",
                "train",
                "digits",
                "--network",
                "mlp",
                "--epochs",
                "1",
                "--no-figures",
                "--out",
                name,
            ]
            subprocess.run(train_words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            [run] = [path for path in folder.iterdir() if (path / "spec.json").exists()]
            for i in range(999):
                shutil.copytree(run, folder / f"{i:016x}")
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {"seconds": time.perf_counter() - started}


FIRST = """
import os, sys
from vaelab.cli.main import main
from vaelab.training import loop
choose_step = loop.choose_step
def first(group):
    step = choose_step(group)
    def step_and_exit(rows):
        step(rows)
        os._exit(0)
    return step_and_exit
loop.choose_step = first
main(["train", "mnist", "--preset", "textbook", "--no-figures", "--out", sys.argv[1]])
"""


def piece(what: str) -> Numbers:
    """A training step of the textbook network, and what of it reads, shuffles and converts the images; microseconds."""
    from vaelab.core.devices import num_threads, tune_malloc
    from vaelab.runs.run import Run
    from vaelab.training.job import TrainingJob, epoch_order
    from vaelab.training.plan import choose_plan
    from vaelab.training.state import ActiveRun, initial_state
    from vaelab.training.steps.choose import choose_step

    spec, dataset = load_preset("textbook")
    plan = choose_plan(spec, dataset.splits["train"], device="cpu")
    work = TrainingJob(Run(Path()), spec, dataset, plan)
    run, rows = ActiveRun(work, initial_state(work)), epoch_order(work, 0)[: spec.batch_size]
    tune_malloc()
    with num_threads(plan.threads):
        if what == "step":
            step = choose_step([run])
            seconds = fastest(lambda: step([rows]))
        else:
            seconds = (
                fastest(lambda: work.load_batch(rows, 0))
                + fastest(lambda: epoch_order(work, 0), 5) / work.steps_per_epoch
            )
    return {"microseconds": 1e6 * seconds}


def compiling(which: str) -> Numbers:
    """The training step of the textbook network: compiled, or loaded as it was compiled before."""
    from vaelab.core import files
    from vaelab.core.devices import num_threads
    from vaelab.runs.run import Run
    from vaelab.training.job import TrainingJob
    from vaelab.training.plan import choose_plan
    from vaelab.training.state import ActiveRun, initial_state
    from vaelab.training.steps import compiled
    from vaelab.training.steps.choose import choose_step

    spec, dataset = load_preset("textbook")
    plan = replace(choose_plan(spec, dataset.splits["train"], "cpu"), compiled=True)
    work = TrainingJob(Run(Path()), spec, dataset, plan)
    run, name = ActiveRun(work, initial_state(work)), compiled.cache_key
    with num_threads(plan.threads), tempfile.TemporaryDirectory(dir=files.cache_folder()) as folder:
        if which == "anew":
            compiled.cache_key = lambda *given: f"../{Path(folder).name}/{name(*given)}"
        elif which == "kept":  # made by another process, at the latest now
            subprocess.run([sys.executable, __file__, "compiling", "made"], check=True, stdout=subprocess.DEVNULL)
        started = time.perf_counter()
        choose_step([run])
        return {"seconds": time.perf_counter() - started}


def large(count: str, batches: str = "150") -> Numbers:
    """Training steps on made pictures of 64 x 64 in colour, mapped from the cache; memory that is not the map."""
    import torch

    from vaelab.core.devices import tune_malloc
    from vaelab.datasets.loading import load_dataset
    from vaelab.runs.run import Run
    from vaelab.runs.spec import Spec
    from vaelab.training.job import TrainingJob
    from vaelab.training.plan import choose_plan
    from vaelab.training.state import ActiveRun, initial_state
    from vaelab.training.steps.choose import choose_step

    file = make_images(int(count))
    started = time.perf_counter()
    dataset = load_dataset(file, validation=0.1)
    loading = time.perf_counter() - started
    spec = Spec(data=str(file))
    plan = choose_plan(spec, dataset.splits["train"], device="cpu")
    tune_malloc()
    torch.set_num_threads(plan.threads)
    work = TrainingJob(Run(Path()), spec, dataset, plan)
    step = choose_step([ActiveRun(work, initial_state(work))])
    order = torch.randperm(len(work.train_images)).numpy()
    size = spec.batch_size

    def steps(first: int, last: int) -> float:
        started = time.perf_counter()
        for i in range(first, last):
            rows, coming = (order[j % (len(order) // size) * size :][:size] for j in (i, i + 1))
            work.train_images.prefetch(coming)
            step([rows])
        return time.perf_counter() - started

    steps(0, 10)
    seconds = steps(10, 10 + int(batches))
    status = Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]
    return {"images/s": int(batches) * size / seconds, "memory, MiB": int(status) / 1024, "seconds to load": loading}


def make_images(count: int) -> Path:
    """An array file of pictures, in the folder $BENCH_DATA, made once."""
    import numpy as np

    file = Path(os.environ.get("BENCH_DATA", tempfile.gettempdir())) / f"pictures-{count}.npy"
    if not file.exists():
        rng = np.random.default_rng(0)
        base = rng.integers(0, 256, (512, 64, 64, 3), dtype=np.uint8)
        pictures = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(count, 64, 64, 3))
        for turn, start in enumerate(range(0, count, 512)):
            block = pictures[start : start + 512]
            block[:] = np.roll(base, turn // 256, axis=1)[: len(block)] ^ np.uint8(turn % 256)
    return file


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
