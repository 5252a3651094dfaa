"""A ClientApp in C++: examples/native-softmax, many sites of one process, a Python ServerApp.

Every day 4 sites and 2 rounds; with UMBEL_SOAK=1 row 6 of the SuperNode's table: 100 and 10.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.harness.federation import Child, Federation
from tests.harness.servers import (
    REPO,
    child_env,
    free_port,
    start_server,
    umbel_bin,
    wait_until,
)

APP = REPO / "examples" / "native-softmax"
SOAK = os.environ.get("UMBEL_SOAK", "") not in ("", "0")
SITES, ROUNDS = (100, 10) if SOAK else (4, 2)
ACCURACY = 0.75 if SOAK else 0.8  # on the test images; softmax regression can reach 0.84


@pytest.fixture(scope="module")
def program() -> Path:
    """The example, built beside the binary under test."""
    given = os.environ.get("UMBEL_NATIVE_SOFTMAX")
    path = Path(given) if given else umbel_bin().resolve().parents[2] / "examples/native_softmax"
    if not path.exists():
        pytest.fail(f"{path} is not built; ./run test makes it", pytrace=False)
    return path


@pytest.fixture(scope="module")
def federation(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        with Federation(server, folder / "federation", start_nodes=False) as federation:
            yield federation
            federation.wait_gone(federation.serverapps(), 15)


@pytest.fixture(scope="module")
def sites(federation, program):
    """The sites' one process, connected."""
    home = federation.folder / "sites"
    home.mkdir()
    command = [program, "--superlink", federation.server.address, "--insecure"]
    command += ["--port", free_port(), "--state-dir", home / "state", "--count", SITES]
    command += ["--node-config", "partition-id={i} num-partitions={n}"]
    child = Child("sites", command, child_env(home), home / "sites.log")
    try:
        federation.wait_online(SITES, 120)
        yield child
    finally:
        child.end(30)


def used(process: psutil.Process) -> tuple[float, float]:
    """Resident MB, and CPU seconds."""
    times = process.cpu_times()
    return process.memory_info().rss / 1e6, times.user + times.system


def test_sites_train_without_python(federation, sites, say):
    process = psutil.Process(sites.pid)
    idle_mb, cpu_before = used(process)
    results = federation.folder / "results"
    config = {"num-server-rounds": ROUNDS, "min-nodes": SITES, "output-dir": str(results)}
    run_id = federation.start(config, federation.build(APP))
    peak_mb = 0.0

    def ended():
        nonlocal peak_mb
        peak_mb = max(peak_mb, used(process)[0])
        return federation.state(run_id)[0].startswith("finished")

    wait_until(f"{ROUNDS} rounds end", ended, 600 if SOAK else 120, 0.1)
    assert federation.state(run_id)[0] == "finished:completed", federation.log(run_id).output
    assert not process.children(), "a native site starts no process"
    cpu = used(process)[1] - cpu_before
    say(
        f"{SITES} native sites, {ROUNDS} rounds: {idle_mb / SITES:.2f} MB a site idle, "
        f"{peak_mb / SITES:.2f} MB at work (with 47 MB of images for all: {peak_mb:.0f} MB), "
        f"{1000 * cpu / SITES / ROUNDS:.0f} ms CPU a site and round"
    )

    lines = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(ROUNDS + 1))
    assert lines[0]["accuracy"] == pytest.approx(0.1)  # the untrained model names one class
    assert lines[-1]["accuracy"] > ACCURACY
    assert lines[-1]["eval-accuracy"] > ACCURACY
    # Each site has counted each round: its context's state was there the next time.
    counted = [line["rounds-here"] for line in lines[1:]]
    assert counted == [pytest.approx(number) for number in range(1, ROUNDS + 1)]


def test_sites_end_when_they_are_asked_to(sites):
    sites.send(signal.SIGTERM)
    assert sites.wait(30) == 0, sites.log_text()


@pytest.mark.parametrize(
    "flags, status, text",
    [
        (["--limit-time", "5"], 1, "a ClientApp that is part of this program cannot be limited"),
        (["--no-network"], 1, "--unlimited"),
        (["--clientapp-host", "stock"], 2, "leave --clientapp-host and --isolation away"),
        (["--isolation", "process"], 2, "leave --clientapp-host and --isolation away"),
        (["--count", "0"], 2, "--count"),
        (["--help"], 0, "native_softmax"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags(program, tmp_path, flags, status, text):
    command = [program, "--insecure", "--state-dir", tmp_path / "state", *flags]
    done = subprocess.run(
        command, env=child_env(tmp_path), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == status, done.stderr
    assert text in done.stdout + done.stderr
