"""Plays the node: starts a worker as the node does, and speaks docs/worker-protocol.md with it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from flwr.app import ConfigRecord, RecordDict

from tests.harness.servers import REPO, wait_until

SOURCES = REPO / "python"
sys.path.append(str(SOURCES))

from umbel.worker import frames, records  # noqa: E402  (needs the path above)

APPS = Path(__file__).parent / "apps"
SECONDS = 30.0
START = (
    'import sys; at = sys.argv.pop(); sys.path[:sys.path[0] == ""] = [at]; '
    "from _umbel_worker.main import run; run(at)"
)
NO_LIMITS = dict.fromkeys(
    ("uid", "gid", "open_files", "processes", "address_space", "file_bytes", "cwd")
) | {"session": True}


def install(home: Path) -> Path:
    """The sources in a folder of their own, under the name that the node gives them."""
    target = home / "_umbel_worker"
    shutil.copytree(
        SOURCES / "umbel" / "worker", target, ignore=shutil.ignore_patterns("__pycache__")
    )
    return home


@dataclass
class Answer:
    frame: dict[str, Any]
    output: Path

    def records(self, key: str = "content") -> RecordDict:
        with open(self.output, "rb") as file:
            return records.decode(self.frame[key], records.Input(file.fileno()))

    def result(self) -> dict[str, Any]:
        assert self.frame["op"] == "reply", self.frame
        return dict(self.records()["result"])


class Job:
    """A job socket and the process at its other end."""

    _numbers = itertools.count(1)

    def __init__(self, home: Path, identity: int):
        self.identity = identity
        self.socket, self.theirs = socket.socketpair()
        self.socket.settimeout(SECONDS)
        self.log = home / f"output-{identity}.log"
        self.home = home
        self.pid = 0

    def call(self, content: RecordDict | None = None, **more: Any) -> Answer:
        self.ask(content, **more)
        return self.answer()

    def ask(
        self,
        content: RecordDict | None = None,
        state: RecordDict | None = None,
        out_offset: int = 0,
        message_type: str = "train",
        **config: Any,
    ) -> None:
        number = next(self._numbers)
        self.output = self.home / f"reply-{number}"
        if content is None:
            content = RecordDict()
        if config:
            content["config"] = ConfigRecord(config)
        with open(self.home / f"input-{number}", "wb+") as source, open(self.output, "wb") as out:
            source.write(b"something before")
            source.flush()
            writer = records.Output(source.fileno(), source.tell())
            frame = {
                "op": "call",
                "message": message(type=message_type),
                "content": records.encode(content, writer),
                "context": context() | {"state": records.encode(state or RecordDict(), writer)},
                "out_offset": out_offset,
            }
            frames.send(self.socket, frame, (source.fileno(), out.fileno()))

    def answer(self) -> Answer:
        got = frames.receive(self.socket)
        assert got is not None, "the child is gone: " + self.log.read_text()
        assert not got[1]
        return Answer(got[0], self.output)

    def ended(self) -> bool:
        """Waits for the next thing on the socket: whether it is the end."""
        return frames.receive(self.socket) is None

    def close(self) -> None:
        self.socket.close()


def message(**more: Any) -> dict[str, Any]:
    return {
        "run_id": (1 << 63) + 5, "message_id": "m" * 64, "src": 1, "dst": (1 << 64) - 3,
        "reply_to": "", "group_id": "7", "type": "train", "ttl": 3600.0,
        "created_at": time.time() - 5, "src_task_id": 11, "dst_task_id": None, **more,
    }  # fmt: skip


def context(**more: Any) -> dict[str, Any]:
    return {
        "run_id": (1 << 63) + 5, "node_id": (1 << 64) - 3, "series_id": 9,
        "node_config": {"partition-id": 3, "name": "site"},
        "run_config": {"lr": 0.5, "deep.flag": True}, "state": [], **more,
    }  # fmt: skip


class Worker:
    """A worker process and our end of its control socket."""

    def __init__(self, python: Path | str, home: Path, sources: Path, **environment: str):
        self.home = home
        self.log = home / "worker.log"
        self.exited: dict[int, dict[str, Any]] = {}
        self._identities = itertools.count(1)
        self.control, theirs = socket.socketpair()
        self.control.settimeout(SECONDS)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        env = os.environ | {"FLWR_TELEMETRY_ENABLED": "0"} | environment
        with contextlib.ExitStack() as stack:
            stack.callback(theirs.close)
            stack.callback(os.close, log)
            self.pid = os.posix_spawn(
                str(python),
                [str(python), "-c", START, str(sources)],
                env,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                ],
                setpgroup=0,
            )
        self.status: int | None = None

    def hear(self) -> dict[str, Any] | None:
        got = frames.receive(self.control)
        return None if got is None else got[0]

    def expect(self, op: str) -> dict[str, Any]:
        """The next frame that is not of a child's end."""
        while True:
            frame = self.hear()
            assert frame is not None, "the worker is gone: " + self.log.read_text()
            if frame["op"] == "exited" and op != "exited":
                self.exited[frame["id"]] = frame
                continue
            assert frame["op"] == op, frame
            return frame

    def say(self, frame: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        frames.send(self.control, frame, fds)

    def load(
        self, directory: Path = APPS, ref: str = "behave:app", environment: Path | str = ""
    ) -> dict[str, Any]:
        where = {"directory": str(directory), "environment": str(environment)}
        self.say({"op": "load", "ref": ref, "app": "toy", **where})
        frame = self.hear()
        assert frame is not None, self.log.read_text()
        return frame

    def job(self, op: str = "fork", **limits: Any) -> Job:
        job = Job(self.home, next(self._identities))
        with open(job.log, "ab") as output:
            frame = {"op": op, "id": job.identity, "limits": NO_LIMITS | limits}
            self.say(frame, (job.theirs.fileno(), output.fileno()))
        job.theirs.close()
        forked = self.expect("forked")
        assert forked["id"] == job.identity
        job.pid = forked["pid"]
        return job

    def end_of(self, job: Job) -> int:
        """The child's wait status, once the worker tells it."""
        while job.identity not in self.exited:
            frame = self.expect("exited")
            self.exited[frame["id"]] = frame
        assert self.exited[job.identity]["pid"] == job.pid
        return self.exited[job.identity]["status"]

    def wait(self) -> int:
        """The worker's own end."""
        if self.status is None:
            wait_until("the worker's end", self._poll, SECONDS)
        assert self.status is not None
        return self.status

    def _poll(self) -> bool:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.status = status
        return bool(pid)

    def close(self) -> None:
        self.control.close()
        try:
            self.wait()
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def gone(pid: int) -> bool:
    """No such process, or only its record for a parent that has not looked yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
