"""Row r4: the toy app over two nodes, train and evaluate: a native round beside one of Flower's.

Ours has no ServerApp: `umbel run`, and the SuperLink runs the rounds; its nodes are ours with
`worker` hosting. A round of ours lasts from the record of one evaluation to that of the next,
upstream's by the notes of its ServerApp: everything between two rounds is in both.
"""

import os
import sys
import tempfile
from pathlib import Path

from _bench import Recorder, at_least, median, pairs, ratio, say, servers, workspace
from _rounds import records

from tests.harness.federation import STOCK, Federation, toy_model, toy_sites, umbel_node

NODES = 2
ROUNDS = {"umbel": int(os.environ.get("UMBEL_BENCH_ROUNDS", "50")), "upstream": 3}
PAYLOAD_KB = 1  # the toy's own
ALL = []  # of ours: seconds of every round


def ours(server, federation, folder):
    """When each round closed, the first one first."""
    out, rounds = folder / "model.npz", ROUNDS["umbel"]
    command = federation.umbel_run(
        toy_model.initial(1, PAYLOAD_KB), "--rounds", rounds, "--watch", "--out", out
    )
    done = command.result(300.0)
    if done.exit_code != 0:
        raise RuntimeError(done.output)
    import numpy as np

    want = toy_model.expected(1, rounds, PAYLOAD_KB, toy_sites(NODES))
    if toy_model.digest(dict(np.load(out))) != toy_model.digest(want):
        raise RuntimeError("the model is another one")
    told = records(server, done.run_id)
    if any(one.phase.accepted != NODES for one in told[:-1]):
        raise RuntimeError(done.output)
    return [one.at for one in told if one.kind == "evaluate"]


def theirs(federation):
    output, rounds = federation.output(), ROUNDS["upstream"]
    run_id = federation.start({"num-server-rounds": rounds, "min-nodes": NODES, **output.config})
    federation.wait_state(run_id, "finished:completed", 300.0)
    closed = {note["round"]: note["time"] for note in output.notes("round closed")}
    federation.wait_gone(federation.serverapps(), 30)
    return [closed[n] for n in range(1, rounds + 1)]


def measure(kind, folder):
    """The median round, in seconds, without the first, in which both sides import."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    flags, node = {"home": home / "server"}, umbel_node("worker")
    if kind == "upstream":
        flags["database"], node = home / "state.db", STOCK
    with servers.start_server(kind, **flags) as server:
        with Federation(server, home / "federation", nodes=NODES, node=node) as federation:
            closed = ours(server, federation, home) if kind == "umbel" else theirs(federation)
    seconds = [after - before for before, after in zip(closed, closed[1:])]
    if kind == "umbel":
        ALL.extend(seconds)
    rest = ", ".join(f"{one:.3f}" for one in seconds[:5])
    say(f"  {kind}: {rest}{' …' * (len(seconds) > 5)} s a round, median {median(seconds):.3f}")
    return median(seconds)


def main():
    recorder = Recorder("r4", "native_rounds")
    with workspace() as folder:
        found = pairs(lambda: measure("upstream", folder), lambda: measure("umbel", folder))
    gain = ratio(found)
    theirs_s, ours_s = (median([pair[side] for pair in found]) for side in (0, 1))
    figure = (
        f"{gain:.0f} × ({1e3 * ours_s:.0f} ms of {theirs_s:.1f} s a round; "
        f"worst of {len(ALL)} rounds {1e3 * max(ALL):.0f} ms)"
    )
    what = "a native round over one of all upstream"
    recorder.note(what, figure, "≥ 100 ×", at_least(gain, 100))
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
