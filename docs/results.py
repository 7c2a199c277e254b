"""Write results.md and its figures from the folders of finished studies.

    for name in digits mnist cifar10 faces textbook iwae objectives calibration; do vaelab study $name; done
    vaelab study calibration --data faces --epochs 12 --out faces
    python docs/results.py studies/{digits,mnist,cifar10,faces,textbook,iwae,objectives,calibration} \
        faces/studies/calibration

Of the studies on faces only numbers are written: no picture of a person leaves the machine.
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
from vaelab.studies.expectations import Between
from vaelab.studies.parsing import parse_study

HERE = Path(__file__).parent
SHOWN = {
    "digits": ["B1-curves-KL-weight-1", "B2-bars-KL-weight-1"],
    "mnist": [
        "B1-bars-KL-weight-1",
        "B2-curves-KL-weight-1",
        "B2-reconstructions-KL-weight-0",
        "B4-features-KL-weight-1",
    ],
    "cifar10": ["B2-reconstructions-KL-weight-0", "B3-curves-KL-weight-1", "B5-features-KL-weight-1"],
}
ANCHORS = ("textbook", "iwae")  # studies whose claims are published figures
TABLES = {"calibration": ["mse", "psnr", "ssim", "samples.distance", "kl"]}  # metrics whose values are shown
COLOURS = 64  # a drawing needs no more, and its file is a third as large
HEAD = """# Results

