"""Row 11: idle nodes with P-256 keys, held in pull-messages and heartbeating at the stock period."""

import json
import os
import subprocess
import sys
import threading

from _bench import (
    Recorder, at_most, cpu_seconds, fresh_server, generate, memory, say, umbel_load, workspace,
)  # fmt: skip

# (nodes, seconds measured after a warm-up of more than one heartbeat period)
SIZES = ((1000, 60), (3000, 30), (10_000, 40))
WARM = 25


def measure(folder, nodes, seconds, verify_seconds):
    """CPU share of one core, peak memory, and the share that signature checks must take."""
    with fresh_server("umbel", folder) as (server, _):
        command = [umbel_load(), "idle", "--port", server.port, "--nodes", nodes]
        command += ["--warm", WARM + nodes // 1000, "--seconds", seconds]
        child = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        timer = threading.Timer(300 + seconds, child.kill)
        timer.start()
        try:
            ready = json.loads(child.stdout.readline() or "{}")
            before, begin = cpu_seconds(server.pid), os.times().elapsed
            done = json.loads(child.stdout.readline() or "{}")
            spent, elapsed = cpu_seconds(server.pid) - before, os.times().elapsed - begin
            errors = child.stderr.read()
        finally:
            timer.cancel()
            child.wait()
        if child.returncode != 0:
            raise RuntimeError(errors)
        peak = memory(server.pid)
    share = spent / elapsed
    signatures = (done["heartbeats"] + done["polls"]) * verify_seconds / spent if spent else 0.0
    say(
        f"  {nodes} nodes: {100 * share:.2f} % of a core, {peak}, {done['heartbeats']} heartbeats "
        f"(p50 {done['heartbeat_p50_ms']:.2f}, p99 {done['heartbeat_p99_ms']:.2f} ms), held "
        f"{done['held']}, failures {done['failures']}, signatures {100 * signatures:.0f} % of it, "
        f"joined in {ready['join_seconds']:.1f} s"
    )
    return share, peak, done, signatures


def main():
    recorder = Recorder("11", "idle")
    verify_seconds = generate("signatures")["verify_seconds"]
    say(f"  one check of a P-256 signature: {1e6 * verify_seconds:.0f} us")
    found = {}
    with workspace() as folder:
        for nodes, seconds in SIZES:
            found[nodes] = measure(folder, nodes, seconds, verify_seconds)
    share, peak, _, signatures = found[1000]
    figure = f"{100 * share:.2f} % of a core, of which signature checks {100 * signatures:.0f} %"
    recorder.note("1 000 nodes, CPU", figure, "≤ 5 %", at_most(share, 0.05))
    recorder.note("1 000 nodes, memory", str(peak), "≤ 100 MB", at_most(peak.total, 100e6))
    big_share, big_peak, done, signatures = found[10_000]
    growth = big_share / (10 * share)
    figure = (
        f"{100 * big_share:.1f} % of a core ({growth:.2f} × linear), signature checks "
        f"{100 * signatures:.0f} %; held {done['held']}, failures {done['failures']}"
    )
    met = at_most(growth, 1.1) if done["failures"] == 0 else f"missed: {done['failures']} failures"
    recorder.note("10 000 nodes, CPU", figure, "linear (≤ 1.1 × 10 × that of 1 000)", met)
    figure = f"{big_peak}; {(big_peak.total - peak.total) / 9000 / 1e3:.1f} kB for each more node"
    recorder.note(
        "10 000 nodes, memory", figure, "linear (≤ 10 × that of 1 000)",
        at_most(big_peak.total, 10 * peak.total),
    )  # fmt: skip
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
