"""The worker's control socket: loads the app once, forks children, reaps them.

One thread and one poll, so that forking stays safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import time
import warnings
from typing import Any, NoReturn

from . import apps, child, linux, safety
from .frames import FrameError, field, receive, send
from .streams import Watch

PROTOCOL = 2
# A child that gave up its job socket may take this long over its exit handlers.
LINGER_SECONDS = 10.0
STOP_SECONDS = 2.0
# How often children are looked at for what brings no signal. Without children: never.
LOOK_MILLISECONDS = 1000


class _Child:
    def __init__(self, identity: Any, job: str):
        self.identity = identity
        self.job = job  # its job socket, as /proc names it
        self.gave_up_at: float | None = None


class Server:
    def __init__(self, control: socket.socket):
        self._control = control
        self._app: Any = None
        self._watch = Watch()
        self._children: dict[int, _Child] = {}
        self._kept: set[int] = set()  # processes that the app started while it was imported
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)

    def run(self) -> None:
        """Until the node says stop or closes the socket. errors  FrameError, OSError."""
        linux.become_subreaper()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while True:
                ready = dict(poll.poll(LOOK_MILLISECONDS if self._children else None))
                if self._wake.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._wake.recv(4096)
                self._reap()
                self._look()
                if self._control.fileno() in ready and not self._obey():
                    break
        finally:
            self._stop()

    def _obey(self) -> bool:
        """Does what the next frame says; False: to end."""
        try:
            got = receive(self._control)
        except ConnectionError:
            return False
        if got is None:
            return False
        frame, fds = got
        op = field(frame, "op", str)
        if op in ("fork", "serve"):
            if self._app is None or len(fds) != 2:
                raise FrameError(f"{op} without an app, or with {len(fds)} descriptors")
            field(frame, "id", (int, str))
            field(frame, "limits", dict)
            (self._fork if op == "fork" else self._serve)(frame, *fds)
            return True
        for fd in fds:
            os.close(fd)
        if op == "load":
            places = (field(frame, "directory", str), field(frame, "environment", str))
            self._load(*places, field(frame, "ref", str))
            return True
        if op != "stop":
            raise FrameError(f"unknown op {op!r}")
        return False

    def _load(self, directory: str, environment: str, ref: str) -> None:
        if self._app is not None:
            raise FrameError("load twice")
        before = safety.Before()
        try:
            with self._watch.importing():
                self._app = apps.load(directory, ref, environment)
        except apps.LoadFailed as failed:
            answer = {"op": "load_failed", "code": failed.code, "reason": failed.reason}
            send(self._control, {**answer, "traceback": failed.trace})
            return
        finally:
            linux.flush()
        self._kept = linux.children() - before.children
        found = safety.obstacles(before)
        declared = apps.declared_host(directory)
        fork, why = not found, "; ".join(found)
        if declared in ("fork", "spawn"):
            fork, why = declared == "fork", f'the app\'s pyproject.toml says host = "{declared}"'
        elif declared is not None:
            why = f'host = "{declared}" in the app\'s pyproject.toml is unknown; {why}'
        # What is alive now stays: children share its pages as long as nobody counts or moves it.
        gc.collect()
        gc.freeze()
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        send(self._control, {"op": "loaded", "fork": fork, "why": apps.utf8(why)})

    def _fork(self, frame: Any, job: int, output: int) -> None:
        linux.flush()  # or the child would write it once more
        target = os.readlink(f"/proc/self/fd/{job}")
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that OpenBLAS has threads
                pid = os.fork()
        except OSError as error:
            child.complain(f"fork: {error}")
            send(self._control, {"op": "exited", "id": frame["id"], "pid": 0, "status": 1 << 8})
        else:
            if pid == 0:
                self._be_child(frame["limits"], job, output, parent)
            self._children[pid] = _Child(frame["id"], target)
            send(self._control, {"op": "forked", "id": frame["id"], "pid": pid})
        finally:
            os.close(job)
            os.close(output)

    def _be_child(self, limits: Any, job: int, output: int, parent: int) -> NoReturn:
        status = 70
        try:
            self._reset_signals()
            for ours in (self._control, self._wake, self._waker):
                ours.detach()  # closed below; nobody is to close these numbers again
            child.redirect(output)
            os.dup2(job, child.JOB_FD, inheritable=False)
            linux.close_all_but({0, 1, 2, child.JOB_FD})
            child.confine(limits)
            linux.die_with(parent)
            self._watch.start_afresh()
            with socket.socket(fileno=child.JOB_FD) as calls:
                child.serve(calls, self._app)
            status = 0
        except BaseException as error:
            child.complain(f"child: {type(error).__name__}: {error}")
        child.finish(status)
        raise AssertionError("unreachable")

    def _serve(self, frame: Any, job: int, output: int) -> NoReturn:
        status = 70
        try:
            self._reset_signals()
            send(self._control, {"op": "forked", "id": frame["id"], "pid": os.getpid()})
            self._leash()
            child.redirect(output)
            linux.close_all_but({0, 1, 2, self._control.fileno(), job})
            child.confine(frame["limits"])
            with socket.socket(fileno=job) as calls:
                child.serve(calls, self._app)
            status = 0
        except BaseException as error:
            child.complain(f"{type(error).__name__}: {error}")
        with contextlib.suppress(Exception):
            linux.kill_children_but(set())
        child.finish(status)
        raise AssertionError("unreachable")

    def _leash(self) -> None:
        """Whatever now comes on the control socket, "stop" or its end, is SIGKILL for us."""
        fd = self._control.fileno()
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([fd], [], [], 0)[0]:  # it came before
            os._exit(0)

    @staticmethod
    def _reset_signals() -> None:
        """Ours only: handlers that the app installed are its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _reap(self) -> None:
        while True:
            try:
                # Reaped only after its group was ended: until then its number is nobody else's.
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            pid = seen.si_pid
            if pid in self._children:
                linux.kill_group(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            self._kept.discard(pid)
            gone = self._children.pop(pid, None)
            if gone is not None:
                self._sweep()
                self._tell({"op": "exited", "id": gone.identity, "pid": pid, "status": status})

    def _sweep(self) -> None:
        """Living children are subreapers: what else became ours was left behind by a gone one."""
        if not linux.kill_children_but(self._kept | self._children.keys()):
            child.complain("processes that a gone child left behind do not end")

    def _look(self) -> None:
        now = time.monotonic()
        for pid, one in self._children.items():
            if one.gave_up_at is None:
                if not linux.holds(pid, one.job):
                    one.gave_up_at = now
            elif now - one.gave_up_at > LINGER_SECONDS:
                linux.kill_group(pid, signal.SIGKILL)

    def _stop(self) -> None:
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            for pid in self._children:
                linux.kill_group(pid, number)
            deadline = time.monotonic() + seconds
            while self._children and time.monotonic() < deadline:
                select.select([self._wake], [], [], max(0.0, deadline - time.monotonic()))
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
                self._reap()
        if not linux.kill_children_but(set()):  # what the import started
            child.complain("processes that the app started do not end")

    def _tell(self, frame: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # its end is seen where it is read
            send(self._control, frame)
