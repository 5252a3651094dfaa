"""Row n5: time from exec until the SuperLink lists the node as online, and memory when idle of the
node's own process, beside flower-supernode. Both against our SuperLink."""

import sys
import tempfile
import time
from pathlib import Path

from _bench import Recorder, memory, note_start_and_idle, say, servers

from tests.harness.federation import STOCK, Federation, umbel_node

IDLE_SECONDS = 5.0


def measure(kind, folder):
    """Seconds until it is online, and its memory after a while of nothing."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    node = umbel_node() if kind == "umbel" else STOCK
    with servers.start_server("umbel", home=home / "server", isolation="process") as server:
        options = {"nodes": 1, "node": node, "start_nodes": False}
        with Federation(server, home / "federation", **options) as federation:
            federation.online()  # its connection stands
            begin = time.monotonic()
            child = federation.nodes[0].start()
            while not federation.online():
                if not child.running or time.monotonic() - begin > 120:
                    raise RuntimeError(child.log_text())
                time.sleep(0.001)
            seconds = time.monotonic() - begin
            time.sleep(IDLE_SECONDS)
            used = memory(child.pid)
    say(f"  {kind}: online after {1e3 * seconds:.1f} ms, idle {used}")
    return seconds, used.total


def main():
    recorder = Recorder("n5", "node_idle")
    names = ("node, start to registered, of upstream", "idle node without its worker")
    note_start_and_idle(recorder, measure, names, (1 / 20, 20))
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
