"""What both demonstrations stand on: progress, processes that are all ended, and the way out."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent  # flwr and its programs stand beside the interpreter

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 15

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PR_SET_CHILD_SUBREAPER = 36


class DemoError(Exception):
    """What went wrong, in words for the person who started the demo."""


class Display:
    """Progress with the time since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)


class Children:
    """Every process the demo starts, directly or not, and the promise to end them all."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[tuple[str, subprocess.Popen]] = []
        # Processes whose parent is gone become ours instead of init's: no one gets lost.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, name: str, command: list[str | Path], env: dict[str, str]) -> subprocess.Popen:
        """In a session of its own, so that Ctrl-C reaches the demo alone."""
        with (self._logs / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append((name, child))
        return child

    def tail(self, name: str, lines: int = 15) -> str:
        text = (self._logs / f"{name}.log").read_text(errors="replace")
        return "\n".join("    " + ANSI.sub("", line) for line in text.splitlines()[-lines:])

    def check(self) -> None:
        """Raises if a long-running one has ended."""
        for name, child in self._started:
            if child.poll() is not None:
                raise DemoError(f"{name} ended with {child.returncode}:\n{self.tail(name)}")

    def stop(self) -> list[str]:
        """Nodes first, then the server, as one would; whatever is left is killed and named."""
        nodes = [child for name, child in self._started if name.startswith("node")]
        others = [child for name, child in self._started if not name.startswith("node")]
        # SuperNodes say goodbye to the server on SIGINT.
        self._end(nodes, signal.SIGINT)
        self._end(others, signal.SIGTERM)

        # The programs they started in turn end by themselves when they see their parent gone.
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while (left := self.alive()) and time.monotonic() < deadline:
            psutil.wait_procs(left, timeout=1)
        killed = []
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                killed.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
                process.kill()
        psutil.wait_procs(left, timeout=STOP_SECONDS_MAX)
        return killed

    @staticmethod
    def alive() -> list[psutil.Process]:
        return psutil.Process().children(recursive=True)

    @staticmethod
    def _end(children: list[subprocess.Popen], number: signal.Signals) -> None:
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for child in children:
            child.send_signal(number)
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def environment(scratch: Path, who: str) -> dict[str, str]:
    """Ours, with homes in the scratch folder, no calls to the outside and no proxy in between."""
    home = scratch / who
    home.mkdir()
    env = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    env.update(
        FLWR_HOME=str(home),
        UMBEL_HOME=str(scratch / "umbel"),
        FLWR_TELEMETRY_ENABLED="0",
        FLWR_DISABLE_UPDATE_CHECK="1",
        PATH=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        PYTHONUNBUFFERED="1",
        # All sites are on this machine: threads of their libraries would only get in their way.
        OPENBLAS_NUM_THREADS="1",
    )
    return env


def umbel() -> Path:
    binary = Path(os.environ.get("UMBEL_BIN", ROOT / "bin" / "umbel"))
    if not binary.exists():
        raise DemoError(f"{binary} is not built: ./run build")
    return binary


def wait_until_healthy(url: str, children: Children) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            if opener.open(f"{url}/health", timeout=1).status == 200:
                return
        children.check()
        if time.monotonic() > deadline:
            raise DemoError(f"no answer from {url}/health within {START_SECONDS_MAX} s")
        time.sleep(0.02)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def interrupt(number: int, _frame) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def perform(play: Callable[[Path, Children, Display], bool], out: Path, last_step: str) -> int:
    """Plays it with a scratch folder, and ends whatever it started, however it ends.

    play       gets scratch folder, processes and progress; true: what runs is to stay.
    last_step  what is said before the end.
    returns  an exit code; 130 after Ctrl-C.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, interrupt)
    display = Display()
    scratch = Path(tempfile.mkdtemp(prefix="umbel-demo-"))
    children = Children(out / "logs")
    status = 1
    kept = False
    left: list[psutil.Process] = []
    try:
        kept = play(scratch, children, display)
        status = 0
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        status = 130
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        if not kept:
            display.say(last_step)
            for process in children.stop():
                print(f"demo: had to be killed: {process}", file=sys.stderr)
            left = children.alive()
            display.say(f"{len(left)} processes left running" if left else "nothing left running")
        shutil.rmtree(scratch, ignore_errors=True)
    if status:
        print(f"demo: logs are in {shown(out / 'logs')}/", file=sys.stderr)
    return status or (1 if left else 0)
