"""Row r9, the receive path: objects of 5 MiB from eight nodes at once, received, hashed and folded.

The same server twice: with the lanes of a path, and with OpenSSL one message at a time
(UMBEL_CPU=generic). Where the bar is about CPUs without SHA instructions, OpenSSL is told not to see
them. What counts is the server's CPU time a byte, from the first byte of the first reply to the last
reply's being stored: the generator shares the machine and costs the same on both sides. The rate by
the clock stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from pathlib import Path

from _bench import Recorder, at_least, cpu_seconds, median, pairs, say, servers, shutil, workspace
from _rounds import Trainers, check_received, model, native_run, received, size

from tests.harness.federation import Federation

MODEL_MB = int(os.environ.get("UMBEL_BENCH_MB", "200"))
NODES = 8
WITHOUT_SHA = {"OPENSSL_ia32cap": ":~0x20000000"}  # bit 29 of EBX in CPUID's leaf 7
PATHS = {  # what OpenSSL may see, and the bar
    "avx512": (WITHOUT_SHA, 2.5),
    "avx2": (WITHOUT_SHA, 2.5),
    "sha_ni": ({}, 0.8),
}


class Meter:
    """The CPU time of a process, by the clock."""

    def __init__(self, pid: int):
        self._pid, self._end = pid, threading.Event()
        self._times: list[float] = []
        self._used: list[float] = []
        self._thread = threading.Thread(target=self._run, name="meter")

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._times.append(time.time())
            self._used.append(cpu_seconds(self._pid))
            if self._end.wait(0.02):
                return

    def between(self, begin: float, end: float) -> float:
        return self._at(end) - self._at(begin)

    def _at(self, moment: float) -> float:
        return self._used[min(bisect_left(self._times, moment), len(self._used) - 1)]


def measure(path: str, environment: dict[str, str], folder: Path) -> tuple[float, float] | None:
    """Bytes a second of the server's CPU time, and by the clock. None: this CPU has no such path."""
    home = Path(tempfile.mkdtemp(prefix=f"{path}-", dir=folder))
    arrays = model(MODEL_MB * 1_000_000)
    env = {**environment, "UMBEL_CPU": path}
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(servers.start_server("umbel", home=home / "server", env=env))
        except servers.ServerError as error:
            if "UMBEL_CPU" not in str(error):
                raise
            return None
        federation = stack.enter_context(
            Federation(server, home / "federation", start_nodes=False)
        )
        trainers = stack.enter_context(Trainers(server, NODES, 1))
        meter = stack.enter_context(Meter(server.pid))
        native_run(
            federation, arrays, "--rounds", 1, "--set", f"min_available_nodes={NODES}",
            trainers=trainers,
        )  # fmt: skip
        (train,) = trainers.phases()
        counted = received(server, size(arrays))
    shutil.rmtree(home)
    wanted = NODES * size(arrays)
    check_received(counted, wanted, wanted // (5 << 20))
    used = meter.between(train["first_sent"], train["last_stored"])
    seconds = train["last_stored"] - train["first_sent"]
    say(
        f"  {path}: {counted / used / 1e9:.2f} GB/s of the server's CPU time, "
        f"{counted / seconds / 1e9:.2f} by the clock ({counted} bytes received)"
    )
    return counted / used, counted / seconds


def main() -> int:
    recorder = Recorder("r9", "receive")
    with workspace() as folder:
        for path, (environment, bar) in PATHS.items():
            if measure(path, environment, folder) is None:  # and warms up
                say(f"  {path}: not on this CPU")
                continue
            found = pairs(
                lambda path=path, environment=environment: measure(path, environment, folder),
                lambda environment=environment: measure("generic", environment, folder),
            )
            gain = median([ours[0] / theirs[0] for ours, theirs in found])
            clock = median([ours[1] / theirs[1] for ours, theirs in found])
            ours, theirs = (median([pair[side][0] for pair in found]) / 1e9 for side in (0, 1))
            seen = "without" if environment else "with"
            recorder.note(
                f"receive, hash and fold, {NODES} nodes, {path}, over OpenSSL {seen} SHA instructions",
                f"{gain:.2f} × ({ours:.2f} of {theirs:.2f} GB/s of CPU time; by the clock {clock:.2f} ×)",
                f"≥ {bar} ×",
                at_least(gain, bar),
            )
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
