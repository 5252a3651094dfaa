"""The worker's entry. docs/worker-protocol.md has the command line."""

from __future__ import annotations

import os
import signal
import socket
import sys

CONTROL_FD = 3
# Exit handlers of the app, imported here, may take this long when the worker ends.
END_SECONDS = 5


def run(path: str) -> None:
    """Serves the control socket until it ends. `path`: the entry of sys.path that led here."""
    if path in sys.path:
        sys.path.remove(path)  # an app must not find our package by accident
    sys.argv[:] = ["flwr-clientapp"]
    from .frames import FrameError, send

    try:
        control = socket.socket(fileno=CONTROL_FD)
    except OSError as error:
        sys.exit(f"umbel worker: descriptor {CONTROL_FD} is not a control socket: {error}")
    os.set_inheritable(CONTROL_FD, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's to handle
    python = "{}.{}.{}".format(*sys.version_info)
    try:
        version = _warm_up()
    except Unfit as unfit:
        reason = f"{sys.executable} (Python {python}): {unfit}"
        send(control, {"op": "unfit", "reason": reason.encode("utf-8", "replace").decode()})
        sys.exit(1)

    from . import child
    from .server import PROTOCOL, Server

    status = 0
    try:
        ready = {"op": "ready", "protocol": PROTOCOL, "pid": os.getpid(), "python": python}
        send(control, {**ready, "flwr": version})
        Server(control).run()
    except (FrameError, OSError) as error:
        child.complain(f"{type(error).__name__}: {error}")
        status = 1
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(END_SECONDS)
    child.finish(status)


class Unfit(Exception):
    """This Python cannot host ClientApps; the text says what it lacks."""


def _warm_up() -> str:
    """Imports flwr and what of it nearly every ClientApp imports; returns its version."""
    if sys.version_info < (3, 10):
        raise Unfit("Python 3.10 or later is needed")
    try:
        import flwr
    except Exception as error:
        raise Unfit(f"flwr cannot be imported: {type(error).__name__}: {error}") from None
    version = str(getattr(flwr, "__version__", "unknown"))
    try:
        from . import server  # noqa: F401  (needs flwr's message API)
    except Exception as error:
        raise Unfit(
            f"flwr {version} is not 1.23 or later: {type(error).__name__}: {error}"
        ) from None
    for legacy in ("flwr.client", "flwr.common"):
        try:
            __import__(legacy)
        except Exception:
            pass  # gone in a later version: only older apps miss it
    return version