The two reports, then published figures, then what objectives and likelihoods are known for. A claim is **supported** if
the 95 % paired t intervals of its differences over seeds, Holm-corrected within the claim, lie wholly where the claim
expects them. It is **refuted** if one of them lies wholly outside, and **undecided** otherwise. Each cell shows the
difference that decides. The margins were in the study files before any run. `python docs/results.py` writes this file
from what `vaelab study` stored.
"""


def main(folders: list[Path]) -> None:
    parts = [HEAD, *("\n".join(section(folder)) + "\n" for folder in folders)]
    (HERE / "results.md").write_text("\n".join(parts), encoding="utf-8")


def section(folder: Path) -> Iterator[str]:
    """A study: what was run, its verdicts under each condition, and some of its figures."""
    study = parse_study((folder / "study.toml").read_text(encoding="utf-8"), folder.name)
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    timings = list(csv.DictReader(io.StringIO((folder / "timings.csv").read_text(encoding="utf-8"))))
    minutes = sum(float(row["seconds"]) for row in timings) / 60
    num_runs = len({trial.spec for trial in study.trials})
    yield f"## {study.title}{f', on {study.data}' if folder.name in TABLES else ''}\n"
    seeds = "1 seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds"
    machine = f"{timings[0]['precision']}, {timings[0]['machine']}"
    yield f"`{study_command(folder)}`: {len(timings)} of {num_runs} runs, {seeds}. The training took"
    yield f"{minutes:.0f} minutes in all ({machine}; the machine did other work at the same time).\n"
    if len(timings) < num_runs:
        yield f"**Partial**: {num_runs - len(timings)} runs are missing.\n"
    anchored = find_anchored_claims(study) if folder.name in ANCHORS else []
    if anchored:
        yield f"{study.about.strip()}\n"
        yield from anchor_table(anchored, read_rows(folder / "table.csv"), {row["run"]: row for row in timings})
    if folder.name in TABLES:
        yield from metric_table(TABLES[folder.name], read_rows(folder / "table.csv"))
    yield from verdict_table(study, claims, {claim.id for _, claim in anchored})
    for name in SHOWN.get(folder.name, ()):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            target = HERE / "figures" / f"{folder.name}-{name}.png"
            target.parent.mkdir(exist_ok=True)
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
        yield f"![{study.title}: {name.replace('-', ' ')}](figures/{target.name})\n"


def study_command(folder: Path) -> str:
    """The command that made a study, without --out and --workers."""
    words = json.loads((folder / "origin.json").read_text(encoding="utf-8"))["command"].split()
    for flag in ("--out", "--workers"):
        if flag in words:
            position = words.index(flag)
            del words[position : position + 2]
    return " ".join(words)


def read_rows(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))


def find_anchored_claims(study: Study) -> list[tuple[Experiment, Claim]]:
    """The claims of a study that compare with a published figure."""
    anchored = []
    for experiment in study.experiments:
        anchored += [(experiment, claim) for claim in experiment.claims if published_bounds(claim)]
    return anchored


def published_bounds(claim: Claim) -> Between | None:
    """The bounds that a claim puts around a published figure."""
    [expected, *more] = claim.expectations
    finite = isinstance(expected, Between) and math.isfinite(expected.low) and math.isfinite(expected.high)
    return expected if finite and not more and len(claim.quantities) == 1 else None  # type: ignore[return-value]


def anchor_table(
    anchored: list[tuple[Experiment, Claim]], table: list[dict[str, str]], timings: dict[str, dict[str, str]]
) -> Iterator[str]:
    """Published figures with the results here, one row for each."""
    yield "| anchor | published | tolerance | here | difference | minutes of training per run |"
    yield "|---|---|---|---|---|---|"
    for experiment, claim in anchored:
        [quantity], [setting], bounds = claim.quantities, claim.settings(experiment), published_bounds(claim)
        assert bounds is not None
        rows = [row for row in table if row["experiment"] == experiment.id and row["setting"] == setting.name]
        values = [float(row[quantity.text]) for row in rows]
        if not values:
            continue
        published, mean = (bounds.low + bounds.high) / 2, statistics.mean(values)
        if len(values) > 1:
            error = f"{statistics.stdev(values) / math.sqrt(len(values)):.2f} over {len(values)} seeds"
        else:
            error = f"{float(rows[0]['full_evidence.error_over_images']):.2f} over images, one seed"
        minutes = statistics.mean(float(timings[row["run"]]["seconds"]) for row in rows) / 60
        cells = [
            f"{claim.sentence}<br>*{claim.source}*",
            f"{published:.2f}",
            f"{bounds.high - published:.2f}",
            f"{mean:.2f} ± {error}",
            f"{mean - published:+.2f}",
            f"{minutes:.1f}",
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def metric_table(metrics: list[str], table: list[dict[str, str]]) -> Iterator[str]:
    """Mean and standard deviation over seeds of some metrics, one row for each setting."""
    yield "| setting | " + " | ".join(metrics) + " |"
    yield "|---" * (1 + len(metrics)) + "|"
    for setting in dict.fromkeys(row["setting"] for row in table):
        rows = [row for row in table if row["setting"] == setting]
        cells = []
        for name in metrics:
            values = [float(row[name]) for row in rows]
            deviation = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4g}{deviation}")
        yield f"| {setting} | " + " | ".join(cells) + " |"
    yield f"\nMean ± standard deviation over {len({row['seed'] for row in table})} seeds, test images.\n"


def verdict_table(study: Study, claims: list[dict], anchored_ids: set[str]) -> Iterator[str]:
    """One row for each claim and one column for each condition, without the claims of `anchor_table`."""
    if anchored_ids >= {claim["id"] for claim in claims}:
        return
    conditions = list(study.conditions)
    yield "| claim | " + " | ".join(condition or "verdict" for condition in conditions) + " |"
    yield "|---" * (1 + len(conditions)) + "|"
    for experiment in study.experiments:
        for claim in experiment.claims:
            if claim.id in anchored_ids:
                continue
            verdicts = {row["reading"]: format_verdict(row) for row in claims if row["id"] == claim.id}
            sentence = f"{claim.id}: {claim.sentence}<br>*{claim.expectation_text}*"
            yield f"| {sentence} | " + " | ".join(verdicts.get(condition, "") for condition in conditions) + " |"
    yield ""


def format_verdict(claim: dict) -> str:
    """A verdict with the difference that decides it."""
    if claim["interval"] is None:
        return f"{claim['verdict']}<br>{claim.get('note', 'one seed')}"
    low, high = (f"{end:.3g}" for end in claim["interval"])
    return f"**{claim['verdict']}**<br>{claim['decided_by']}: {claim['effect']:.3g} [{low}, {high}], n = {claim['n']}"


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
