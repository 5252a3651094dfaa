"""Row r8: the exact weighted mean of 200 updates of 10 M float32 in memory.

Beside NumPy's in-place float32 (`p += (w / W) * x`, which is what Flower's strategies do), beside
`np.average`, and beside a plain read of the same bytes, all in turn. Each side has the same numbers
of updates; `UMBEL_FOLD_ELEMENTS` and `UMBEL_FOLD_UPDATES` shrink them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _bench import PAIRS, REPO, Recorder, at_least, median, say

ELEMENTS = int(os.environ.get("UMBEL_FOLD_ELEMENTS", "10000000"))
UPDATES = int(os.environ.get("UMBEL_FOLD_UPDATES", "200"))
GROUP = int(os.environ.get("UMBEL_FOLD_GROUP", "64"))  # all updates are there at once
AVERAGED = 20  # updates in one np.average; its temporary doubles take twice their memory
CORES = os.cpu_count() or 1


def ours(threads, group):
    """The program's figures; GB/s are of float32 input."""
    program = Path(os.environ.get("UMBEL_FOLD", REPO / "build/release/bench/umbel_fold"))
    command = [program, "--elements", ELEMENTS, "--updates", UPDATES]
    command += ["--group", group, "--threads", threads]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    # The mean is part of the work: NumPy's loop ends with one.
    seconds = found["fold_seconds"] + found["mean_seconds"]
    found["all_gb_per_s"] = found["gb"] / seconds
    say(
        f"  ours, {threads} threads, groups of {group}: {found['all_gb_per_s']:.2f} GB/s with the "
        f"mean (fold {found['first_gb_per_s']:.2f}, again {found['fold_gb_per_s']:.2f}; mean "
        f"{1e3 * found['mean_seconds']:.0f} ms); read {found['read_gb_per_s']:.2f} GB/s; "
        f"{found['state_bytes_per_element']:.1f} bytes of state a parameter; {found['kernels']}"
    )
    return found


def numpy_sides():
    """GB/s of the in-place loop and of np.average, both on one thread."""
    random = np.random.default_rng(1)
    pool = random.standard_normal(65537, dtype=np.float32)
    distinct = [np.resize(np.roll(pool, 97 * i), ELEMENTS) for i in range(AVERAGED)]
    weights = [50.0 + i * 37 % 4951 for i in range(UPDATES)]
    total = sum(weights)
    start = time.perf_counter()
    mean = distinct[0] * (weights[0] / total)
    for i in range(1, UPDATES):
        mean += distinct[i % AVERAGED] * (weights[i] / total)
    in_place = 4e-9 * ELEMENTS * UPDATES / (time.perf_counter() - start)
    stack = np.stack(distinct)
    del distinct
    start = time.perf_counter()
    np.average(stack, axis=0, weights=weights[:AVERAGED])
    average = 4e-9 * ELEMENTS * AVERAGED / (time.perf_counter() - start)
    say(f"  NumPy {np.__version__}: in place {in_place:.2f}, average {average:.2f} GB/s")
    return in_place, average


def main():
    recorder = Recorder("r8", "fold")
    turns = []
    for turn in range(PAIRS):
        say(f"turn {turn + 1} of {PAIRS}")
        steps = {
            "one": lambda: ours(1, GROUP),
            "all": lambda: ours(CORES, GROUP),
            "numpy": numpy_sides,
        }
        names = list(steps) if turn % 2 == 0 else list(reversed(steps))
        turns.append({name: steps[name]() for name in names})

    def rate(name):
        return median([turn[name]["all_gb_per_s"] for turn in turns])

    for place, what, bar in ((0, "NumPy's in-place float32", 1.2), (1, "np.average", 2.5)):
        gain = median([turn["one"]["all_gb_per_s"] / turn["numpy"][place] for turn in turns])
        other = median([turn["numpy"][place] for turn in turns])
        recorder.note(
            f"exact mean, one core, over {what}",
            f"{gain:.1f} × ({rate('one'):.2f} of {other:.2f} GB/s)",
            f"≥ {bar} ×",
            at_least(gain, bar),
        )
    share = median(
        [turn["all"]["all_gb_per_s"] / turn["all"]["read_gb_per_s"] for turn in turns]
    )
    roof = median([turn["all"]["read_gb_per_s"] for turn in turns])
    recorder.note(
        f"exact mean, {CORES} cores, of the read roof",
        f"{share:.2f} ({rate('all'):.2f} of {roof:.2f} GB/s)",
        "≥ 0.25",
        at_least(share, 0.25),
    )
    state = max(turn["one"]["state_bytes_per_element"] for turn in turns)
    recorder.note(
        "state of exact sums, gaussian float32", f"{state:.1f} bytes a parameter", "about 16",
        at_least(17 / state, 1),
    )  # fmt: skip
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
