"""Write results.md, and the figures that it shows, from the folders of finished studies.

    vaelab study digits && vaelab study mnist && vaelab study cifar10 && vaelab study faces
    python docs/results.py studies/digits studies/mnist studies/cifar10 studies/faces

Of faces numbers only: no picture of a person leaves the machine it lies on.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from vaelab.protocol import Study, parse

HERE = Path(__file__).parent
SHOWN = {
    "digits": ["B1-curves-KL-weight-1", "B2-bars-KL-weight-1"],
    "mnist": ["B1-bars-KL-weight-1", "B2-curves-KL-weight-1", "B2-reconstructions-KL-weight-0",
              "B4-features-KL-weight-1"],
    "cifar10": ["B2-reconstructions-KL-weight-0", "B3-curves-KL-weight-1", "B5-features-KL-weight-1"],
}  # fmt: skip
COLOURS = 64  # a drawing needs no more, and its file is a third as large
HEAD = """# Results

Both reports, carried out. A claim is **supported** if the 95 % paired-t intervals of its differences over seeds,
Holm-corrected within the claim, lie wholly where the claim wants them, **refuted** if one lies wholly elsewhere, else
**undecided**. Each cell shows the difference that decides. Margins stood in the study files before any run. This file
is written by `python docs/results.py` from what `vaelab study` left.
"""


def main(folders: list[Path]) -> None:
    parts = [HEAD, *("\n".join(section(folder)) + "\n" for folder in folders)]
    (HERE / "results.md").write_text("\n".join(parts), encoding="utf-8")


def section(folder: Path) -> Iterator[str]:
    """A study: what was run, its verdicts reading by reading, and a few of its figures."""
    study = parse((folder / "study.toml").read_text(encoding="utf-8"), folder.name)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    timings = list(csv.DictReader(io.StringIO((folder / "timings.csv").read_text(encoding="utf-8"))))
    minutes = sum(float(row["seconds"]) for row in timings) / 60
    wanted = len({trial.spec for trial in study.trials})
    yield f"## {study.title}\n"
    yield f"`vaelab study {folder.name}`: {len(timings)} of {wanted} runs, {len(study.seeds)} seeds; their training"
    yield f"adds up to {minutes:.0f} minutes ({timings[0]['precision']}, {timings[0]['machine']}, beside other work).\n"
    if len(timings) < wanted:
        yield f"**Partial**: {wanted - len(timings)} runs are missing.\n"
    yield from verdicts(study, claims)
    for name in SHOWN.get(folder.name, ()):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            target = HERE / "figures" / f"{folder.name}-{name}.png"
            target.parent.mkdir(exist_ok=True)
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
        yield f"![{study.title}: {name.replace('-', ' ')}](figures/{target.name})\n"


def verdicts(study: Study, claims: list[dict]) -> Iterator[str]:
    """A row a claim, a column a reading."""
    readings = list(study.readings)
    yield "| claim | " + " | ".join(reading or "verdict" for reading in readings) + " |"
    yield "|---" * (1 + len(readings)) + "|"
    for experiment in study.experiments:
        for claim in experiment.claims:
            cells = {c["reading"]: cell(c) for c in claims if c["id"] == claim.id}
            sentence = f"{claim.id}: {claim.sentence}<br>*{claim.expected}*"
            yield f"| {sentence} | " + " | ".join(cells.get(reading, "") for reading in readings) + " |"
    yield ""


def cell(claim: dict) -> str:
    """A verdict with the difference that decides it."""
    if claim["interval"] is None:
        return f"{claim['verdict']}<br>{claim.get('note', 'one seed')}"
    low, high = (f"{end:.3g}" for end in claim["interval"])
    return f"**{claim['verdict']}**<br>{claim['decided_by']}: {claim['effect']:.3g} [{low}, {high}], n = {claim['n']}"


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
