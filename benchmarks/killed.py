"""Kill a training ten times, start it again each time, and compare its weights with those of a training left alone.

    python benchmarks/killed.py                       # the small MLP and the network of report A, on bundled digits
    python benchmarks/killed.py --kills 20 --seed 3

The moments are random, over the whole training. Half of the kills are SIGKILL, half SIGINT (Ctrl-C).
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


def is_finished(out: Path) -> bool:
    return any(out.glob("*/metrics.json"))


def count_epochs(out: Path) -> int:
    """How many epochs a run has completed."""
    return sum(len(file.read_text().splitlines()) for file in out.glob("*/history.jsonl"))


def read_weights(out: Path) -> bytes:
    [file] = out.glob("*/weights.safetensors")
    return file.read_bytes()


def run_case(name: str, kills: int, rng: random.Random, folder: Path) -> bool:
    """Whether the killed training ends with the weights file of the training that was left alone."""
    words = CASES[name]
    undisturbed = folder / name / "undisturbed"
    killed = folder / name / "killed"
    started = time.monotonic()
    if start(words, undisturbed).wait():
        raise SystemExit(f"{name}: the undisturbed training failed")
    seconds = time.monotonic() - started
    epochs = count_epochs(undisturbed)
    killed_after = []
    for i in range(kills):
        kill_signal = signal.SIGKILL if i % 2 else signal.SIGINT
        kill_training(words, killed, rng.randint(1, epochs // (kills + 2)), kill_signal, rng)
        killed_after.append(count_epochs(killed))
        if is_finished(killed):
            raise SystemExit(f"{name}: finished before kill {i + 1}; give it more epochs")
    start(words, killed).wait()
    weights = read_weights(undisturbed)
    same = weights == read_weights(killed)
    print(
        f"{name:<9} {seconds:5.1f} s and {epochs} epochs undisturbed; killed after epochs {killed_after}: "
        f"{'identical' if same else 'DIFFERENT'} weights file, {len(weights):,} bytes"
    )
    return same


def kill_training(words: str, out: Path, epochs: int, kill_signal: signal.Signals, rng: random.Random) -> None:
    """Start a training, or continue it, and kill it some epochs later."""
    process = start(words, out)
    last_epoch = count_epochs(out) + epochs
    while count_epochs(out) < last_epoch and process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))  # somewhere within an epoch, an evaluation or the writing of a file
    process.send_signal(kill_signal)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = [run_case(name, args.kills, random.Random(args.seed), Path(folder)) for name in CASES]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
