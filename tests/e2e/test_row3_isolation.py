"""Row 3, end to end: `--isolation process` with an external stock SuperExec and a shared secret."""

from __future__ import annotations

import secrets

import pytest

from tests.harness.federation import TOY, Federation, toy_expected
from tests.harness.servers import start_server, wait_until

CONFIG = {"num-server-rounds": 1, "min-nodes": 1, "evaluate": False}


@pytest.fixture(scope="module")
def secret(folder):
    path = folder / "secret"
    path.write_bytes(secrets.token_bytes(32))  # raw bytes, also such as are not text
    return path


@pytest.fixture(scope="module")
def federation(kind, folder, secret):
    home = folder / "server"
    with start_server(kind, isolation="process", secret_file=secret, home=home) as server:
        with Federation(server, folder / "federation", nodes=1) as federation:
            yield federation
            federation.wait_gone(federation.serverapps(), 15)  # none outlives its run


def test_only_the_right_secret_gets_work(federation, folder, secret):
    output = federation.output()
    run = federation.run(TOY, {**CONFIG, **output.config}, stream=False)
    assert federation.state(run.run_id)[0] == "pending"  # nobody is there to launch it

    wrong = folder / "wrong"
    wrong.write_bytes(secret.read_bytes()[::-1])
    refused = federation.start_superexec(wrong)
    # A 401 ends a stock SuperExec; it must not have got the task first.
    wait_until("the refused SuperExec ends", lambda: not refused.running, 60)
    assert federation.state(run.run_id)[0] == "pending", refused.log_text()

    federation.start_superexec(secret)
    row = federation.wait_status(run.run_id, "finished:completed", 90)
    assert row["status-details"] == "N/A"
    assert output.report()["sha256"] == toy_expected(1, count=1)


def test_the_superexec_serves_one_run_after_another(federation):
    output = federation.output()
    run = federation.run(TOY, {**CONFIG, **output.config}, stream=True)
    assert run.exit_code == 0 and "Final results:" in run.output
    federation.wait_state(run.run_id, "finished:completed", 30)
    assert output.report()["sha256"] == toy_expected(1, count=1)
    assert federation.superexec.running
    (app,) = output.notes("server begins")
    assert app["pid"] == output.report()["pid"]


def test_a_stopped_superlink_does_not_take_the_superexec_along(federation):
    """The SuperExec belongs to someone else: it reconnects when the SuperLink is back."""
    federation.server.restart()
    federation.nodes[0].stop()  # an in-memory SuperLink has forgotten it
    federation.start_nodes()
    assert federation.superexec.running
    output = federation.output()
    run = federation.run(TOY, {**CONFIG, **output.config}, stream=True)
    federation.wait_state(run.run_id, "finished:completed", 30)
