"""Fixtures of the tests of umbel.serverapp."""

from __future__ import annotations

import logging
import sys

import pytest
from flwr.supercore.task_identity import TaskIdentity

from tests.harness.servers import REPO

sys.path.insert(0, str(REPO / "python"))

from umbel.serverapp import channel  # noqa: E402  (needs the path above)

from tests.serverapp.fake import Clock  # noqa: E402


@pytest.fixture
def clock(monkeypatch):
    """Waiting for answers takes no time; the runtime's identity is set, as in a ServerApp."""
    for name, value in {"_run_id": 7, "_task_id": 8, "_node_id": 1}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    clock = Clock()
    monkeypatch.setattr(channel, "time", clock)
    return clock


@pytest.fixture
def said(caplog):
    """`said(text)`: how many log lines have it."""
    caplog.set_level(logging.INFO, logger="flwr")
    return lambda text: sum(text in record.getMessage() for record in caplog.records)
