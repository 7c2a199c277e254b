"""Write results.md, and the figures that it shows, from the folders of finished studies.

    for name in digits mnist cifar10 faces textbook iwae objectives calibration; do vaelab study $name; done
    vaelab study calibration --data faces --epochs 12 --out faces
    python docs/results.py studies/{digits,mnist,cifar10,faces,textbook,iwae,objectives,calibration} \
        faces/studies/calibration

Of faces numbers only: no picture of a person leaves the machine it lies on.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from vaelab.studies.definition import Claim, Experiment, Study
from vaelab.studies.hypotheses import Between
from vaelab.studies.parsing import parse_study

HERE = Path(__file__).parent
SHOWN = {
    "digits": ["B1-curves-KL-weight-1", "B2-bars-KL-weight-1"],
    "mnist": ["B1-bars-KL-weight-1", "B2-curves-KL-weight-1", "B2-reconstructions-KL-weight-0",
              "B4-features-KL-weight-1"],
    "cifar10": ["B2-reconstructions-KL-weight-0", "B3-curves-KL-weight-1", "B5-features-KL-weight-1"],
}  # fmt: skip
ANCHORS = ("textbook", "iwae")  # studies whose claims are published figures
TABLES = {"calibration": ["mse", "psnr", "ssim", "samples.distance", "kl"]}  # metrics whose values are shown
COLOURS = 64  # a drawing needs no more, and its file is a third as large
HEAD = """# Results

Both reports, carried out; then published figures, and what objectives and likelihoods are known for. A claim is
**supported** if the 95 % paired-t intervals of its differences over seeds, Holm-corrected within the claim, lie wholly
where the claim wants them, **refuted** if one lies wholly elsewhere, else **undecided**. Each cell shows the difference
that decides. Margins stood in the study files before any run. This file is written by `python docs/results.py` from
what `vaelab study` left.
"""


def main(folders: list[Path]) -> None:
    parts = [HEAD, *("\n".join(section(folder)) + "\n" for folder in folders)]
    (HERE / "results.md").write_text("\n".join(parts), encoding="utf-8")


def section(folder: Path) -> Iterator[str]:
    """A study: what was run, its verdicts reading by reading, and a few of its figures."""
    study = parse_study((folder / "study.toml").read_text(encoding="utf-8"), folder.name)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    timings = list(csv.DictReader(io.StringIO((folder / "timings.csv").read_text(encoding="utf-8"))))
    minutes = sum(float(row["seconds"]) for row in timings) / 60
    wanted = len({trial.spec for trial in study.trials})
    yield f"## {study.title}{f', on {study.data}' if folder.name in TABLES else ''}\n"
    yield f"`{command(folder)}`: {len(timings)} of {wanted} runs, {len(study.seeds)} seeds; their training"
    yield f"adds up to {minutes:.0f} minutes ({timings[0]['precision']}, {timings[0]['machine']}, beside other work).\n"
    if len(timings) < wanted:
        yield f"**Partial**: {wanted - len(timings)} runs are missing.\n"
    anchored = [(e, c) for e in study.experiments for c in e.claims if folder.name in ANCHORS and published(c)]
    if anchored:
        yield f"{study.about.strip()}\n"
        yield from anchors(anchored, rows(folder / "table.csv"), {row["run"]: row for row in timings})
    if folder.name in TABLES:
        yield from values(TABLES[folder.name], rows(folder / "table.csv"))
    yield from verdicts(study, claims, {claim.id for _, claim in anchored})
    for name in SHOWN.get(folder.name, ()):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            target = HERE / "figures" / f"{folder.name}-{name}.png"
            target.parent.mkdir(exist_ok=True)
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
        yield f"![{study.title}: {name.replace('-', ' ')}](figures/{target.name})\n"


def command(folder: Path) -> str:
    """The command that made a study, without where it was put and how many worked on it."""
    words = json.loads((folder / "origin.json").read_text(encoding="utf-8"))["command"].split()
    left = [i for i, word in enumerate(words) if word in ("--out", "--workers")]
    return " ".join(word for i, word in enumerate(words) if i not in left and i - 1 not in left)


def rows(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))


def published(claim: Claim) -> Between | None:
    """The bounds that a claim puts around a published figure."""
    [expected, *more] = claim.expectations
    finite = isinstance(expected, Between) and math.isfinite(expected.low) and math.isfinite(expected.high)
    return expected if finite and not more and len(claim.quantities) == 1 else None  # type: ignore[return-value]


def anchors(anchored: list[tuple[Experiment, Claim]], table: list[dict], timings: dict[str, dict]) -> Iterator[str]:
    """Published figures, and what came of them here: a row for each."""
    yield "| anchor | published | tolerance | here | difference | minutes of training a run |"
    yield "|---|---|---|---|---|---|"
    for experiment, claim in anchored:
        [measure], [setting], bounds = claim.quantities, claim.settings(experiment), published(claim)
        assert bounds is not None
        mine = [row for row in table if row["experiment"] == experiment.id and row["setting"] == setting.name]
        found = [float(row[measure.text]) for row in mine]
        if not found:
            continue
        figure, mean = (bounds.low + bounds.high) / 2, statistics.mean(found)
        if len(found) > 1:
            error = f"{statistics.stdev(found) / math.sqrt(len(found)):.2f} over {len(found)} seeds"
        else:
            error = f"{float(mine[0]['full_evidence.error_over_images']):.2f} over images, one seed"
        minutes = statistics.mean(float(timings[row["run"]]["seconds"]) for row in mine) / 60
        said = f"{claim.sentence}<br>*{claim.source}*", f"{figure:.2f}", f"{bounds.high - figure:.2f}"
        yield "| " + " | ".join([*said, f"{mean:.2f} ± {error}", f"{mean - figure:+.2f}", f"{minutes:.1f}"]) + " |"
    yield ""


def values(metrics: list[str], table: list[dict]) -> Iterator[str]:
    """Mean and standard deviation over seeds of metrics, a row a setting."""
    yield "| setting | " + " | ".join(metrics) + " |"
    yield "|---" * (1 + len(metrics)) + "|"
    for setting in dict.fromkeys(row["setting"] for row in table):
        mine = [row for row in table if row["setting"] == setting]
        cells = []
        for name in metrics:
            found = [float(row[name]) for row in mine]
            deviation = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.4g}{deviation}")
        yield f"| {setting} | " + " | ".join(cells) + " |"
    yield f"\nMean ± standard deviation over {len({row['seed'] for row in table})} seeds, test images.\n"


def verdicts(study: Study, claims: list[dict], elsewhere: set[str]) -> Iterator[str]:
    """A row a claim, a column a reading; but for those that stand elsewhere."""
    if elsewhere >= {claim["id"] for claim in claims}:
        return
    readings = list(study.conditions)
    yield "| claim | " + " | ".join(reading or "verdict" for reading in readings) + " |"
    yield "|---" * (1 + len(readings)) + "|"
    for experiment in study.experiments:
        for claim in (c for c in experiment.claims if c.id not in elsewhere):
            cells = {c["reading"]: cell(c) for c in claims if c["id"] == claim.id}
            sentence = f"{claim.id}: {claim.sentence}<br>*{claim.expectation_text}*"
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
