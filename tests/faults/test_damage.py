"""A stored file is damaged: that is noticed wherever a number or a picture would change, and named without a traceback.

Here a part of all cases; `python tests/faults/sweep.py FOLDER` tries all of them.
"""

import damage
import pytest
from harness import spread


@pytest.mark.parametrize(("place", "count"), [("run", 24), ("unfinished", 6), ("cache", 10), ("cache anew", 5)])
def test_damage_is_noticed(server, work, place, count):
    tried = [(case, verb) for case in damage.cases(work, server, names=[place]) for verb in case.verbs]
    tried = spread(tried, count)
    found = [(case, verb, *case.carry_out(verb)) for case, verb in tried]
    told = [f"{c.file} {c.damage}, {verb}: {came} {detail}" for c, verb, came, detail in found
            if came not in damage.FINE]  # fmt: skip
    assert not told, f"{len(told)} of {len(found)}:\n" + "\n".join(told)
