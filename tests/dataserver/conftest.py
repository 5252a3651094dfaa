"""Fixtures of the data server's tests: unmodified pyarrow.flight clients against the real program.

pyarrow comes from .venv-data, which holds nothing else: the tests' own environment need not agree
with what the program is linked with."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from pathlib import Path

import pytest

from tests.harness.servers import REPO

PACKAGES = REPO / ".venv-data/lib/python{}.{}/site-packages".format(*sys.version_info[:2])
if str(PACKAGES) not in sys.path:
    sys.path.append(str(PACKAGES))

pytest.importorskip("pyarrow.flight", reason="scripts/bootstrap data has not been run")

from tests.dataserver.server import DataServer, dataserver_bin  # noqa: E402  (needs the path above)


@pytest.fixture(scope="session")
def binary() -> Path:
    if not os.access(dataserver_bin(), os.X_OK):
        pytest.skip(f"{dataserver_bin()} is not built")
    return dataserver_bin()


@pytest.fixture
def serve(binary, tmp_path):
    """`serve(*flags, data=FOLDER) -> DataServer`; all of them are stopped after the test."""
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:

        def start(*flags: str, data: Path | None = None, port: str = "0") -> DataServer:
            number = next(numbers)
            server = DataServer(
                data or tmp_path / f"data-{number}", tmp_path / f"log-{number}", flags, port
            )
            return stack.enter_context(server)

        yield start


@pytest.fixture
def server(serve) -> DataServer:
    return serve()
