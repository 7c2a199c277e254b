"""Training throughput against the textbook loop: DataLoader, ToTensor for each image, float32, Adam.

Same network, batch size, data and threads; each side is a process of its own, and the two take turns, so that a
machine whose speed drifts treats both alike. Quote the medians and the ratio.

    VAELAB_DATA=... python benchmarks/throughput.py                 # the textbook network on MNIST
    VAELAB_DATA=... python benchmarks/throughput.py --rounds 5 --epochs 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time


def textbook(epochs: int, threads: int) -> float:
    """The PyTorch examples' VAE as they train it; images a second of whole epochs, evaluation left out."""
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, Dataset

    from vaelab.loading import load

    torch.set_num_threads(threads)
    images = load("mnist", validation=0).splits["train"].uint8()

    class Pictures(Dataset):
        """Pictures as torchvision's MNIST serves them: a PIL image, then ToTensor."""

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> torch.Tensor:
            picture = Image.fromarray(images[i, 0])
            array = np.array(picture, np.uint8, copy=True)
            return torch.from_numpy(array).view(28, 28, 1).permute(2, 0, 1).contiguous().to(torch.float32).div(255)

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc21, self.fc22 = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
            self.fc3, self.fc4 = nn.Linear(20, 400), nn.Linear(400, 784)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            h = F.relu(self.fc1(x.view(-1, 784)))
            mean, logvar = self.fc21(h), self.fc22(h)
            std = torch.exp(0.5 * logvar)
            z = mean + torch.randn_like(std) * std
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, logvar

    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(Pictures(), batch_size=128, shuffle=True)
    total, begun = 0.0, time.perf_counter()
    for _ in range(epochs):
        for x in loader:
            optimizer.zero_grad()
            y, mean, logvar = model(x)
            loss = F.binary_cross_entropy(y, x.view(-1, 784), reduction="sum")
            loss = loss - 0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
            loss.backward()
            total += loss.item()
            optimizer.step()
    return epochs * len(images) / (time.perf_counter() - begun)


def ours(epochs: int, threads: int) -> float:
    """The same training by `fit`, monitoring, history and states included; images a second as origin.json says."""
    from pathlib import Path

    from vaelab.loading import load
    from vaelab.spec import change, preset
    from vaelab.training import fit

    spec = change(preset("textbook", "mnist"), {"epochs": epochs})
    with tempfile.TemporaryDirectory() as folder:
        [run] = fit([spec], load("mnist", validation=0), Path(folder), device="cpu", threads=threads)
        return run.origin["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", choices=["textbook", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"textbook": textbook, "ours": ours}[args.side](args.epochs, args.threads)))
        return
    rates: dict[str, list[float]] = {"textbook": [], "ours": []}
    for _ in range(args.rounds):
        for side, measured in rates.items():
            command = [
                sys.executable,
                __file__,
                "--side",
                side,
                "--epochs",
                str(args.epochs),
                "--threads",
                str(args.threads),
            ]
            measured.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    ratios = [b / a for a, b in zip(rates["textbook"], rates["ours"], strict=True)]
    for side, measured in rates.items():
        middle, low, high = statistics.median(measured), min(measured), max(measured)
        print(f"{side:<9} {middle:>9,.0f} images/s  (from {low:,.0f} to {high:,.0f})")
    print(f"ratio     {statistics.median(ratios):>9.2f}  (from {min(ratios):.2f} to {max(ratios):.2f}, pair by pair)")


if __name__ == "__main__":
    main()
