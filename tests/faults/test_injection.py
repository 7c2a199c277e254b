"""An operation on a file fails: a sentence and no traceback, and the same command again comes to the same bytes.

Here a part of all cases; `python tests/faults/sweep.py FOLDER` tries all of them.
"""

import os
import subprocess
import sys

import pytest
from harness import KINDS, scenarios, spread

PROBE = """
import os, sys
fd = os.open("a", os.O_RDWR | os.O_CREAT)
copy = os.dup(fd)
os.rename("a", "b")
for n in range(3):
    try:
        print(os.write(copy, b"1234"), flush=True)
    except OSError as error:
        print(error.errno, flush=True)
print(open("b").read() if len(sys.argv) == 1 else "", flush=True)
"""


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("kind", "n", "expected"), [
    ("ENOSPC", 4, ["4", "28", "4", "12341234"]),  # open, rename, write, write
    ("FULL", 4, ["4", "28", "28", "1234"]),
    ("SHORT", 2, ["4", "2", "4", "1234121234"]),
    ("KILL", 4, ["4"]),
    ("EIO", 5, ["4", "4", "5", "12341234"]),
])  # fmt: skip
def test_the_injector_follows_descriptors(work, tmp_path, kind, n, expected):
    env = os.environ | {"LD_PRELOAD": str(work / "inject.so"), "VAELAB_FAULT_DIR": str(tmp_path),
                        "VAELAB_FAULT_N": str(n), "VAELAB_FAULT_KIND": kind}  # fmt: skip
    command = [sys.executable, "-S", "-E", "-c", PROBE]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == expected, done.stderr
    assert done.returncode == (-9 if kind == "KILL" else 0)
    if kind == "KILL":
        assert (tmp_path / "b").read_text() == "123412"


@pytest.mark.parametrize(("name", "count"), [("train", 10), ("cache", 10), ("evaluate", 6), ("sample", 4)])
def test_a_fault_leaves_no_trace(server, work, name, count):
    scenario = scenarios(work, server, [name])[name]
    tried = spread([case for kind in KINDS for case in scenario.cases([kind], each=1)], count)
    found = [(case, *scenario.case(*case)) for case in tried]
    told = [f"{kind} {n} ({hit}): {wrong}" for (n, kind), wrong, hit in found if wrong]
    assert not told, f"{len(told)} of {len(found)}:\n" + "\n".join(told)
