"""One `umbel-dataserver serve` as a child process, and what clients do with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.flight as flight

from tests.harness.servers import REPO, child_env, wait_until

START_SECONDS = 60.0


def dataserver_bin() -> Path:
    return Path(os.environ.get("UMBEL_DATASERVER_BIN", REPO / "bin/umbel-dataserver"))


def run(*words: str, home: Path, **variables: str) -> subprocess.CompletedProcess:
    """A command of the program that ends by itself."""
    return subprocess.run(
        [str(dataserver_bin()), *words], env=child_env(home, **variables), capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


class DataServer:
    def __init__(self, data: Path, log: Path, flags: tuple[str, ...], port: str):
        self.data = data
        self.log_path = log
        self.location = ""
        self._words = ["serve", "--data-dir", str(data), "--port", port, *flags]
        self._ready = log.with_suffix(".ready")
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> DataServer:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(dataserver_bin()), *self._words, "--ready-file", str(self._ready)],
                env=child_env(self.data.parent), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        wait_until(
            f"the data server is ready: {self.log()[-500:]}",
            lambda: self._ready.exists() or self.process.poll() is not None,
            START_SECONDS,
        )
        assert self.process.poll() is None, self.log()
        self.start_seconds = time.monotonic() - began
        self.location = self._ready.read_text().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = 30.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def rss_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_full_info().pss

    def client(self, **options) -> flight.FlightClient:
        return flight.FlightClient(self.location, **options)

    def files(self) -> list[str]:
        """What lies on the shelf."""
        return sorted(path.name for path in self.data.iterdir() if not path.name.startswith("."))

    def leftovers(self) -> list[str]:
        """Of puts that are not whole."""
        return sorted(path.name for path in (self.data / ".umbel/incoming").iterdir())


def table(rows: int = 10, first: int = 0, metadata: dict | None = None) -> pa.Table:
    """A column `row` with first, first + 1, …, and a text for each."""
    made = pa.table(
        {
            "row": pa.array(range(first, first + rows), pa.int64()),
            "text": pa.array([f"row {i}" for i in range(first, first + rows)]),
        }
    )
    return made.replace_schema_metadata(metadata) if metadata else made


def put(client: flight.FlightClient, name: str, data: pa.Table, options=None, **chunks) -> None:
    """As FLOps' clients do."""
    writer, _ = client.do_put(flight.FlightDescriptor.for_path(name), data.schema, options)
    with writer:
        writer.write_table(data, **chunks)


def names(client: flight.FlightClient, *tags: str, options=None) -> list[str]:
    criteria = json.dumps({"data_tags": list(tags)}).encode()
    return [info.descriptor.path[0].decode() for info in client.list_flights(criteria, options)]


def get(client: flight.FlightClient, name: str, options=None) -> pa.Table:
    return client.do_get(flight.Ticket(name.encode()), options).read_all()


def act(client: flight.FlightClient, kind: str, body: dict | str = "", options=None):
    """The answer of an action, as JSON; None when there is none."""
    text = body if isinstance(body, str) else json.dumps(body)
    results = list(client.do_action(flight.Action(kind, text.encode()), options))
    return json.loads(results[0].body.to_pybytes()) if results else None


def bearer(token: str) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {token}".encode())])
