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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from vaelab.figures.differences import (
    DIFFERENCE_NOTE,
    VERDICT_SYMBOLS,
    Difference,
    difference_text,
    plot_differences,
)
from vaelab.figures.layout import save_figure
from vaelab.figures.study_figures import slugify
from vaelab.studies.definition import Claim, Experiment, Study
from vaelab.studies.expectations import Between
from vaelab.studies.multiplicity import StudyErrors
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
PLAIN = {  # what verdicts say to a person without statistics
    "supported": "true",
    "refuted": "false",
    "equal": "no difference that matters",
    "void": "cannot be judged",
    "undecided": "not known",
    "met": "met",
    "missed": "missed",
}
HEAD = """# Results

`python docs/results.py` writes this file from what `vaelab study` stored. First what each report claimed and what is
true; then, study by study, the numbers behind it.

| answer | verdict | meaning |
|---|---|---|
| ✓ true | supported | what the claim expects happens, by more than its margin |
| ✗ false | refuted | the opposite happens, by more than the margin |
| = no difference that matters | equal | whatever the difference is, it lies within the margin |
| ∅ cannot be judged | void | models that the claim rests on have failed; the number that shows it is given |
| ? not known | undecided | the repetitions do not tell |

Each setting is trained several times with other random numbers (seeds n). The margins were in the study files before
any run.
"""


def main(folders: list[Path]) -> None:
    parts = [HEAD, "## What was claimed, and what is true\n"]
    parts += ["\n".join(short_section(folder)) + "\n" for folder in folders]
    parts += ["\n".join(section(folder)) + "\n" for folder in folders]
    (HERE / "results.md").write_text("\n".join(parts), encoding="utf-8")


# The first page


def short_section(folder: Path) -> Iterator[str]:
    """A study for a person without statistics: each sentence, whether it is true, and the picture that shows it."""
    study, claims = read_study(folder), read_claims(folder)
    if not claims:
        return
    yield f"### {study.title}\n"
    yield f"{count_answers(claims)}\n"
    yield "| the claim | what is true |"
    yield "|---|---|"
    for name in dict.fromkeys(claim["id"] for claim in claims):
        rows = [claim for claim in claims if claim["id"] == name]
        yield f"| {rows[0]['sentence']} | {plain_answer(rows)} |"
    pictures = [save_differences(folder, study, claims, condition) for condition in study.conditions]
    for picture in list(filter(None, pictures))[:1]:
        yield f"\n![What decides the claims of {study.title}]({picture})"
    yield ""


def count_answers(claims: list[dict]) -> str:
    """How many answers there are of each kind."""
    counts = Counter(word_of(claim) for claim in claims)
    parts = [f"{count} {PLAIN[word]}" for word, count in counts.most_common()]
    return f"{len(claims)} answers: {', '.join(parts)}."


def plain_answer(rows: list[dict]) -> str:
    """What is true of a claim, under each condition where they differ."""
    answers = {}
    for claim in rows:
        answers.setdefault(short_answer(claim), []).append(claim["reading"])
    if len(answers) == 1:
        return next(iter(answers))
    return "<br>".join(f"{answer} ({', '.join(conditions)})" for answer, conditions in answers.items())


def short_answer(claim: dict) -> str:
    """The answer to one claim under one condition, with what makes it void."""
    word = word_of(claim)
    reason = ""
    if word == "void":
        numbers = [f", such as {run['number']}" for run in claim.get("sick", ())]
        reason = ": " + claim.get("note", "").split(":")[0] + "".join(numbers[:1])
    return f"{VERDICT_SYMBOLS[claim['verdict']]} **{PLAIN[word]}**{reason}"


def word_of(claim: dict) -> str:
    """The verdict as people read it; studies of earlier versions have no other word for it."""
    return claim.get("said", claim["verdict"])


# Pictures


def save_differences(folder: Path, study: Study, claims: list[dict], condition: str) -> str:
    """Draw what decides the claims under a condition; gives the path of the picture, or nothing."""
    shown = [stored_difference(claim) for claim in claims if claim["reading"] == condition]
    if not any(difference.values for difference in shown):
        return ""
    title = ", ".join(filter(None, [study.title, condition]))
    name = "-".join(filter(None, [folder.name, "claims", slugify(condition)]))
    target = HERE / "figures" / f"{name}.png"
    save_figure(plot_differences(shown, title, caption=DIFFERENCE_NOTE), target)
    with Image.open(target) as picture:
        save_small(picture, target)
    return f"figures/{target.name}"


