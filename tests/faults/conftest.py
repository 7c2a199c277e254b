"""One warm process for all tests of faults."""

import sys

import pytest
from harness import Server, compiler


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    base = tmp_path_factory.getbasetemp()
    for part in (folder, base, base.parent):
        if part != base.parent or part.name.startswith("pytest-of-"):
            part.chmod(0o755)  # a case may run with the rights of another user
    return folder


@pytest.fixture(scope="session")
def server(work):
    if not sys.platform.startswith("linux"):
        pytest.skip("faults are injected by LD_PRELOAD, which Linux has")
    if not compiler():
        pytest.skip("no C compiler (gcc, g++ or cc) is found, with which the injector is made")
    server = Server(work)
    yield server
    server.close()
