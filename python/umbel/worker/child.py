"""What a process does that serves a job socket: it confines itself, answers calls, and ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import resource
import socket
import sys
import threading
from typing import Any

from . import calls, linux, records
from .frames import FrameError, field, receive, send

JOB_FD = 3  # of a forked child
_LIMITS = {
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "file_bytes": resource.RLIMIT_FSIZE,
}


def redirect(output: int) -> None:
    """Standard input is empty; standard output and error go to `output`, a line at a time."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    with contextlib.suppress(Exception):  # the app may have put anything in its place
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def confine(limits: Any) -> None:
    """Applies `limits` of the protocol to this process.

    errors  FrameError; OSError, ValueError: the system refuses one.
    """
    if field(limits, "session", (bool, type(None)), "limits"):
        with contextlib.suppress(PermissionError):  # leads a group already
            os.setsid()
    elif os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    linux.become_subreaper()
    for name, number in _LIMITS.items():
        if value := _limit(limits, name):
            resource.setrlimit(number, (value, value))
    if cwd := field(limits, "cwd", (str, type(None)), "limits"):
        os.chdir(cwd)
    if gid := _limit(limits, "gid"):
        os.setgroups([])
        os.setgid(gid)
    if uid := _limit(limits, "uid"):
        os.setuid(uid)
    # Beyond what Python and the app's libraries have mapped by now, which only we can tell.
    if budget := _limit(limits, "address_space"):
        whole = linux.mapped_bytes() + budget
        resource.setrlimit(resource.RLIMIT_AS, (whole, whole))


def _limit(limits: Any, name: str) -> int:
    value = field(limits, name, (int, type(None)), "limits") or 0
    if value < 0:
        raise FrameError(f"limits: {name} is {value}")
    return value


def serve(job: socket.socket, app: calls.App) -> None:
    """Answers calls until the node closes the socket. errors  FrameError."""
    while True:
        try:
            got = receive(job)
        except ConnectionError:
            return
        if got is None:
            return
        frame, fds = got
        try:
            if field(frame, "op", str) != "call" or len(fds) != 2:
                raise FrameError(f"op {frame['op']!r} with {len(fds)} descriptors on a job socket")
            answer = calls.answer(app, frame, records.Input(fds[0]), fds[1])
        finally:
            for fd in fds:
                with contextlib.suppress(OSError):  # the app may have closed it
                    os.close(fd)
        linux.flush()
        with contextlib.suppress(ConnectionError):
            send(job, answer)
        del answer


def finish(status: int = 0) -> None:
    """Ends this process as Python would, except that nothing is torn down. Does not return."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # waits for the threads that are not daemons
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    linux.flush()
    os._exit(status)


def complain(what: str) -> None:
    """Trouble of our own: one line on standard error."""
    line = " ".join(what.split())
    with contextlib.suppress(OSError):
        os.write(2, f"umbel worker: {line}\n".encode("utf-8", "backslashreplace"))
