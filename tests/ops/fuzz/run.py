"""schemathesis, as one runs it, against the REST doors of a running `umbel up`."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import httpx

from tests.harness.servers import REPO

SCHEMATHESIS = REPO / ".venv-schemathesis" / "bin" / "schemathesis"


def schemathesis(url: str, document: str, folder: Path, *more: str) -> str:
    """Its report, if all its checks passed; else AssertionError with it.

    That what fits the schema is taken is not checked: a schema cannot say that min_fit_clients is at
    most min_available_clients, or which addresses git knows.
    """
    command = [
        str(SCHEMATHESIS), "run", url + document, "--checks", "all",
        "--exclude-checks", "positive_data_acceptance", "--workers", "1", "--no-color",
        "--generation-database", "none", "--continue-on-failure", "--warnings", "off", *more,
    ]  # fmt: skip
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.ops.fuzz.hooks", "PYTHONPATH": str(REPO)}
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    report = done.stdout + done.stderr
    (folder / "report.txt").write_text(report)
    assert done.returncode == 0, report[-20_000:]
    return report


class Pulse:
    """Asks for /health all the time, and measures."""

    def __init__(self, url: str):
        self.seconds: list[float] = []
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._over.wait(0.02):
                begin = time.perf_counter()
                client.get(f"{self._url}/health").raise_for_status()
                self.seconds.append(time.perf_counter() - begin)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]
