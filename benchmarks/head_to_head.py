"""Compare vaelab and pythae on the same network, data, epochs and seeds: ELBO, evidence, seconds, memory.

784-400-20-400-784 with ReLU on MNIST with black and white pixels (binarised once), batch size 128, Adam at 0.001,
54,000 images for training and 6,000 to choose the best epoch, as pythae does. Each side runs in a process of its own
with one thread, and they take turns. Both are measured by the same evaluation, for which pythae's weights are loaded
into vaelab's model. pythae's own evidence (`get_nll`) is timed on the same images.

    python -m venv peer && peer/bin/pip install -e . pythae
    VAELAB_DATA=... peer/bin/python benchmarks/head_to_head.py --epochs 10 --seeds 3
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

SIDES = ("vaelab", "vaelab, float32", "pythae")


def make_spec(epochs: int, seed: int) -> Any:
    from vaelab.runs.presets import get_preset
    from vaelab.runs.spec import updated

    changes = {"epochs": epochs, "binarise": "fixed", "validation": 0.1, "keep": "best"}
    return replace(updated(get_preset("textbook", "mnist"), changes), seed=seed)


def train_vaelab(dataset: Any, spec: Any, folder: Path, precision: str | None) -> Any:
    from vaelab.training.fit import fit

    return fit([spec], dataset, folder, device="cpu", threads=1, precision=precision)[0].model


def train_pythae(dataset: Any, spec: Any, folder: Path) -> Any:
    """Train with pythae's own trainer, a network of the same layers in its interface."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mean, self.logvar = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x: torch.Tensor) -> ModelOutput:
            hidden = self.body(x.flatten(1)).relu()
            return ModelOutput(embedding=self.mean(hidden), log_covariance=self.logvar(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.pixels = nn.Linear(20, 400), nn.Linear(400, 784)

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.pixels(self.body(z).relu()).sigmoid().view(-1, 1, 28, 28))

    images = {name: torch.from_numpy(dataset.splits[name].uint8()).float() / 255 for name in ("train", "validation")}
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    torch.manual_seed(spec.seed)
    model = VAE(config, Encoder(), Decoder())
    sizes = {"per_device_train_batch_size": 128, "per_device_eval_batch_size": 512}
    training = BaseTrainerConfig(
        output_dir=str(folder), num_epochs=spec.epochs, learning_rate=spec.lr, seed=spec.seed, no_cuda=True, **sizes
    )
    TrainingPipeline(model, training)(images["train"], images["validation"])
    return model.eval()


def to_vaelab(pythae_model: Any, spec: Any) -> Any:
    """pythae's weights in vaelab's model."""
    import torch

    from vaelab.runs.spec import build_model

    model = build_model(spec, (1, 28, 28))
    parts = (
        pythae_model.encoder.body,
        (pythae_model.encoder.mean, pythae_model.encoder.logvar),
        pythae_model.decoder.body,
        pythae_model.decoder.pixels,
    )
    with torch.no_grad():
        for part, target in zip(parts, (m for m in model.modules() if isinstance(m, torch.nn.Linear)), strict=True):
            parts_of_layer = part if isinstance(part, tuple) else (part,)
            target.weight.copy_(torch.cat([p.weight for p in parts_of_layer]))
            target.bias.copy_(torch.cat([p.bias for p in parts_of_layer]))
    return model.eval()


def measure(side: str, epochs: int, seed: int) -> dict[str, float]:
    import torch

    from vaelab.datasets.loading import load_dataset
    from vaelab.evaluation.evidence import log_evidence
    from vaelab.evaluation.metrics import compute_metrics, likelihood_of

    torch.set_num_threads(1)
    spec = make_spec(epochs, seed)
    dataset = load_dataset("mnist", **spec.data_settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if side == "pythae":
            model = train_pythae(dataset, spec, Path(folder))
        else:
            model = train_vaelab(dataset, spec, Path(folder), "float32" if side.endswith("float32") else None)
        seconds = time.perf_counter() - started
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    numbers = {"seconds": seconds, "memory, MiB": memory}
    images = dataset.splits["test"].evenly_spaced(1000)
    measured_model = to_vaelab(model, spec) if side == "pythae" else model
    metrics = compute_metrics(measured_model, spec.objective, dataset.splits["test"])
    likelihood = likelihood_of(measured_model, spec.objective)
    assert likelihood is not None
    started = time.perf_counter()
    evidence = log_evidence(measured_model, likelihood, images, 1000)
    numbers |= {
        "negative ELBO": metrics["negative_elbo"].value,
        "negative log evidence": -evidence.value.mean().item(),
        "vaelab: seconds of the evidence": time.perf_counter() - started,
    }
    if side == "pythae":
        started = time.perf_counter()
        with torch.no_grad():
            get_nll = model.get_nll(torch.from_numpy(images.uint8()).float() / 255, n_samples=1000, batch_size=100)
        numbers |= {"get_nll": -float(get_nll), "pythae: seconds of get_nll": time.perf_counter() - started}
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.epochs, arguments.seed)))
        return
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for seed in range(1, arguments.seeds + 1):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side, "--seed", str(seed), "--epochs", str(arguments.epochs)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
    for side, runs in results.items():
        print(side)
        for name in runs[0]:
            values = [run[name] for run in runs]
            print(f"  {name:<32} {statistics.median(values):>9.2f}   (from {min(values):.2f} to {max(values):.2f})")
    for name in ("seconds", "memory, MiB"):
        ratios = [peer[name] / own[name] for peer, own in zip(results["pythae"], results["vaelab"], strict=True)]
        print(f"pythae / vaelab, {name}: {statistics.median(ratios):.2f}, seed by seed from {min(ratios):.2f}")


if __name__ == "__main__":
    main()
