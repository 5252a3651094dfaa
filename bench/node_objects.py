"""Row n4: a model of 200 MB in 40 tensors to two nodes and back, every reply another one, all ours
beside all of Flower's.

Object bytes are those that the nodes receive and send; the time is the ServerApp's own, from its
first byte out to its last byte in. Memory is the peak of the node's process, and that of what it
runs ClientApps in, looked at every 20 ms.
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import psutil
from _bench import (
    REPO, Recorder, at_least, at_most, median, memory, pairs, ratio, say, servers, workspace,
)  # fmt: skip

from tests.harness.federation import STOCK, Federation, umbel_node

APP = REPO / "bench" / "apps" / "heavy"
NODES, TENSORS = 2, 40
MODEL_MB = int(os.environ.get("UMBEL_BENCH_MB", "200"))
OBJECT_BYTES = 5 << 20  # of Flower's chunks
NODE_BYTES = (64 << 20) + 16 * OBJECT_BYTES
peaks = []  # of ours: (node, ClientApps), bytes


class Watch:
    """Peak memory of a node, and of each process below it."""

    def __init__(self, federation):
        self._nodes = [node.child.pid for node in federation.nodes]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")
        self.node: dict[int, int] = defaultdict(int)
        self.below: dict[int, int] = defaultdict(int)  # by process

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _look(self):
        while not self._end.wait(0.02):
            for pid in self._nodes:
                with contextlib.suppress(psutil.Error, OSError):
                    self.node[pid] = max(self.node[pid], memory(pid).total)
                    for child in psutil.Process(pid).children(recursive=True):
                        used = memory(child.pid)
                        self.below[child.pid] = max(self.below[child.pid], used.peak)

    def peaks(self):
        """(a node, the largest process below one)"""
        return max(self.node.values()), max(self.below.values(), default=0)


def measure(kind, folder):
    """Object bytes a second through both nodes."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    flags, node = {"home": home / "server"}, umbel_node()
    if kind == "upstream":
        flags["database"], node = home / "state.db", STOCK
    out = home / "rounds.json"
    config = {"tensors": TENSORS, "tensor-bytes": MODEL_MB * 1_000_000 // TENSORS // 4 * 4}
    with servers.start_server(kind, **flags) as server:
        with Federation(server, home / "federation", nodes=NODES, node=node) as federation:
            fab = federation.build(APP)
            with Watch(federation) as watch:
                run_id = federation.start({**config, "output": str(out)}, fab)
                federation.wait_state(run_id, "finished:completed", 900.0)
            federation.wait_gone(federation.serverapps(), 30)
    (done,) = json.loads(out.read_text())
    if done["errors"] or done["distinct"] != NODES:
        raise RuntimeError(f"{kind}: {done}")
    rate = 2 * NODES * config["tensors"] * config["tensor-bytes"] / done["seconds"]
    site, below = watch.peaks()
    if kind == "umbel":
        peaks.append((site, below))
    say(
        f"  {kind}: {done['seconds']:.2f} s, {rate / 1e6:.0f} MB/s, node {site / 1e6:.1f} MB, "
        f"largest process below it {below / 1e6:.1f} MB"
    )
    return rate


def main():
    recorder = Recorder("n4", "node_objects")
    with workspace() as folder:
        found = pairs(lambda: measure("umbel", folder), lambda: measure("upstream", folder))
    gain = ratio(found)
    ours, theirs = (median([pair[side] for pair in found]) for side in (0, 1))
    what = f"{MODEL_MB} MB out and back, {NODES} nodes, over upstream"
    figure = f"{gain:.1f} × ({ours / 1e6:.0f} of {theirs / 1e6:.0f} MB/s of objects)"
    recorder.note(what, figure, "≥ 5 ×", at_least(gain, 5))
    site, below = max(peaks)
    figure = f"{site / 1e6:.1f} MB; with its ClientApp {(site + below) / 1e6:.0f} MB"
    recorder.note(
        "memory of the node meanwhile", figure, "≤ 64 MiB + 16 objects", at_most(site, NODE_BYTES)
    )
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
