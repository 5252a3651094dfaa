"""Row r9, the hash: 5 MiB messages side by side, each path of this CPU, beside OpenSSL.

Both sides alternate within one process of umbel_hash. On a CPU with SHA instructions OpenSSL is
told not to see them (OPENSSL_ia32cap) where the bar is about CPUs without them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from _bench import PAIRS, REPO, Recorder, at_least, median, say

DEPTHS = (1, 2, 4, 8, 16)
WITHOUT_SHA = ":~0x20000000"  # bit 29 of EBX in CPUID's leaf 7
BARS = {
    "avx512": {4: 2.5, 8: 5.0, 16: 5.0},
    "avx2": {8: 3.0, 16: 3.0},
    "generic": {},
}
PIECE = 256 << 10


def program():
    return Path(os.environ.get("UMBEL_HASH", REPO / "build/release/bench/umbel_hash"))


def run(path, without_sha, *arguments):
    """What umbel_hash prints, or None if this CPU does not execute the path."""
    environment = {**os.environ, "UMBEL_CPU": path}
    environment.pop("OPENSSL_ia32cap", None)
    if without_sha:
        environment["OPENSSL_ia32cap"] = WITHOUT_SHA
    command = [str(program()), "--pairs", str(3 * PAIRS), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode == 2:
        say(f"  not run: {done.stderr.strip()}")
        return None
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def ratios(entries):
    """By depth: (median over pairs of ours/OpenSSL's, our median, OpenSSL's median, kernel)."""
    return {
        entry["depth"]: (
            median([a / b for a, b in zip(entry["ours"], entry["openssl"], strict=True)]),
            median(entry["ours"]),
            median(entry["openssl"]),
            entry["kernel"],
        )
        for entry in entries
    }


def note(recorder, what, found, bars):
    """One row; the bar is met if it is at every depth that has one."""
    for depth, (gain, ours, theirs, kernel) in found.items():
        say(f"  {what}, {depth} waiting: {gain:.2f} × ({ours:.2f} of {theirs:.2f} GB/s), {kernel}")
    figure = ", ".join(f"{gain:.2f} × at {depth}" for depth, (gain, *_) in found.items())
    theirs = median([entry[2] for entry in found.values()])
    figure += f" (OpenSSL {theirs:.2f} GB/s)"
    if not bars:
        recorder.note(what, figure, "none", "—")
        return
    worst = min(bars, key=lambda depth: found[depth][0] / bars[depth])
    bar = ", ".join(f"≥ {bars[depth]:g} × at {depth}" for depth in bars)
    if len(bars) == len(DEPTHS):
        bar = f"≥ {min(bars.values()):g} ×"
    recorder.note(what, figure, bar, at_least(found[worst][0], bars[worst]))


def main():
    recorder = Recorder("r9", "hash")
    depths = [word for depth in DEPTHS for word in ("--depths", depth)]
    for path, bars in BARS.items():
        found = run(path, True, *depths)
        if found:
            what = f"hash, {path}, over OpenSSL without SHA instructions"
            note(recorder, what, ratios(found["depths"]), bars)
    found = run("avx512", True, *depths, "--piece", PIECE)
    if found:
        what = f"hash in pieces of {PIECE >> 10} KiB, avx512, over the same"
        note(recorder, what, ratios(found["depths"]), BARS["avx512"])
    for arguments, what in (
        ((), "hash, sha_ni, over OpenSSL with SHA instructions"),
        (("--piece", PIECE), f"hash in pieces of {PIECE >> 10} KiB, sha_ni, over the same"),
    ):
        found = run("sha_ni", False, *depths, *arguments)
        if found:
            note(recorder, what, ratios(found["depths"]), dict.fromkeys(DEPTHS, 0.8))
    found = run("", False, "--kernels")
    for entry in found["kernels"]:
        gain = median([a / b for a, b in zip(entry["ours"], entry["openssl"], strict=True)])
        say(f"  kernel {entry['kernel']}, {entry['lanes']} busy: {median(entry['ours']):.2f} GB/s, "
            f"{gain:.2f} × OpenSSL")  # fmt: skip
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
