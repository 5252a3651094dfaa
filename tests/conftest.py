"""Fixtures of every Python test. `pytest tests` from the repository root."""

from __future__ import annotations

import contextlib
import itertools
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from tests.harness import servers  # noqa: E402  (needs the path above)


class Said:
    """Shows what tests `say`, in whichever process they run."""

    def __init__(self, config: pytest.Config):
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.when != "call" or terminal is None:
            return
        for name, text in report.user_properties:
            if name == "said":
                terminal.ensure_newline()
                terminal.write_line(f"  {text}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Said(config))


@pytest.fixture
def say(record_property):
    """`say(text)`: a figure that stands in the output beside the test, and in its XML."""
    return lambda text: record_property("said", text)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def certs(tmp_path_factory) -> servers.Certs:
    """A CA and a server certificate for localhost and 127.0.0.1."""
    return servers.make_certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def umbel_bin() -> Path:
    """Our program; the test is skipped while it has not been built."""
    if not servers.have_umbel():
        pytest.skip(f"{servers.umbel_bin()} is not built")
    return servers.umbel_bin()


@pytest.fixture
def start_server(tmp_path):
    """`start_server(kind, **flags) -> Server`: all of them are stopped after the test."""
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:

        def start(kind: str = "umbel", **flags) -> servers.Server:
            flags.setdefault("home", tmp_path / f"server-{next(numbers)}")
            return stack.enter_context(servers.start_server(kind, **flags))

        yield start
