"""Workers for the tests: of the Flower at hand, and of an earlier one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.servers import REPO
from tests.worker import peer

EARLIER = REPO / ".venv-earlier" / "bin" / "python"


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    return peer.install(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session", params=["current", "earlier"])
def python(request) -> str:
    """The interpreter of a user's environment."""
    if request.param == "current":
        return sys.executable
    if not os.access(EARLIER, os.X_OK):
        subprocess.run([REPO / "scripts" / "bootstrap", "earlier"], check=True)
    return str(EARLIER)


@pytest.fixture(scope="module")
def worker(python, sources, tmp_path_factory):
    """A worker that has loaded the app which does as it is told; for tests that leave it well."""
    with contextlib.closing(
        peer.Worker(python, tmp_path_factory.mktemp("worker"), sources)
    ) as one:
        one.expect("ready")
        assert one.load() == {"op": "loaded", "fork": True, "why": ""}
        yield one


@pytest.fixture
def job(worker):
    """A forked child of it."""
    with contextlib.closing(worker.job()) as one:
        yield one


@pytest.fixture
def start(sources, tmp_path):
    """`start(python=…, **environment) -> Worker`, ready: closed after the test."""
    with contextlib.ExitStack() as stack:

        def start(python=sys.executable, **environment) -> peer.Worker:
            one = peer.Worker(python, tmp_path, sources, **environment)
            stack.callback(one.close)
            one.expect("ready")
            return one

        yield start
