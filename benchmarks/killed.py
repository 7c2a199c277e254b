"""Kill a training at ten moments, start it again each time, and compare with an undisturbed one, byte for byte.

    python benchmarks/killed.py                       # the small MLP and the network of report A, on bundled digits
    python benchmarks/killed.py --kills 20 --seed 3

The moments are drawn over the whole training; half of the kills are SIGKILL, half SIGINT (Ctrl-C).
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {
    "mlp": "train digits --preset textbook --epochs 600",
    "report-a": "train digits --preset report-a --epochs 16",
}


def start(words: str, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vaelab", *words.split(), "--no-figures", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(out: Path) -> bool:
    return any(out.glob("*/metrics.json"))


def rows(out: Path) -> int:
    """How many epochs a run has behind it."""
    return sum(len(file.read_text().splitlines()) for file in out.glob("*/history.jsonl"))


def weights(out: Path) -> bytes:
    [file] = out.glob("*/weights.safetensors")
    return file.read_bytes()


def case(name: str, kills: int, draw: random.Random, folder: Path) -> bool:
    """Whether the killed training ends with the weights file of the undisturbed one."""
    words, whole, killed = CASES[name], folder / name / "whole", folder / name / "killed"
    begun = time.monotonic()
    if start(words, whole).wait():
        raise SystemExit(f"{name}: the undisturbed training failed")
    seconds = time.monotonic() - begun
    epochs, at = rows(whole), []
    for i in range(kills):
        process, until = start(words, killed), rows(killed) + draw.randint(1, epochs // (kills + 2))
        while rows(killed) < until and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))  # somewhere within an epoch, a measurement or the writing of a file
        process.send_signal(signal.SIGKILL if i % 2 else signal.SIGINT)
        process.wait()
        at.append(rows(killed))
        if finished(killed):
            raise SystemExit(f"{name}: finished before kill {i + 1}; give it more epochs")
    start(words, killed).wait()
    same = weights(whole) == weights(killed)
    print(f"{name:<9} {seconds:5.1f} s and {epochs} epochs undisturbed; killed after epochs {at}: "
          f"{'identical' if same else 'DIFFERENT'} weights file, {len(weights(whole)):,} bytes")  # fmt: skip
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = [case(name, args.kills, random.Random(args.seed), Path(folder)) for name in CASES]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