def stored_difference(claim: dict) -> Difference:
    """What decides a claim, from claims.json; studies of earlier versions did not store the value of each seed."""
    note = claim.get("note", "")
    if claim.get("seeds_needed"):
        note = f"{claim['seeds_needed']} would decide it" + (f"; {note}" if note else "")
    shown = Difference(claim["sentence"], claim["verdict"], word_of(claim), note=note)
    contrasts = claim.get("contrasts") or []
    if not contrasts or claim["verdict"] == "void":
        return shown
    names = ("what", "wanted", "mean", "values", "bounds", "interval", "margin")
    return shown._replace(**{name: contrasts[0][name] for name in names if name in contrasts[0]})


def save_small(picture: Image.Image, target: Path) -> None:
    """Write a drawing with few colours."""
    target.parent.mkdir(exist_ok=True)
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


# The numbers behind it


def read_study(folder: Path) -> Study:
    """A study as it was carried out."""
    return parse_study((folder / "study.toml").read_text(encoding="utf-8"), folder.name)


def read_claims(folder: Path) -> list[dict]:
    """The claims of a study with their verdicts."""
    return json.loads((folder / "claims.json").read_text(encoding="utf-8"))


def section(folder: Path) -> Iterator[str]:
    """A study: what was run, its verdicts under each condition, and some of its figures."""
    study, claims = read_study(folder), read_claims(folder)
    timings = list(csv.DictReader(io.StringIO((folder / "timings.csv").read_text(encoding="utf-8"))))
    minutes = sum(float(row["seconds"]) for row in timings) / 60
    seeds_added = [row for row in read_looks(folder) if int(row["seeds"]) > len(study.seeds)]
    num_runs = len({trial.spec for trial in study.trials}) + sum(int(row["runs"]) for row in seeds_added)
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
    yield from look_text(folder, claims)
    yield from verdict_table(study, claims, {claim.id for _, claim in anchored})
    pictures = [save_differences(folder, study, claims, condition) for condition in study.conditions]
    for picture in list(filter(None, pictures))[1:]:
        yield f"![What decides the claims of {study.title}]({picture})\n"
    for name in SHOWN.get(folder.name, ()):
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            target = HERE / "figures" / f"{folder.name}-{name}.png"
            save_small(picture, target)
        yield f"![{study.title}: {name.replace('-', ' ')}](figures/{target.name})\n"


def study_command(folder: Path) -> str:
    """The command that made a study, without --out and --workers."""
    words = json.loads((folder / "origin.json").read_text(encoding="utf-8"))["command"].split()
    for flag in ("--out", "--workers"):
        if flag in words:
            position = words.index(flag)
            del words[position : position + 2]
    return " ".join(words)


def read_looks(folder: Path) -> list[dict[str, str]]:
    """What each look at the claims cost; studies of earlier versions do not say."""
    file = folder / "looks.csv"
    return read_rows(file) if file.exists() else []


def look_text(folder: Path, claims: list[dict]) -> Iterator[str]:
    """How many verdicts may be false, and what each look at the claims cost."""
    control = next((claim["false_verdicts"] for claim in claims if "false_verdicts" in claim), None)
    if control:
        yield f"{StudyErrors(**control).text}\n"
    looks = read_looks(folder)
    if len(looks) > 1:
        costs = [f"{look['seeds']} seeds: {look['runs']} runs, {float(look['minutes']):.1f} minutes" for look in looks]
        yield f"Seeds were added while claims were open. Looks at {'; '.join(costs)}.\n"


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
    """A verdict with the difference that decides it, its margin, and what its bounds cover."""
    word = f"{VERDICT_SYMBOLS[claim['verdict']]} **{word_of(claim)}**"
    notes = [claim["note"]] if claim.get("note") else []
    difference = stored_difference(claim)
    if claim["verdict"] == "undecided" and claim.get("seeds_needed"):
        notes.append(f"{claim['seeds_needed']} would decide it")
    if claim["verdict"] == "void" or claim["effect"] is None:
        return "<br>".join([word, *notes])
    if not difference.values:
        low, high = claim["interval"] or (claim["effect"], claim["effect"])
        shown = f"{claim['decided_by']}: {claim['effect']:.3g} [{low:.3g}, {high:.3g}], n = {claim['n']}"
        return "<br>".join([word, shown, *notes])
    shown = difference_text(difference)
    if difference.margin:
        shown += f", margin {difference.margin:.3g}"
    covers = f"over {claim['interval_covers']}" if claim.get("interval_covers") else ""
    return "<br>".join(filter(None, [word, shown, covers, *notes]))


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
