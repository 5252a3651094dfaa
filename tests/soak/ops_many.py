"""Row ops-many: many projects at once; they take turns by what the nodes have, and all finish."""

from __future__ import annotations

import collections
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.servers import wait_until
from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result
from tests.ops.up import DIGITS, Up, make_repository

ENDED = {"done", "failed", "cancelled"}


def check_now(up: Up) -> int:
    """No two living services have a name or a port in common, and no node has more than it can
    hold; how many projects have their learners now."""
    services = up.get("services")["services"]
    names = collections.Counter(service["name"] for service in services)
    ports = collections.Counter(service["port"] for service in services if service.get("port"))
    twice = [key for key, count in (names + ports).items() if count > 1]
    assert not twice, f"there twice: {twice} in {services}"
    for node in up.get("nodes")["nodes"]:
        for what, amount in node["reserved"].items():
            assert amount <= node["capacity"][what], node
    return sum(service["name"].startswith("flearner") for service in services)


def run_many(up: Up, repository: Path, count: int, say: Callable[[str], None]) -> str:
    begin = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        projects = list(pool.map(lambda _: up.submit(sla(repository)), range(count)))
    assert len(set(projects)) == count
    submitted = time.monotonic() - begin
    most, waited, version, done = 0, set(), 0, 0
    deadline = time.monotonic() + 300 + 120 * count

    while True:
        most = max(most, check_now(up))
        rows = [row for row in up.get("projects")["projects"] if row["id"] in projects]
        waited |= {
            row["id"] for row in rows if row["waiting_for"].startswith(("for room", "for its turn"))
        }
        ended = sum(row["stage"] in ENDED for row in rows)
        if ended > done:
            done = ended
            say(f"{done} of {count} projects have ended")
        if done == count:
            break
        assert time.monotonic() < deadline, "\n".join(up.story(project) for project in projects)
        version = up.get(f"changes?since={version}&wait=10")["version"]
    seconds = time.monotonic() - begin
    for project in projects:
        check_result(up, up.project(project))
        wait_until("nothing of it is left", lambda p=project: up.gone(p), 60)
    wait_until("there are no orphans", lambda: not up.orphans(), 30)
    return (
        f"{count} projects submitted in {submitted:.1f} s, done in {seconds:.1f} s, "
        f"{most} at most with learners at once, {len(waited)} waited for room"
    )


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    del kind
    random.seed(seed)
    up, repository = Up(folder / "up"), folder / "digits"
    make_repository(DIGITS, repository)
    up.start()
    try:
        return run_many(up, repository, count, say)
    finally:
        up.remove_all()
