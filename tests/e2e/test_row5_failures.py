"""Row 5: programs that fail, die or are stopped; what the user then sees, and that the next run
is fine. Status, code and text are those of the wire contract (§1.6, §3.2, §3.4)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.harness.federation import Federation, padded_fab
from tests.harness.servers import make_certs, start_server, wait_until

FAB_BYTES_MAX = 10 * 1024 * 1024
PROBE = {"mode": "probe", "num-server-rounds": 1}
LAPSE_SECONDS = 60  # a node or a task that is silent this long is taken for dead
SLACK_SECONDS = 30  # of a busy machine


@pytest.fixture
def next_run_is_fine(soak):
    """`next_run_is_fine(federation)`: every day the next test shows it; in a soak, each does."""
    return Federation.check_sound if soak else lambda _federation: None


@pytest.fixture(scope="module")
def federation(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        with Federation(server, folder / "federation") as federation:
            yield federation
            federation.wait_gone(federation.serverapps(), 15)  # none outlives its run


def replies(output) -> list[dict]:
    """What the probe's only round received, errors first, by code."""
    (only,) = output.report()["rounds"]
    return sorted(only["replies"], key=lambda reply: reply.get("code", 99))


def codes(output) -> list[int | None]:
    return [reply.get("code") for reply in replies(output)]


def test_start_run_refusals(federation):
    """A FAB of one byte too much, and a key the app does not know."""
    largest = padded_fab(federation.build(), FAB_BYTES_MAX)
    too_large = padded_fab(federation.build(), FAB_BYTES_MAX + 1)
    answer = federation.post_start(fab=too_large)
    # The command line says "Failed to start run" to an answer without a run id.
    assert (answer.status_code, answer.content) == (200, b"")

    answer = federation.post_start({"nonsense": 1})
    assert answer.status_code == 412
    assert answer.json()["code"] == 15
    assert answer.json()["detail"] == "Invalid run configuration."
    from flwr.proto import control_pb2

    request, listed = control_pb2.ListRunsRequest(), control_pb2.ListRunsResponse()
    assert not federation.control("list-runs", request, listed).run_dict

    # A FAB of exactly the size allowed is installed and run.
    output = federation.output()
    run_id = federation.start({**PROBE, "num-server-rounds": 0, **output.config}, largest)
    federation.wait_state(run_id, "finished:completed", 60)


def test_serverapp_raises(federation, next_run_is_fine):
    output = federation.output()
    wet = {"server-raise": "it rains", "server-raise-round": 1}
    run_id = federation.start({"evaluate": False, **wet, **output.config})
    row = federation.wait_status(run_id, "finished:failed", 90)
    assert row["status-details"] == "ServerApp failed with exception: it rains"
    log = federation.log(run_id)
    assert log.exit_code == 0 and "RuntimeError: it rains" in log.output
    assert [note["round"] for note in output.notes("round closed")] == [0, 1]
    next_run_is_fine(federation)


def test_clientapp_raises(federation, next_run_is_fine):
    output = federation.output()
    sour = {"client-raise": "no data here", "client-raise-site": 0}
    run_id = federation.start({**PROBE, **sour, **output.config})
    federation.wait_state(run_id, "finished:completed", 90)
    assert codes(output) == [2, None]
    assert replies(output)[0]["reason"] == "<class 'RuntimeError'>:<'no data here'>"
    next_run_is_fine(federation)


def test_message_to_a_node_nobody_knows(federation):
    output = federation.output()
    run_id = federation.start({**PROBE, "extra-dst": "123456789", **output.config})
    federation.wait_state(run_id, "finished:completed", 90)
    assert codes(output) == [3, None, None]
    assert replies(output)[0]["reply_to"] == ""


def test_ttl_expires_while_the_sites_train(federation, next_run_is_fine):
    output, ttl = federation.output(), 8.0
    run_id = federation.start({**PROBE, "ttl": ttl, **output.config, **output.held})
    output.wait_notes("train begins", 2)
    output.wait_notes("round closed", 1, seconds=ttl + SLACK_SECONDS)
    output.open_gate()
    federation.wait_state(run_id, "finished:completed", 60)
    assert codes(output) == [3, 3]
    (only,) = output.report()["rounds"]
    assert ttl - 1 <= only["seconds"] <= ttl + 10
    # The late replies are refused, and neither node minds.
    output.wait_notes("train ends", 2)
    next_run_is_fine(federation)


