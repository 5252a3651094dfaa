"""A real MLflow server, the tracker that talks to it, and MLflow's own client that looks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.harness.servers import free_port, wait_until

REPO = Path(__file__).resolve().parents[2]
VENV = REPO / ".venv-mlflow"
PROGRAM = "umbel_tracking_driver"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}

# Answers each line of its input with one; importing MLflow takes longer than all that is asked.
LOOK = """
import json, sys, traceback
from mlflow import MlflowClient
answers, sys.stdout = sys.stdout, sys.stderr  # MLflow prints addresses of runs
for line in sys.stdin:
    asked = json.loads(line)
    names = asked["given"] | {"client": MlflowClient(asked["url"])}
    try:
        exec(asked["code"], names)
        told = {"out": names["out"]}
    except Exception:
        told = {"error": traceback.format_exc()[-3000:]}
    print(json.dumps(told), file=answers, flush=True)
"""


def program() -> Path | None:
    """$UMBEL_TRACKING_DRIVER, else the newest that has been built."""
    if asked := os.environ.get("UMBEL_TRACKING_DRIVER"):
        return Path(asked)
    built = [REPO / "build" / preset / "tests/tracking" / PROGRAM for preset in ("release", "dev")]
    built = [path for path in built if path.exists()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


class Mlflow:
    """`mlflow server` on SQLite. `kill()` and `start()` again: it has what it had."""

    def __init__(self, home: Path):
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen | None = None
        self._looker: subprocess.Popen | None = None

    def start(self) -> None:
        self.home.mkdir(exist_ok=True)
        command = [
            VENV / "bin/mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{self.home / 'mlflow.db'}",
            "--artifacts-destination", str(self.home / "artifacts"),
        ]  # fmt: skip
        environment = {
            **os.environ,
            **QUIET,
            "HOME": str(self.home),
            "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
        }
        with open(self.home / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.home,
                start_new_session=True,
            )  # fmt: skip
        wait_until("MLflow answers", self._answers, 180, 0.2)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.home / "server.log").read_text()[-3000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health") as answer:
            return answer.status == 200
        return False

    def pause(self) -> None:
        """It neither answers nor refuses."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def look(self, code: str, **given: Any) -> Any:
        """Runs `code` with MLflow's own client as `client`; gives what it leaves in `out`."""
        if self._looker is None:
            self._looker = subprocess.Popen(
                [VENV / "bin/python", "-c", LOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={**os.environ, **QUIET},
            )  # fmt: skip
        asked = {"url": self.url, "code": code, "given": given}
        print(json.dumps(asked), file=self._looker.stdin, flush=True)
        told = json.loads(self._looker.stdout.readline())
        assert "error" not in told, told["error"]
        return told["out"]

    def close(self) -> None:
        self.kill()
        if self._looker:
            self._looker.communicate(timeout=60)


class Driver:
    """The tracker in a process of its own. `kill()` is SIGKILL."""

    def __init__(self, url: str, spool: Path):
        self._process = subprocess.Popen(
            [program(), url, spool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        print(json.dumps({"do": what, **fields}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def say(self, what: str, **fields: Any) -> None:
        answer = self.ask(what, **fields)
        assert answer == {}, answer

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Mlflow]:
    server = Mlflow(home)
    try:
        server.start()
        yield server
    finally:
        server.close()
