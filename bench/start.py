"""Row 12: time from exec to the first 200 on /health, and memory when idle, beside upstream."""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _bench import Recorder, memory, note_start_and_idle, say, servers

IDLE_SECONDS = 5.0
PROBE = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"


def healthy(port):
    with socket.socket() as probe:
        probe.settimeout(5)
        try:
            probe.connect((servers.HOST, port))
            probe.sendall(PROBE)
            return probe.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def measure(kind, folder):
    """Seconds to the first 200, and the memory of the server process after a while of nothing."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    (home / "flwr").mkdir()
    port = servers.free_port()
    database = home / "state.db" if kind == "upstream" else None
    command = servers._command(kind, port, None, False, "process", None, database, ())
    with open(home / "log", "wb") as log:
        begin = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=servers.child_env(home), cwd=home,
        )  # fmt: skip
        try:
            while not healthy(port):
                if child.poll() is not None or time.monotonic() - begin > 120:
                    raise RuntimeError((home / "log").read_text())
                time.sleep(0.001)
            seconds = time.monotonic() - begin
            time.sleep(IDLE_SECONDS)
            used = memory(child.pid)
        finally:
            child.terminate()
            child.wait(30)
    say(f"  {kind}: {1e3 * seconds:.1f} ms to /health, idle {used}")
    return seconds, used.total


def main():
    recorder = Recorder("12", "start")
    names = ("time to /health, of upstream", "idle memory")
    note_start_and_idle(recorder, measure, names, (1 / 20, 25))
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
