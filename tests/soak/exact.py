"""Row 1 of native rounds: exact means beside the exact rational at full size, on every kernel of this CPU."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.harness.servers import REPO

BUILD = REPO / "build" / "release-tests"
TEST = BUILD / "src" / "aggregation" / "aggregation_test"


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` turns of the optimised tests with UMBEL_SIZE=full, each with the next seed."""
    del kind  # ours only
    configure = ["cmake", "--preset", "release", "-B", BUILD, "-DUMBEL_TESTS=ON"]
    for command in (configure, ["cmake", "--build", BUILD, "--target", "aggregation_test"]):
        subprocess.run(command, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    passed = 0
    for turn in range(count):
        env = {**os.environ, "UMBEL_SIZE": "full", "UMBEL_SEED": str(seed + turn)}
        command = [TEST, "--gtest_filter=ExactSum*"]
        run = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
        (folder / f"{turn}.log").write_text(run.stdout + run.stderr)
        if run.returncode != 0:
            raise AssertionError(f"seed {seed + turn}: {run.stdout[-2000:]}")
        passed += int(re.search(r"\[  PASSED  \] (\d+) test", run.stdout)[1])
        say(f"turn {turn + 1}/{count}: no mismatch")
    return f"{passed} tests at full size, no mismatch"
