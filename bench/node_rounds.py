"""Row n3: the toy app with its own ServerApp over two nodes, train and evaluate: all ours beside all
of Flower's.

The time of a round is the ServerApp's own, between the notes that it writes after each.
"""

import os
import sys
import tempfile
from pathlib import Path

from _bench import Recorder, at_least, median, pairs, ratio, say, servers, workspace

from tests.harness.federation import STOCK, Federation, umbel_node

NODES = 2
ROUNDS = {"umbel": int(os.environ.get("UMBEL_BENCH_ROUNDS", "20")), "upstream": 3}
ALL = []  # of ours: seconds of every round


def measure(kind, folder):
    """The median round, in seconds, without the first, in which both sides import."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    flags, node, rounds = {"home": home / "server"}, umbel_node(), ROUNDS[kind]
    if kind == "upstream":
        flags["database"], node = home / "state.db", STOCK
    with servers.start_server(kind, **flags) as server:
        with Federation(server, home / "federation", nodes=NODES, node=node) as federation:
            output = federation.output()
            config = {"num-server-rounds": rounds, "min-nodes": NODES, **output.config}
            run_id = federation.start(config)
            federation.wait_state(run_id, "finished:completed", 300.0)
            closed = {note["round"]: note["time"] for note in output.notes("round closed")}
            federation.wait_gone(federation.serverapps(), 30)
    seconds = [closed[n] - closed[n - 1] for n in range(1, rounds + 1)]
    if kind == "umbel":
        ALL.extend(seconds[1:])
    rest = ", ".join(f"{one:.3f}" for one in seconds[1:6])
    say(f"  {kind}: round 1 {seconds[0]:.2f} s, then {rest}{' …' * (rounds > 6)}")
    return median(seconds[1:])


def main():
    recorder = Recorder("n3", "node_rounds")
    with workspace() as folder:
        found = pairs(lambda: measure("upstream", folder), lambda: measure("umbel", folder))
    gain = ratio(found)
    theirs, ours = (median([pair[side] for pair in found]) for side in (0, 1))
    figure = (
        f"{gain:.1f} × ({1e3 * ours:.0f} ms of {theirs:.1f} s a round; "
        f"worst of {len(ALL)} rounds {1e3 * max(ALL):.0f} ms)"
    )
    recorder.note("a round, all ours over all upstream", figure, "≥ 20 ×", at_least(gain, 20))
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
