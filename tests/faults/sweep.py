"""Every operation of every scenario fails once, and every stored file is damaged: `python tests/faults/sweep.py`.

It takes long, goes on where it was stopped, and leaves findings.jsonl and a table in the folder WORK.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import damage
from harness import KINDS, Server, plain, scenarios


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="a folder for what is tried")
    parser.add_argument("--scenarios", nargs="*", help="only these; `damage` is one of them")
    parser.add_argument("--places", nargs="*", default=damage.PLACES, help="of damage")
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--each", type=int, help="only the first so many operations of one name, path and kind")
    parser.add_argument("--every", type=int, default=1, help="only every so many operations")
    parser.add_argument("--forbid", action="store_true", help="take the user's rights to each file and folder instead")
    given = parser.parse_args()
    work = given.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    server = Server(work)
    if not given.forbid:
        injected(work, server, given)
    if given.forbid:
        forbidden(work, server, given)
    elif not given.scenarios or "damage" in given.scenarios:
        damaged(work, server, given.every, given.places)
    server.close()
    summary(work)


def journal(work, name):
    """A file of JSON lines, and what it holds already."""
    file = work / name
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return file, rows


def injected(work, server, given):
    file, rows = journal(work, "injected.jsonl")
    done = {(row["scenario"], row["n"], row["kind"]) for row in rows}
    with file.open("a") as out:
        for scenario in scenarios(work, server, given.scenarios or None).values():
            begun, tried = time.monotonic(), 0
            for n, kind in scenario.cases(given.kinds, given.each, given.every):
                if (scenario.name, n, kind) in done:
                    continue
                wrong, hit = scenario.case(n, kind)
                row = {"scenario": scenario.name, "n": n, "kind": kind, "hit": hit, "wrong": wrong}
                print(json.dumps(row), file=out, flush=True)
                tried += 1
            print(f"{scenario.name}: {tried} cases in {time.monotonic() - begun:.0f} s", flush=True)


def forbidden(work, server, given):
    """Every file and folder of every scenario, without the rights to read or to write it."""
    file, rows = journal(work, "forbidden.jsonl")
    done = {(row["scenario"], row["place"], row["mode"]) for row in rows}
    with file.open("a") as out:
        for scenario in scenarios(work, server, given.scenarios or None).values():
            _ = scenario.clean
            scenario.fresh()
            for path, mode in list(scenario.places)[:: given.every]:
                row = {
                    "scenario": scenario.name,
                    "place": plain(str(path.relative_to(scenario.root.parent))),
                    "mode": f"{mode:o}",
                }
                if tuple(row.values()) not in done:
                    wrong, first = scenario.forbidden(path, mode)
                    row |= {"status": first.status, "said": first.err[-300:], "wrong": wrong}
                    print(json.dumps(row), file=out, flush=True)


def damaged(work, server, every, places):
    file, rows = journal(work, "damaged.jsonl")
    done = {(row["place"], row["file"], row["damage"], row["verb"]) for row in rows}
    with file.open("a") as out:
        for case in damage.cases(work, server, every, places):
            for verb in case.verbs:
                if (case.place, case.file, case.damage, verb) not in done:
                    row = {"place": case.place, "file": case.file, "damage": case.damage, "verb": verb}
                    row["came"], row["detail"] = case.carry_out(verb)
                    print(json.dumps(row), file=out, flush=True)


def summary(work):
    """Print, as tables of Markdown, what came of all cases so far."""
    _, rows = journal(work, "injected.jsonl")
    print("| command | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
    for name in dict.fromkeys(row["scenario"] for row in rows):
        cells = [wrong_of([row for row in rows if (row["scenario"], row["kind"]) == (name, kind)]) for kind in KINDS]
        print(f"| {name} | " + " | ".join(cells) + " |")
    _, rows = journal(work, "forbidden.jsonl")
    for name in dict.fromkeys(row["scenario"] for row in rows):
        print(f"forbidden, {name}: {wrong_of([row for row in rows if row['scenario'] == name])}")
    _, rows = journal(work, "damaged.jsonl")
    print("| stored files of | " + " | ".join(damage.SORTS) + " |\n|---|" + "---|" * len(damage.SORTS))
    for name in dict.fromkeys(row["place"] for row in rows):
        counts = Counter(row["came"] for row in rows if row["place"] == name)
        print(f"| {name} | " + " | ".join(str(counts[sort]) for sort in damage.SORTS) + " |")


def wrong_of(rows):
    """How many cases went wrong, and how many there are."""
    return f"{sum(bool(row['wrong']) for row in rows)} of {len(rows)}" if rows else ""


if __name__ == "__main__":
    main()
