"""Row 8 of the SuperNode: ClientApps that misbehave. Each costs one error reply with the right code
and a reason a person can use, at once; and the next message works."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.harness.federation import Federation, edited_fab, umbel_node
from tests.harness.servers import REPO, start_server, wait_until

HOSTILE = REPO / "tests" / "apps" / "hostile"
TIME, MEMORY, PROCESSES, OUTPUT = 6, 300, 24, 1  # s, MiB, processes, MiB
SLACK_SECONDS = 20  # of a busy machine, and of a new process's imports; not a heartbeat's 60
LIMITS = ("--limit-time", TIME, "--limit-output", OUTPUT, "--limit-memory", MEMORY)
LIMITS += ("--limit-processes", PROCESSES)
STOPPED = r"^ClientApp stopped responding\. "
# What a message asks for, the code of its reply (None: an answer as if nothing were), and what the
# reason says.
STEPS: dict[str, tuple[int | None, str]] = {
    "raises": (2, r"^<class 'RuntimeError'>:<'it rains'>$"),
    "exits": (2, r"SystemExit.*3"),
    "leaves": (8, STOPPED + r".*status 3.*these are my last words"),
    "crashes": (8, STOPPED + r".*signal 11"),
    "is_killed": (8, STOPPED + r".*killed"),
    "hangs": (8, STOPPED + rf".*{TIME} s, this site's limit"),
    "spins": (8, STOPPED + rf".*{TIME} s, this site's limit"),
    "eats": (8, STOPPED + rf".*more memory than this site's limit, {MEMORY} MiB"),
    "forks": (2, r"BlockingIOError"),
    "forks_on": (8, STOPPED + rf".*{TIME} s, this site's limit"),
    "deserts": (None, ""),
    "returns_none": (2, r"None"),
    "returns_garbage": (2, r"."),
    "writes_garbage": (8, STOPPED + r"."),
    "closes_all": (8, STOPPED + r"."),
    "prints": (None, ""),
}
# What waits for the time to be over is the worker's in the same way.
RESIDENT_STEPS = {n: step for n, step in STEPS.items() if n not in ("spins", "forks_on")}
# Flower's own process fails by itself where the app gives it nothing to send.
STOCK_STEPS = {
    **RESIDENT_STEPS,
    "exits": (8, STOPPED + r".*status 3"),
    "forks": (8, STOPPED + r"."),  # time or memory, whichever is used up first
    "returns_none": (8, STOPPED + r".*without a reply"),
    "returns_garbage": (8, STOPPED + r".*without a reply"),
}
PER_HOST = {"worker": STEPS, "resident": RESIDENT_STEPS, "stock": STOCK_STEPS}
pytestmark = pytest.mark.usefixtures("umbel_bin")


def ask(federation: Federation, fab: bytes, *steps: str) -> list[dict]:
    """What came of one message for each step."""
    output = federation.output().stem
    run_id = federation.start({"steps": ",".join(steps), "output": str(output)}, fab)
    federation.wait_state(run_id, "finished:completed", 240)
    answers = json.loads(output.read_text())
    assert [answer["step"] for answer in answers] == list(steps)
    return answers


class Site:
    """A federation of one node, and what its ClientApp answered to each step."""

    def __init__(self, federation: Federation, host: str, steps: dict, fab: bytes):
        self.federation, self.host, self.fab = federation, host, fab
        (self.node,) = federation.nodes
        # In between the app is asked whether it is well; Flower's processes take too long for that.
        between = host != "stock"
        names = [name for step in steps for name in ((step, "well") if between else (step,))]
        answers = ask(federation, fab, *names, *(() if between else ("well",)))
        self.answers = {a["step"]: a for a in answers if a["step"] != "well"}
        self.well = [a for a in answers if a["step"] == "well"]


@pytest.fixture(scope="module", params=PER_HOST)
def site(request, folder) -> Iterator[Site]:
    host = request.param
    with start_server("umbel", home=folder / f"{host}-server") as server:
        kind = umbel_node(host, *LIMITS)
        with Federation(server, folder / host, nodes=1, node=kind) as federation:
            yield Site(federation, host, PER_HOST[host], federation.build(HOSTILE))
            federation.wait_gone(federation.serverapps(), 15)


@pytest.mark.parametrize("step", STEPS)
def test_one_reply_that_says_why(site, step):
    if step not in site.answers:
        pytest.skip(f"not with {site.host}")
    answer = site.answers[step]
    code, reason = PER_HOST[site.host][step]
    assert answer["code"] == code, answer
    if code is not None:
        assert re.search(reason, answer["reason"], re.DOTALL), answer
        assert len(answer["reason"]) < 2000
    assert answer["seconds"] < SLACK_SECONDS + TIME, answer


def test_the_next_message_works(site):
    assert [answer["code"] for answer in site.well] == [None] * len(site.well)
    counts = [answer["metrics"]["answered"] for answer in site.well]
    assert counts == sorted(set(counts))  # each began with the state that the one before had left
    assert site.node.running and site.node.child.pid == site.node._pids[0]


def test_no_process_stays(site):
    """Neither those that had put themselves into another session, nor what they had started."""
    metrics = site.answers["deserts"]["metrics"]
    if site.host == "resident":  # its process lives on, and so may what it has started
        site.node.restart()
    for name in ("daemon", "sleeper"):
        wait_until(f"the {name} is gone", lambda: not _lives(metrics[name]), 10)
    wait_until("the processes are few", lambda: len(site.node._descendants()) < 8, 10)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_its_output_is_bounded(site):
    """20 MB were printed; what the log took is the limit, and it says that there was more."""
    log = (site.node.home / "supernode.log").read_text(errors="replace")
    assert OUTPUT * 500_000 < log.count("x" * 900) * 1000 < OUTPUT * 1_300_000
    assert len(log) < 4_000_000
    assert re.search(r"output of a ClientApp was cut|bytes more were not kept", log)


def test_stock_hosting_does_not_promise_what_it_cannot_keep(umbel_bin):
    command = [umbel_bin, "supernode", "--insecure", "--clientapp-host", "stock", "--no-network"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2 and "needs the network" in done.stderr, done.stderr


def test_import_errors(site):
    """Flower's codes: 1 for an app that is not there, 2 for what its import raises."""
    if site.host == "resident":
        pytest.skip("as with the worker")
    bad = {  # source: codes, reason
        "raise ValueError('not today')": ((2,), "ValueError.*not today"),
        "def broken(:": ((1, 2), "SyntaxError|invalid syntax"),
        "other = 1": ((1,), "load `ClientApp`"),
        "import os; os._exit(5)": ((1, 8), "."),
    }
    for source, (codes, reason) in bad.items():
        if site.host == "stock" and 8 in codes:
            continue
        fab = edited_fab(site.fab, {"hostile/client_app.py": source.encode()})
        (answer,) = ask(site.federation, fab, "well")
        assert answer["code"] in codes and answer["seconds"] < SLACK_SECONDS, answer
        if site.host != "stock":  # Flower's own says no more than the code
            assert re.search(reason, answer["reason"]), answer
    (answer,) = ask(site.federation, site.fab, "well")
    assert answer["code"] is None
