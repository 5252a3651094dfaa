"""Child processes of a build: their output becomes its log, and they end when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .words import say

SILENCE_SECONDS = 2.0
LINES_MAX = 400  # of one child in the log
LINE_CHARS_MAX = 400
TAIL_LINES = 60
_PR_SET_PDEATHSIG = 1

# Nothing that we start calls out by itself.
QUIET = {
    "DO_NOT_TRACK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}
# What user code sees of our own environment.
_PASSED_ON = (
    "HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ",
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS",
)  # fmt: skip


_asked_to_end = False


def end_on_sigterm() -> None:
    """SIGTERM is noted, and acted upon where it cannot be lost: an exception that a handler raises
    may fall into a callback of the interpreter's own, such as those around a fork.
    """

    def note(*_: object) -> None:
        global _asked_to_end
        _asked_to_end = True

    signal.signal(signal.SIGTERM, note)


def heed() -> None:
    """errors  SystemExit, once SIGTERM has come"""
    if _asked_to_end:
        raise SystemExit(128 + signal.SIGTERM)


@dataclass
class Ended:
    """status: as Popen has it, negative for a signal; timed_out: we ended it."""

    status: int
    timed_out: bool
    tail: list[str]

    @property
    def well(self) -> bool:
        return self.status == 0 and not self.timed_out

    @property
    def how(self) -> str:
        if self.status < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-self.status).name}"
        return f"ended with status {self.status}"


def tool_environment() -> dict[str, str]:
    """For uv: ours, without what points into another environment."""
    drop = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"}
    return {k: v for k, v in os.environ.items() if k not in drop} | QUIET


def user_environment(python: Path) -> dict[str, str]:
    """For the repository's code: no tokens, no addresses of ours."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept | QUIET | {"PATH": path, "VIRTUAL_ENV": str(python.parent.parent)}


def run(
    command: Sequence[str | Path],
    doing: str,
    *,
    seconds: float,
    environment: Mapping[str, str],
    directory: Path | str,
    inherit: Sequence[int] = (),
    group: bool = False,
    wanted: Callable[[str], bool] = bool,
) -> Ended:
    """Runs it to its end, at most for `seconds`; a line at least every two seconds.

    doing    for the lines while it is silent: "installing packages"
    inherit  descriptors it holds as well, such as a lock's
    group    a process group of its own, all of which is ended with it: for the user's code
    wanted   which of its lines are shown
    """
    child = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=directory,
        pass_fds=tuple(inherit),
        start_new_session=group,
        preexec_fn=_end_with_parent,
    )
    try:
        return _follow(child, doing, seconds, wanted)
    finally:
        _end(child, group)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(child: subprocess.Popen, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(child.pid, signal.SIGKILL)  # what it left behind, too
        elif child.poll() is None:
            child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def _follow(
    child: subprocess.Popen, doing: str, seconds: float, wanted: Callable[[str], bool]
) -> Ended:
    assert child.stdout is not None
    os.set_blocking(child.stdout.fileno(), False)
    started = spoken = time.monotonic()
    log = _Log(wanted)
    open_ = True
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            heed()
            if open_ and selector.select(timeout=0.2):
                data = os.read(child.stdout.fileno(), 1 << 16)
                if data:
                    if log.take(data):
                        spoken = time.monotonic()
                else:
                    selector.unregister(child.stdout)
                    open_ = False
            elif child.poll() is not None:
                break  # whoever still holds its output is not waited for
            elif not open_:
                time.sleep(0.05)
            now = time.monotonic()
            if now - started > seconds:
                log.end()
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                return Ended(child.wait(), True, list(log.tail))
            if now - spoken > SILENCE_SECONDS:
                say(f"{doing} ({now - started:.0f} s)")
                spoken = now
    log.end()
    return Ended(child.returncode, False, list(log.tail))


class _Log:
    def __init__(self, wanted: Callable[[str], bool]):
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._wanted = wanted
        self._rest = b""
        self._shown = 0

    def take(self, data: bytes) -> bool:
        """Whether anything was shown."""
        *lines, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[: 4 * LINE_CHARS_MAX]
        return any([self._line(line) for line in lines])

    def end(self) -> None:
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _line(self, data: bytes) -> bool:
        line = data.decode("utf-8", "replace").rstrip()[:LINE_CHARS_MAX]
        if not line:
            return False
        self.tail.append(line)
        if self._shown > LINES_MAX or not self._wanted(line):
            return False
        self._shown += 1
        say("  " + (line if self._shown <= LINES_MAX else "(further output is not shown)"))
        return True
