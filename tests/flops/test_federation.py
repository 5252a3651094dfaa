"""The scikit-learn example as a project runs it: native rounds of ours, resident learners."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess

import numpy as np
import pytest

from tests.harness.federation import Child
from tests.harness.servers import free_port, wait_until

pytestmark = pytest.mark.usefixtures("umbel_bin")


@pytest.fixture
def start_learner(umbel_bin, tmp_path):
    """`start_learner(superlink, python, location) -> Child`"""
    with contextlib.ExitStack() as stack:

        def start(superlink: str, python: str, location: str) -> Child:
            home = tmp_path / f"node-{len(list(tmp_path.glob('node-*')))}"
            home.mkdir()
            command = [umbel_bin, "supernode", "--superlink", superlink, "--insecure"]
            command += ["--port", free_port(), "--state-dir", home / "state"]
            command += ["--clientapp-host", "resident", "--python", python, "--unlimited"]
            command += ["--node-config", f'umbel-data="{location}" umbel-data-tags="mnist"']
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            child = Child("learner", command, environment, home / "log")
            stack.callback(child.end, 30)
            return child

        yield start


def run(umbel_bin, superlink: str, fab: str, initial, out, rounds: int = 3):
    return subprocess.run(
        [umbel_bin, "run", fab, "--superlink", superlink, "--insecure", "--initial", initial,
         "--rounds", str(rounds), "--keep", "best", "--stop-metric", "accuracy", "--out", out,
         "--watch"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip


def test_three_rounds(
    sklearn, data, serve_data, start_server, start_learner, umbel_bin, tmp_path, say
):
    server = start_server("umbel")
    initial, out = tmp_path / "initial.npz", tmp_path / "initial.json"
    done = sklearn.run("initial", "--model", initial, "--out", out)
    assert done.returncode == 0, done.stdout
    learners = [
        start_learner(
            server.address,
            sklearn.python,
            serve_data(sklearn.python, data / f"mnist.{number}.parquet"),
        )
        for number in range(2)
    ]
    for learner in learners:
        wait_until("a learner", lambda: "is connected" in learner.log_text(), 60)  # noqa: B023
    trained = tmp_path / "trained.npz"
    done = run(umbel_bin, server.address, sklearn.result["fab"], initial, trained)
    logs = [(tmp_path / f"node-{number}" / "log").read_text() for number in range(2)]
    assert done.returncode == 0, done.stdout + logs[0]
    accuracies = [float(found) for found in re.findall(r"accuracy ([0-9.]+)", done.stdout)]
    say(f"accuracy {accuracies}")
    assert len(accuracies) == 3 and accuracies[-1] > 0.8, done.stdout
    for log in logs:
        assert log.count("data: 4000 rows") == 1, "data is loaded once"
        assert log.count("trained on 3200 samples") == 3
        assert log.count("evaluated on 800 samples") == 3
    with np.load(trained) as file:
        assert file["0"].shape == (10, 784) and np.abs(file["0"]).max() > 0
