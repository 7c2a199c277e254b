"""A file or folder may not be read or written: that is said in a sentence, and afterwards the command does its work.

Here a part of all cases; `python tests/faults/sweep.py FOLDER --forbid` tries all of them.
"""

import pytest
from harness import scenarios, spread


@pytest.mark.parametrize(("name", "count"), [("evaluate", 5), ("cache", 5), ("list", 4), ("sizes", 3)])
def test_what_is_forbidden_is_named(server, work, name, count):
    scenario = scenarios(work, server, [name])[name]
    _ = scenario.clean
    scenario.fresh()
    found = [(path, mode, *scenario.forbidden(path, mode)) for path, mode in spread(scenario.places, count)]
    told = [f"{path} {mode:o} ({first.err}): {wrong}" for path, mode, wrong, first in found if wrong]
    assert not told, f"{len(told)} of {len(found)}:\n" + "\n".join(told)
    assert {first.status for *_, first in found} <= {0, 2, 3}