def test_stop_during_train(federation, next_run_is_fine):
    output = federation.output()
    run_id = federation.start({**output.config, **output.held})
    output.wait_notes("train begins", 2)
    apps = federation.serverapps()
    assert [app.pid for app in apps] == [output.notes("server begins")[0]["pid"]]
    assert federation.stop(run_id).json()["success"]
    row = federation.listed(run_id)
    assert (row["status"], row["status-details"]) == ("finished:stopped", "N/A")
    federation.wait_gone(apps, SLACK_SECONDS)
    output.open_gate()
    output.wait_notes("train ends", 2)
    assert federation.state(run_id) == ("finished:stopped", "")
    assert not output.notes("server ends")
    next_run_is_fine(federation)


def test_node_signs_off_mid_round(federation, next_run_is_fine):
    output = federation.output()
    run_id = federation.start({**PROBE, **output.config, **output.held})
    output.wait_notes("train begins", 2)
    leaver = federation.nodes[1]
    leaver.stop()
    assert leaver.child.proc.returncode == 0, leaver.child.log_text()
    federation.wait_online(1)
    output.open_gate()
    federation.wait_state(run_id, "finished:completed", SLACK_SECONDS)
    assert codes(output) == [5, None]
    federation.start_nodes()
    next_run_is_fine(federation)


def test_kill_9_of_everything_but_the_superlink(federation):
    """A ServerApp that starts, one that runs, a ClientApp and a SuperNode, killed together, so
    that their lapses pass together."""
    dying = federation.output()  # its ServerApp waits for nodes that never come
    dying_id = federation.start({"min-nodes": 99, **dying.config})
    dying.wait_notes("server begins", 1)
    before = {app.pid for app in federation.serverapps()}

    round_ = federation.output()
    round_id = federation.start({**PROBE, **round_.config, **round_.held})
    round_.wait_notes("train begins", 2)
    known = {app.pid for app in federation.serverapps()}
    assert len(before) == 1 and len(known) == 2

    young = federation.output()
    young_id = federation.start({**PROBE, "num-server-rounds": 0, **young.config})
    (unborn,) = wait_until(
        "its ServerApp starts",
        lambda: [app for app in federation.serverapps() if app.pid not in known],
        30,
        0.005,
    )
    unborn.kill()

    worker, node = federation.nodes
    (victim,) = round_.notes("server begins")
    os.kill(dying.notes("server begins")[0]["pid"], signal.SIGKILL)
    (trainer,) = [note["pid"] for note in round_.notes("train begins") if note["site"] == 0]
    assert trainer in [app.pid for app in worker.clientapps()]
    os.kill(trainer, signal.SIGKILL)
    orphans = node.clientapps()
    node.kill9()
    federation.wait_gone(orphans, SLACK_SECONDS)

    # The one that had not begun is launched again, and nobody notices.
    federation.wait_state(young_id, "finished:completed", LAPSE_SECONDS + SLACK_SECONDS)
    assert [note["pid"] != unborn.pid for note in young.notes("server begins")] == [True]
    # The one that had begun must not be run twice.
    row = federation.wait_status(dying_id, "finished:failed", LAPSE_SECONDS + SLACK_SECONDS)
    assert row["status-details"] == "No heartbeat received from the task"
    assert len(dying.notes("server begins")) == 1

    federation.wait_state(round_id, "finished:completed", LAPSE_SECONDS + SLACK_SECONDS)
    assert codes(round_) == [5, 8]
    assert replies(round_)[1]["reason"] == "ClientApp stopped responding."
    assert round_.notes("server begins") == [victim]
    assert len(round_.notes("train begins")) == 2

    federation.start_nodes()  # a node without a key of its own comes back as a new one
    federation.check_sound()


@pytest.mark.umbel_only("a node that was killed is refused until its 60 s are over")
def test_keyed_node_killed_mid_round_comes_back_at_once(kind, folder):
    tls = make_certs(folder / "certs")
    with start_server(kind, tls=tls, node_auth=True, home=folder / "tls-server") as server:
        with Federation(server, folder / "tls", nodes=1, keys=True) as federation:
            output, (node,) = federation.output(), federation.nodes
            config = {**PROBE, "min-nodes": 1, **output.config, **output.held}
            run_id = federation.start(config)
            output.wait_notes("train begins", 1)
            node.kill9()
            output.open_gate()  # should the message be given to the node again, it answers
            node.start()
            child = node.child
            wait_until(
                "the node is accepted or ends",
                lambda: "SuperNode ID" in child.log_text() or not child.running,
                30,
            )
            assert child.running, child.log_text()
            assert federation.online() == {node.node_id}
            # The round must not wait for an answer that died with the node.
            federation.wait_state(run_id, "finished:completed", LAPSE_SECONDS + SLACK_SECONDS)
            assert codes(output) in ([5], [None])
            federation.check_sound()
