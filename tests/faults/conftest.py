"""One warm process for all tests of faults."""

import sys

import pytest
from harness import Server, compiler


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def server(work):
    if not sys.platform.startswith("linux"):
        pytest.skip("faults are injected by LD_PRELOAD, which Linux has")
    if not compiler():
        pytest.skip("no C compiler (gcc, g++ or cc) is found, with which the injector is made")
    server = Server(work)
    yield server
    server.close()
