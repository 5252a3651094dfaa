"""Row 13: histories of simulated rounds, under ASan and UBSan, two processes at a time."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.servers import REPO

TEST = REPO / "build" / "dev" / "src" / "superlink" / "superlink_test"
AT_ONCE = 2
PART = 250  # histories of one process


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` histories from `seed` on; a fault is printed with the seed that replays it."""
    del kind  # ours only
    if not (REPO / "build" / "dev" / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", "dev"], cwd=REPO, check=True)
    build = ["cmake", "--build", "--preset", "dev", "--target", "superlink_test"]
    subprocess.run(build, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    kills = accepted = done = 0
    faults: list[str] = []

    def part(first: int) -> tuple[str, int]:
        size = min(PART, seed + count - first)
        env = {**os.environ, "UMBEL_SEED": str(first), "UMBEL_SEEDS": str(size)}
        command = [TEST, "--gtest_filter=Simulation.*"]
        run = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
        (folder / f"from-{first}.log").write_text(run.stdout + run.stderr)
        if run.returncode != 0 and "UMBEL_SEED=" not in run.stdout:
            return f"UMBEL_SEED from {first}: status {run.returncode}", size
        return run.stdout, size

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for text, size in pool.map(part, range(seed, seed + count, PART)):
            done += size
            faults += re.findall(r"UMBEL_SEED.*", text) if "[  PASSED  ] 1 test" not in text else []
            if told := re.search(r"(\d+) kills.*?(\d+) replies accepted", text):
                kills, accepted = kills + int(told[1]), accepted + int(told[2])
            say(f"{done}/{count}: {kills} kills, {accepted} replies accepted, {faults or 'no fault'}")
    if faults:
        raise AssertionError(f"{len(faults)} faults: {faults[0]}")
    return f"{count} histories, {kills} kills, {accepted} replies accepted, no invariant broken"
