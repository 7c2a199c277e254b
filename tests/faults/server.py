"""A warm process that carries out command lines of vaelab in forks of itself, with a fault in each.

It is started once under LD_PRELOAD with the injector, imports what is heavy and computes nothing. Then each line of its
standard input is a case, as JSON; each line of its answer what came of it:

    {"argv", "cwd", "env", "out", "err", "timeout", "in_workers", "user", "fault": [folder, n, kind, log] or null}
    {"status"}

The status is that of the process; 137 if it was killed; null if it hung and had to be.
"""

import atexit
import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import time
import traceback

HEAVY = [  # of what vaelab imports
    "torch", "torch.nn.functional", "torch._dynamo", "torch._refs", "sympy", "numpy",
    "scipy.stats", "scipy.optimize", "scipy.sparse",
    "sklearn.datasets", "sklearn.cluster", "sklearn.manifold", "sklearn.linear_model", "sklearn.decomposition",
    "openTSNE", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
    "mpl_toolkits.mplot3d", "safetensors.torch", "pyarrow", "pyarrow.parquet", "PIL.Image", "PIL.ImageOps",
    "joblib", "cyclopts", "cyclopts.exceptions", "jinja2", "plotly.offline", "rich.progress", "filelock",
    "threadpoolctl", "markupsafe", "tomllib", "joblib.externals.loky.process_executor",
    "concurrent.futures", "multiprocessing.pool", "encodings.utf_16_be", "encodings.idna",
]  # fmt: skip


SHORTER = {  # what takes long and touches no file: module, name, and a smaller value
    ("training.checkpoints", "MIN_TRAINING_RATIO"): -1,  # a state is stored after each epoch, whatever the clock says
    ("training.budget", "MIN_TIMED_STEPS"): 1,
    ("training.budget", "WARM_UP_STEPS"): 0,
    ("training.budget", "MONITORED_SAMPLE"): 10,
    ("training.budget", "EVALUATED_SAMPLE"): 10,
    ("analysis.classifier", "MIN_STEPS"): 2,
    ("analysis.classifier", "MAX_IMAGES_SEEN"): 256,
}


def shorten(package):
    """Take the time out of what a verb computes, so that a case takes well under a second."""
    for (module, name), value in SHORTER.items():
        where = sys.modules[f"{package}.{module}"]
        assert hasattr(where, name), f"{module} has no {name} any more"
        setattr(where, name, value)
    budget = sys.modules[f"{package}.training.budget"]
    time_steps = budget.time_steps
    budget.time_steps = lambda job, seconds: time_steps(job, 0.0)
    projections = sys.modules[f"{package}.analysis.projections"]
    projections.SMALL_SCHEDULE = [phase._replace(steps=2) for phase in projections.SMALL_SCHEDULE]
    sys.modules["plotly.offline"].get_plotlyjs = lambda: "plotly"  # five megabytes in every report
    translate_templates_once(sys.modules[f"{package}.reporting.document"])
    figure = sys.modules["matplotlib.figure"].Figure
    savefig = figure.savefig
    figure.savefig = lambda self, *args, **options: savefig(self, *args, **options | {"dpi": 20})


def translate_templates_once(document):
    """Let jinja keep what it made of the templates of a report, and make it here."""
    translated, environments = {}, []
    translate = document.Environment.compile

    def compile_once(self, source, name=None, *args, **options):
        environments.append(self)
        if source not in translated:
            translated[source] = translate(self, source, name, *args, **options)
        return translated[source]

    document.Environment.compile = compile_once
    with contextlib.suppress(Exception):  # there are no values, but by then there is an environment
        document._render(object(), {})
    for name in environments[0].list_templates(["html"]):
        environments[0].get_template(name)


def warm():
    """Import all that a verb might; gives the console script."""
    [script] = importlib.metadata.entry_points(group="console_scripts", name="vaelab")
    function = script.load()
    package = importlib.import_module(script.module.partition(".")[0])
    ours = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in HEAVY + [n for n in ours if not n.endswith("__main__")]:
        with contextlib.suppress(Exception):  # an optional dependency
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        sys.modules["PIL.Image"].init()
    shorten(package.__name__)
    return function


def carry_out(function, case):
    """In a fork: one command line, its output in files. Does not return."""
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), (1, case["out"], WRITE), (2, case["err"], WRITE)):
        fd = os.open(name, flags, 0o600)
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = (open(i, "r" if i == 0 else "w", encoding="utf-8") for i in range(3))  # noqa: PTH123, SIM115
    os.environ.update(case["env"])
    tempfile.tempdir = None
    os.chdir(case["cwd"])
    if case.get("user"):  # who, unlike root, may not read what is forbidden
        os.setgroups([])
        os.setgid(case["user"])
        os.setuid(case["user"])
    sys.argv = ["vaelab", *case["argv"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if case["fault"]:
        where, n, kind, log = case["fault"]
        if case.get("in_workers"):
            names = ("VAELAB_FAULT_DIR", "VAELAB_FAULT_N", "VAELAB_FAULT_KIND", "VAELAB_FAULT_LOG")
            os.environ.update(zip(names, (where, str(n), kind, log), strict=True))
        elif ctypes.CDLL(None).fault_arm(where.encode(), ctypes.c_long(n), kind.encode(), log.encode()):
            os._exit(99)
    try:
        code = function()
    except SystemExit as left:
        code = left.code
    except BaseException:  # as the interpreter would say it
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(int(code or 0))


WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def wait(pid, seconds):
    """The status of a child; None if it had to be killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        time.sleep(0.003)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    function = warm()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.close(answers.fileno())
            carry_out(function, case)
        print(json.dumps({"status": wait(pid, case["timeout"])}), file=answers, flush=True)


if __name__ == "__main__":
    main()
