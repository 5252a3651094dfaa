"""Row 6: every libFuzzer target for as long as the table says, two at a time.

UMBEL_FUZZ_ONLY="name name" and UMBEL_FUZZ_AT_ONCE=1 take some of them, one after another.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.harness.servers import REPO

BUILD = REPO / "build" / "fuzz"
AT_ONCE = int(os.environ.get("UMBEL_FUZZ_AT_ONCE", "2"))


def targets() -> list[str]:
    """The built fuzzers, by name: each has a folder of seeds."""
    return sorted(path.name for path in (REPO / "fuzz" / "corpus").iterdir() if path.is_dir())


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """Runs each target for `count` seconds; a finding is left in build/fuzz/findings."""
    del kind  # our decoders only
    names = os.environ.get("UMBEL_FUZZ_ONLY", "").split() or targets()
    for command in (["cmake", "--preset", "fuzz"], ["ninja", "-C", str(BUILD), *names]):
        subprocess.run(command, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    findings = BUILD / "findings"
    findings.mkdir(exist_ok=True)
    waiting, running, bad, runs = list(names), {}, [], 0

    def start(name: str) -> subprocess.Popen:
        corpus = folder / name
        corpus.mkdir(parents=True, exist_ok=True)
        log = open(folder / f"{name}.log", "wb")
        say(f"{name}: {count} s")
        return subprocess.Popen(
            ["nice", str(BUILD / "fuzz" / name), f"-max_total_time={count}", f"-seed={seed}",
             "-rss_limit_mb=2048", "-timeout=20", "-print_final_stats=1",
             f"-artifact_prefix={findings}/{name}-", str(corpus), str(REPO / "fuzz/corpus" / name)],
            stdout=log, stderr=subprocess.STDOUT, cwd=REPO,
        )  # fmt: skip

    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            running[name] = start(name)
        done = [name for name, process in running.items() if process.poll() is not None]
        if not done:
            time.sleep(1.0)  # children end by their own clock; nothing else tells
            continue
        for name in done:
            status = running.pop(name).returncode
            text = (folder / f"{name}.log").read_text(errors="replace")
            executed = [line for line in text.splitlines() if "number_of_executed_units" in line]
            runs += int(executed[-1].split()[-1]) if executed else 0
            say(f"{name}: {'clean' if status == 0 else f'FINDING (status {status})'}")
            if status != 0:
                bad.append(name)
    if bad:
        raise AssertionError(f"findings in {', '.join(bad)}; see build/fuzz/findings")
    which = "all" if len(names) == len(targets()) else ", ".join(names)
    return f"{len(names)} targets ({which}) × {count} s, {runs} inputs, no finding"
