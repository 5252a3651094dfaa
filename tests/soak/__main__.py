"""Run one row of the table long: python -m tests.soak ROW [--count N] [--seed S]

Prints its seed first, so that a run can be repeated, and appends one line about it to
docs/soak.md: row, result, count, seed, commit, load, date. A row is an entry in ROWS.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.harness.servers import REPO
from tests.soak import (
    crash,
    exact,
    fuzz,
    native_crash,
    node_crash,
    ops_idle,
    ops_kills,
    ops_many,
    simulation,
)

HEADER = """# Soak runs

Each line is one `./run soak ROW`: the rows are those of the table of requirements, the load is
the machine's one-minute load average at the beginning and at the end.

| row | what | result | count | seed | commit | load | minutes | date (UTC) |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """`run(kind, folder, count, seed, say)` returns what was shown, or raises."""

    title: str
    count: int
    run: Callable[[str, Path, int, int, Callable[[str], None]], str]


def pytest_row(*paths: str) -> Callable[..., str]:
    """A row whose long form is its tests, the slow ones included, `count` times over."""

    def run(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
        for turn in range(count):
            say(f"{turn + 1}/{count}: {' '.join(paths)}")
            env = {**os.environ, "UMBEL_SOAK": "1", "UMBEL_SEED": str(seed + turn)}
            env["UMBEL_E2E_SERVER"] = kind
            command = [sys.executable, "-m", "pytest", "-q", "-x", *paths]
            command += [f"--basetemp={folder / f'turn-{turn}'}"]
            done = subprocess.run(command, cwd=REPO, env=env)
            if done.returncode != 0:
                raise AssertionError(f"turn {turn + 1} of {count}: pytest said {done.returncode}")
        return f"{count} × all tests passed"

    return run


ROWS = {
    "n6": Row("100 native sites", 1, pytest_row("tests/e2e/test_native_clientapp.py")),
    "1": Row("stock programs", 3, pytest_row("tests/e2e/test_row1_commands.py")),
    "3": Row("process isolation", 3, pytest_row("tests/e2e/test_row3_isolation.py")),
    "4": Row("kill -9 of the SuperLink", 20, crash.soak),
    "5": Row("failures of all others", 3, pytest_row("tests/e2e/test_row5_failures.py")),
    "7": Row("hostile peers", 1, pytest_row("tests/hostile")),
    "6": Row("fuzzing, seconds a target", 600, fuzz.soak),
    # Of native rounds.
    "r1": Row("exact means at full size", 1, exact.soak),
    "r3": Row("native rounds: Fashion-MNIST beside Flower", 1,
              pytest_row("tests/e2e/test_native_fashion.py")),
    "10": Row("native rounds: kill -9 of the SuperLink", 100, native_crash.soak),
    "11": Row("hostile updates", 3, pytest_row("tests/e2e/test_native_hostile.py")),
    "13": Row("simulated rounds", 10_000, simulation.soak),
    # Of the SuperNode.
    "n1": Row("SuperNode: pairings", 1, pytest_row("tests/e2e/test_supernode_pairings.py")),
    "n2": Row("SuperNode: keys and rules", 3, pytest_row("tests/e2e/test_supernode_keys.py")),
    "n7": Row("SuperNode: kill -9 and bad networks", 50, node_crash.soak),
    "n8": Row("SuperNode: hostile apps", 3, pytest_row("tests/e2e/test_supernode_hostile.py")),
    # Of the operations plane.
    "ops-kills": Row("operations: kill -9 of the manager, and of each service", 30, ops_kills.soak),
    "ops-many": Row("operations: projects at once", 20, ops_many.soak),
    "ops-disk": Row("operations: a full disk", 1, pytest_row("tests/ops/test_full_disk.py")),
    "ops-doors": Row("operations: schemathesis on both REST doors", 1,
                     pytest_row("tests/ops/test_fuzz.py")),
    "ops-idle": Row("operations: idle, for seconds", 60, ops_idle.soak),
}


def commit() -> str:
    """The checked-out commit, with a + if files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=10", "HEAD")
    return (head or "none") + ("+" if git("status", "--porcelain") else "")


def record(path: Path, cells: list[object]) -> None:
    """Append one line; the table's head comes with the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "" if path.exists() else HEADER
    cleaned = [" ".join(str(cell).split()).replace("|", "/") for cell in cells]
    with open(path, "a") as file:
        file.write(text + "| " + " | ".join(cleaned) + " |\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("row", choices=sorted(ROWS))
    parser.add_argument("--count", type=int, help="default: the table's")
    parser.add_argument("--seed", type=int, help="default: drawn, and printed")
    parser.add_argument("--server", choices=["umbel", "upstream"], default="umbel")
    parser.add_argument("--folder", type=Path, help="for logs; default: a temporary one")
    parser.add_argument("--record", type=Path, default=REPO / "docs" / "soak.md")
    chosen = parser.parse_args()
    row = ROWS[chosen.row]
    count = row.count if chosen.count is None else chosen.count
    seed = random.SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix=f"umbel-soak-{chosen.row}-"))
    folder.mkdir(parents=True, exist_ok=True)

    begin, load = time.monotonic(), os.getloadavg()[0]

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:7.1f} s] {text}", flush=True)

    say(f"row {chosen.row} ({row.title}): count {count}, seed {seed}, logs in {folder}")
    version = commit()
    try:
        result, passed = row.run(chosen.server, folder, count, seed, say), True
    except KeyboardInterrupt:
        say("interrupted; nothing is recorded")
        return 130
    except Exception as error:  # whatever it is, the record names it
        first = (str(error).splitlines() or [type(error).__name__])[0]
        result, passed = f"FAILED: {first[:200]}", False
    say(result)
    loads = f"{load:.1f} → {os.getloadavg()[0]:.1f}"
    minutes = f"{(time.monotonic() - begin) / 60:.1f}"
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    title = row.title if chosen.server == "umbel" else f"{row.title} ({chosen.server})"
    cells = [chosen.row, title, result, count, seed, version, loads, minutes, date]
    record(chosen.record, cells)
    if passed and chosen.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
