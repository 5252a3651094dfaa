"""Row r5: a large model to two clients and back in a native round, every reply another one, beside
all of Flower's.

Our clients are sites of one C++ ClientApp (umbel_heavy). Our time is all of the phase: from asking
to the next global model's being stored, so that the aggregation is in it. Upstream's is its
ServerApp's from first byte out to last byte in, without any aggregation, of a smaller model; both
are counted by the byte.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from _bench import Recorder, at_least, median, pairs, ratio, say, servers, workspace
from _rounds import APP, check_received, model, native_run, native_sites, received, records, size

from tests.harness.federation import STOCK, Federation

CLIENTS, TENSORS = 2, 40
MODEL_MB = int(os.environ.get("UMBEL_BENCH_MB", "1000"))
UPSTREAM_MB = int(os.environ.get("UMBEL_BENCH_UPSTREAM_MB", "256"))
TIMES = []  # of ours: (collected, closed), seconds
RECEIVED = []  # of ours: bytes of arrays


def ours(home):
    arrays = model(MODEL_MB * 1_000_000, TENSORS)
    wanted = CLIENTS * size(arrays)
    with servers.start_server("umbel", home=home / "server") as server:
        with Federation(server, home / "federation", start_nodes=False) as federation:
            with native_sites(federation, CLIENTS, CLIENTS):
                run_id = native_run(federation, arrays, "--rounds", 1)
                phase = records(server, run_id)[0].phase
                counted = received(server, size(arrays))
    if phase.accepted != CLIENTS or phase.bytes_received != wanted:
        raise RuntimeError(f"{phase.bytes_received} bytes of {wanted}: {phase}")
    check_received(counted, wanted, wanted // (5 << 20))
    TIMES.append((phase.seconds_collected, phase.seconds_closed))
    RECEIVED.append(counted)
    return 2 * wanted, phase.seconds_collected + phase.seconds_closed


def theirs(home):
    out = home / "rounds.json"
    config = {"tensors": TENSORS, "tensor-bytes": UPSTREAM_MB * 1_000_000 // TENSORS // 4 * 4}
    with servers.start_server(
        "upstream", home=home / "server", database=home / "state.db"
    ) as server:
        with Federation(server, home / "federation", nodes=CLIENTS, node=STOCK) as federation:
            fab = federation.build(APP)
            run_id = federation.start({**config, "output": str(out)}, fab)
            federation.wait_state(run_id, "finished:completed", 900.0)
            federation.wait_gone(federation.serverapps(), 30)
    (done,) = json.loads(out.read_text())
    if done["errors"] or done["distinct"] != CLIENTS:
        raise RuntimeError(f"upstream: {done}")
    return 2 * CLIENTS * TENSORS * config["tensor-bytes"], done["seconds"]


def measure(kind, folder):
    """Object bytes a second, out and back."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    moved, seconds = (ours if kind == "umbel" else theirs)(home)
    more = ""
    if kind == "umbel":
        collected, closed = TIMES[-1]
        more = f" (collected {collected:.2f}, closed {closed:.2f}; {RECEIVED[-1]} bytes received)"
    say(f"  {kind}: {moved / 1e6:.0f} MB in {seconds:.2f} s, {moved / seconds / 1e6:.0f} MB/s{more}")
    shutil.rmtree(home)  # gigabytes, before the next turn
    return moved / seconds


def main():
    recorder = Recorder("r5", "native_model")
    with workspace() as folder:
        found = pairs(lambda: measure("umbel", folder), lambda: measure("upstream", folder))
    gain = ratio(found)
    ours_rate, theirs_rate = (median([pair[side] for pair in found]) for side in (0, 1))
    model_bytes = MODEL_MB * 1_000_000
    figure = (
        f"{gain:.1f} × ({ours_rate / 1e6:.0f} of {theirs_rate / 1e6:.0f} MB/s of objects; "
        f"collected in {median([c for c, _ in TIMES]):.2f} s, "
        f"closed in {median([c for _, c in TIMES]):.2f} s; object bytes received "
        f"{median(RECEIVED) / model_bytes:.4f} models)"
    )
    what = f"{MODEL_MB} MB out and back, {CLIENTS} clients, over upstream's {UPSTREAM_MB} MB by the byte"
    recorder.note(what, figure, "≥ 10 ×", at_least(gain, 10))
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
