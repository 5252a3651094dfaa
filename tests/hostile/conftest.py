"""What the hostile tests share: their sizes and the load generator.

UMBEL_SOAK=1 runs them at the size of the table of requirements.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance import wire
from tests.harness.servers import REPO

SOAK = os.environ.get("UMBEL_SOAK", "") not in ("", "0")


@dataclass(frozen=True)
class Size:
    """How many bad peers there are of each kind, and how often each lie is told."""

    half_open: int
    slow: int
    hogs: int
    turns: int
    processes: int


SIZE = Size(10_000, 400, 16, 100, 4) if SOAK else Size(500, 20, 4, 5, 2)


class Load:
    """The load generator against one server: a command runs until it ends by itself."""

    def __init__(self, program: Path):
        self.program = program

    def start(self, what: str, port: int, *flags: object) -> subprocess.Popen[str]:
        command = [self.program, what, "--port", port, *flags]
        return subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def result(self, child: subprocess.Popen[str], seconds: float) -> dict[str, int]:
        """What it counted."""
        try:
            out, errors = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
        assert child.returncode == 0, errors
        return json.loads(out)


@pytest.fixture(scope="session")
def load() -> Load:
    """umbel_load: $UMBEL_LOAD, or the one of the release build, which is brought up to date."""
    given = os.environ.get("UMBEL_LOAD")
    if given:
        return Load(Path(given))
    command = ["cmake", "--build", "--preset", "release", "--target", "umbel_load"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"umbel_load cannot be built:\n{done.stdout[-2000:]}", pytrace=False)
    return Load(REPO / "build/release/bench/umbel_load")


@pytest.fixture
def fab(tmp_path) -> Path:
    """A bundle that a run can be started with; nobody runs it."""
    path = tmp_path / "toy.fab"
    path.write_bytes(wire.bundle())
    return path
