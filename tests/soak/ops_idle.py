"""Row ops-idle: what `umbel up` without projects takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.ops.up import Up

MEMORY_MB = 60
CPU_PERCENT = 1.0  # of one core


def measure(up: Up, seconds: float) -> tuple[float, float, int]:
    """PSS in MB and CPU in percent of one core of all its processes, and how many these are."""
    processes = up.processes()
    before = [sum(process.cpu_times()[:2]) for process in processes]
    begin = time.monotonic()
    time.sleep(seconds)  # what is measured is time in which nothing happens
    used = sum(sum(p.cpu_times()[:2]) - b for p, b in zip(processes, before, strict=True))
    took = time.monotonic() - begin
    memory = sum(process.memory_full_info().pss for process in processes) / 1e6
    return memory, 100 * used / took, len(processes)


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` seconds."""
    del kind, seed
    up = Up(folder / "up")
    up.start()
    try:
        up.get("projects")
        memory, cpu, processes = measure(up, count)
        line = f"{memory:.1f} MB, {cpu:.2f} % of a core over {count} s, {processes} process(es)"
        assert memory <= MEMORY_MB and cpu <= CPU_PERCENT, line
        return line
    finally:
        up.remove_all()
