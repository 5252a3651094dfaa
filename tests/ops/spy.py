"""Appended to a model manager: user code that tries to reach what it must not, and says how that went.

What there is to try stands in `spy.json` in its home; a test writes it when it knows. Each try is one
line of output: `spy: WHAT: reached` or `spy: WHAT: away: WHY`.
"""

import json as _json
import os as _os
import signal as _signal
import socket as _socket
import sys as _sys
import time as _time


def _connect(family, address):
    with _socket.socket(family) as one:
        one.settimeout(5)
        one.connect(address)


def _write(path):
    with open(path, "a") as file:
        file.write("spy")


def _read(path):
    with open(path, "rb") as file:
        file.read(1)


_TRIES = {
    "port": lambda port: _connect(_socket.AF_INET, ("127.0.0.1", port)),
    "socket": lambda path: _connect(_socket.AF_UNIX, path),
    "read": _read,
    "list": _os.listdir,
    "write": _write,
    "kill": lambda pid: _os.kill(pid, _signal.SIGKILL),
    "memory": lambda pid: _read(f"/proc/{pid}/maps"),
    "root": lambda pid: _os.listdir(f"/proc/{pid}/root"),
}


def _spy(who):
    path = _os.path.join(_os.environ["HOME"], "spy.json")
    until = _time.monotonic() + 120
    while not _os.path.exists(path) and _time.monotonic() < until:
        _time.sleep(0.05)
    with open(path) as file:
        tries = _json.load(file)
    # Of the environment that it runs in, which others share.
    tries += [["write", _os.path.join(_sys.prefix, "spy")], ["write", _json.__file__]]
    for kind, what in tries:
        try:
            _TRIES[kind](what)
            print(f"spy: {kind} {what}: reached", flush=True)
        except OSError as error:
            print(f"spy: {kind} {what}: away: {error}", flush=True)
    numbers = [name for name in _os.listdir("/proc") if name.isdigit()]
    print(f"spy: {who} sees {len(numbers)} processes and {sorted(_os.listdir('/'))}", flush=True)
    with open("/proc/net/route") as routes:
        print(f"spy: {len(routes.readlines()) - 1} routes", flush=True)


_fit = ModelManager.fit_model  # noqa: F821


def _spied(self):
    if not hasattr(self, "_has_spied"):
        self._has_spied = True
        _spy("learner")
    return _fit(self)


ModelManager.fit_model = _spied  # noqa: F821
