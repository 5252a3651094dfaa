"""Row r7: 1 GB from six nodes: from the last byte of the last update to the next global model.

Both ends are on the clock of `umbel_load train`, outside the server. The last byte is the one of the
last object of the last reply, when the system has taken it from the sender: that is before the server
has read, hashed and stored that object. The next model is ready when the first node holds the
instruction that names it, in answer to a pull that was waiting. So receiving the tail, aggregation,
writing and committing the model, and waking the nodes are all inside.

The floor is umbel_close: one pass over sums of the same size, which gives the new numbers, and
hashing them, on all cores, nothing written.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _bench import PAIRS, Recorder, at_most, median, say, servers, shutil, workspace
from _rounds import (
    Trainers, check_received, model, native_run, program, received, records, size,
)  # fmt: skip

from tests.harness.federation import Federation

NODES = int(os.environ.get("UMBEL_BENCH_NODES", "6"))
MODEL_MB = int(os.environ.get("UMBEL_BENCH_MB", "1000"))


def floor():
    """Seconds."""
    command = [program("umbel_close"), "--elements", MODEL_MB * 250_000, "--updates", NODES]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    say(
        f"  floor: {found['seconds']:.3f} s (the pass alone {found['mean_seconds']:.3f}, hashing "
        f"alone {found['hash_seconds']:.3f}; {found['threads']} threads)"
    )
    return found["seconds"]


def measure(order, folder):
    """Seconds from the last byte to the next model."""
    home = Path(tempfile.mkdtemp(prefix=f"{order}-", dir=folder))
    arrays = model(MODEL_MB * 1_000_000)
    with servers.start_server("umbel", home=home / "server") as server:
        with Federation(server, home / "federation", start_nodes=False) as federation:
            with Trainers(server, NODES, 2, "--order", order) as trainers:
                run_id = native_run(
                    federation, arrays, "--rounds", 1, "--set", "fraction_evaluate=1",
                    "--set", f"min_available_nodes={NODES}", trainers=trainers,
                )  # fmt: skip
                train, evaluate = trainers.phases()
                record = records(server, run_id)[0]
                counted = received(server, size(arrays))
    shutil.rmtree(home)
    told = record.phase
    wanted = NODES * size(arrays)
    if told.accepted != NODES or train["array_bytes"] != wanted:
        raise RuntimeError(f"{told.accepted} of {NODES}, {train}")
    check_received(counted, wanted, wanted // (5 << 20))
    seconds = evaluate["first_asked"] - train["last_byte"]
    sending = train["last_byte"] - train["first_sent"]
    # The engine's own times, on the same clock.
    closes = record.at - told.seconds_closed
    say(
        f"  {order} order: {seconds:.3f} s after the last byte, sent in {sending:.1f} s: "
        f"{closes - train['last_byte']:.3f} until the engine had folded what had come, "
        f"{told.seconds_closed:.3f} until the model was written, "
        f"{evaluate['first_asked'] - record.at:.3f} until a node held the next instruction "
        f"({counted} bytes received)"
    )
    return seconds


def main():
    recorder = Recorder("r7", "native_latency")
    turns = []
    with workspace() as folder:
        for turn in range(PAIRS):
            say(f"turn {turn + 1} of {PAIRS}")
            steps = {
                "floor": floor,
                "native": lambda: measure("native", folder),
                "stock": lambda: measure("stock", folder),
            }
            names = list(steps) if turn % 2 == 0 else list(reversed(steps))
            turns.append({name: steps[name]() for name in names})

    def over(name):
        return median([turn[name] / turn["floor"] for turn in turns])

    at = {name: median([turn[name] for turn in turns]) for name in turns[0]}
    recorder.note(
        f"{MODEL_MB} MB from {NODES} nodes, last byte to next model, over the floor",
        f"{over('native'):.2f} × ({at['native']:.2f} of {at['floor']:.2f} s; replies in the order of "
        f"stock nodes {at['stock']:.2f} s, {over('stock'):.1f} ×)",
        "≤ 1.3 ×",
        at_most(over("native"), 1.3),
    )
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
