"""Kill a training at ten moments, start it again each time, and compare with an undisturbed one, byte for byte.

    python benchmarks/killed.py                       # the small MLP and the network of report A, on bundled digits
    python benchmarks/killed.py --kills 20 --seed 3

The moments are drawn from start-up on; half of the kills are SIGKILL, half SIGINT (Ctrl-C).
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
    hits = 0
    while hits < kills and not finished(killed):
        process = start(words, killed)
        # Start-up takes about four seconds; a tenth of the training each time leaves some for the last kill.
        time.sleep(draw.uniform(1, 4 + 2 * seconds / kills))
        process.send_signal(signal.SIGKILL if hits % 2 else signal.SIGINT)
        process.wait()
        hits += not finished(killed)
    rows = len(next(killed.glob("*/history.jsonl")).read_text().splitlines())
    start(words, killed).wait()
    same = weights(whole) == weights(killed)
    print(f"{name:<9} {seconds:5.1f} s undisturbed; killed {hits} times, the last after {rows} epochs: "
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
