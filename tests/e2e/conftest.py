"""What the end-to-end tests share.

UMBEL_E2E_SERVER=upstream runs them against the stock flower-superlink, where a test allows it.
UMBEL_SOAK=1 adds the tests marked `soak`, which are too slow for every day.
"""

from __future__ import annotations

import os

import pytest

from tests.harness.federation import Federation
from tests.harness.servers import have_umbel, umbel_bin

KIND = os.environ.get("UMBEL_E2E_SERVER", "umbel")
SOAK = os.environ.get("UMBEL_SOAK", "") not in ("", "0")


def pytest_configure(config):
    config.addinivalue_line("markers", "soak: too slow for every day; needs UMBEL_SOAK=1")
    config.addinivalue_line("markers", "umbel_only(reason): upstream does not do this")
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:typer")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("soak") and not SOAK:
            item.add_marker(pytest.mark.skip(reason="slow: set UMBEL_SOAK=1"))
        only = item.get_closest_marker("umbel_only")
        if only and KIND != "umbel":
            item.add_marker(pytest.mark.skip(reason=f"not upstream: {only.args[0]}"))


@pytest.fixture(scope="session")
def kind() -> str:
    """Which SuperLink is under test: "umbel" or "upstream"."""
    if KIND == "umbel" and not have_umbel():
        pytest.fail(f"{umbel_bin()} is not built; ./run build makes it", pytrace=False)
    return KIND


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether there is time to repeat what another test has shown already."""
    return SOAK


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Homes, logs and results of this module's federations; pytest keeps the last three."""
    return tmp_path_factory.mktemp("e2e")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the ends of the logs of its federation."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Federation):
                report.sections.append(("federation", value.evidence()))
    return report
