"""Row 1: the stock command line, SuperNodes and ServerApps against our SuperLink,
over plain HTTP and over TLS with node authentication."""

from __future__ import annotations

import re

import pytest

from tests.harness.federation import (
    CONNECTION,
    TOY,
    Federation,
    Node,
    toy_expected,
)
from tests.harness.servers import make_certs, start_server, wait_until

TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$")
ROUNDS = 3


@pytest.fixture(scope="module", params=["plain", "tls"])
def federation(request, kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"row1-{request.param}")
    tls = make_certs(folder / "certs") if request.param == "tls" else None
    with start_server(kind, tls=tls, node_auth=bool(tls), home=folder / "server") as server:
        with Federation(server, folder / "federation", keys=bool(tls)) as federation:
            yield federation
            federation.wait_gone(federation.serverapps(), 15)  # none outlives its run


@pytest.fixture
def tls(federation) -> bool:
    return federation.server.tls is not None


@pytest.fixture
def any_transport(tls, soak):
    """For what the transport does not touch: plain HTTP is enough for every day."""
    if tls and not soak:
        pytest.skip("over TLS only with UMBEL_SOAK=1")


def test_supernode_list(federation, tls):
    nodes = federation.listed_nodes()
    assert [node["status"] for node in nodes] == ["online", "online"]
    for node in nodes:
        assert node["owner-name"] == "none"
        assert TIME.match(node["created-at"]) and TIME.match(node["online-at"])
        assert node["offline-at"] == node["deleted-at"] == "N/A"
        assert 0 <= node["online-elapsed"] < 120
    ids = {int(node["node-id"]) for node in nodes}
    assert ids.isdisjoint({0, 1}) and len(ids) == 2
    if tls:
        assert ids == {node.node_id for node in federation.nodes}
    table = federation.flwr("supernode", "list", CONNECTION)
    assert table.exit_code == 0
    assert all(str(node) in table.output for node in ids)


def test_three_rounds_streamed_to_the_end(federation):
    output = federation.output()
    run = federation.run(TOY, {"num-server-rounds": ROUNDS, **output.config}, stream=True)
    assert run.exit_code == 0, run.output
    assert f"Successfully started run {run.run_id}" in run.output
    # The log arrived whole and in order, up to the last thing the strategy says.
    marks = ["Starting FedAvg strategy", *(f"[ROUND {n}/{ROUNDS}]" for n in range(1, ROUNDS + 1))]
    marks += ["Strategy execution finished", "Final results:", "Global Arrays:"]
    places = [run.output.find(mark) for mark in marks]
    assert -1 not in places and places == sorted(places), run.output
    assert [run.output.count(mark) for mark in marks] == [1] * len(marks), run.output
    assert run.output.count("Received 2 results and 0 failures") == 2 * ROUNDS

    row = federation.wait_status(run.run_id, "finished:completed", 30)
    assert row["status-details"] == "N/A"
    assert row["federation-id"] == "@none/default"
    assert (row["fab-id"], row["fab-name"], row["fab-version"]) == ("umbel/toy", "toy", "1.0.0")
    assert re.fullmatch(r"[0-9a-f]{64}", row["fab-hash"])
    times = [row[name] for name in ("pending-at", "starting-at", "running-at", "finished-at")]
    assert all(TIME.match(text) for text in times) and times == sorted(times)
    traffic, compute = row["network-traffic"], row["compute-time"]
    assert traffic["inbound-bytes"] > 1000 and traffic["outbound-bytes"] > 1000
    assert compute["clientapp-seconds"] > 0
    assert compute["serverapp-seconds"] == pytest.approx(row["elapsed"])

    assert output.digest() == output.report()["sha256"] == toy_expected(ROUNDS)
    assert len(output.notes("train ends")) == len(output.notes("evaluate ends")) == 2 * ROUNDS
    assert len(output.notes("server begins")) == 1

    # The same log again, now that the run is over.
    again = federation.log(run.run_id)
    assert again.exit_code == 0 and "Global Arrays:" in again.output
    federation.wait_gone(federation.serverapps(), 15)


def test_follow_and_stop(federation, any_transport):
    output = federation.output()
    started = federation.run(
        TOY, {**output.config, **output.held}, stream=False, flags=["--format", "json"]
    )
    shown, run_id = started.json(), started.run_id
    assert shown["success"] and shown["federation-id"] == "@none/default"
    assert shown["fab-id"] == "umbel/toy" and re.fullmatch(r"[0-9a-f]{8}", shown["fab-hash"])
    output.wait_notes("train begins", 2)

    follower = federation.command("log", run_id, CONNECTION)
    first = federation.log(run_id, show=True)
    assert first.exit_code == 0 and "Starting FedAvg strategy" in first.output
    wait_until(
        "flwr log shows the round", lambda: "[ROUND 1/3]" in follower.log_text(), 30
    )
    assert federation.listed(run_id)["status"] == "running"
    assert follower.running, follower.log_text()

    apps = federation.serverapps()
    assert len(apps) == 1
    stopped = federation.stop(run_id)
    assert stopped.json() == {"success": True, "run-id": str(run_id)}
    assert follower.result(15).exit_code == 0
    federation.wait_gone(apps, 30)
    output.open_gate()
    row = federation.listed(run_id)
    assert (row["status"], row["status-details"]) == ("finished:stopped", "N/A")

    twice = federation.flwr("stop", run_id, CONNECTION)
    assert twice.exit_code == 1 and "[code: 18] Run is already finished." in twice.output
    output.wait_notes("train ends", 2)  # what the sites had begun, they finish


def test_list(federation, any_transport):
    rows = federation.flwr_json("list", CONNECTION)["runs"]
    assert len(rows) == 2
    assert {row["status"] for row in rows} == {"finished:completed", "finished:stopped"}
    newest = max(rows, key=lambda row: row["pending-at"])
    limited = federation.flwr_json("list", CONNECTION, "--limit", 1)["runs"]
    assert [row["run-id"] for row in limited] == [newest["run-id"]]
    table = federation.flwr("list", CONNECTION)
    assert table.exit_code == 0
    for row in rows:
        assert row["run-id"] in table.output and row["status"] in table.output
    one = federation.flwr("list", CONNECTION, "--run-id", newest["run-id"])
    assert one.exit_code == 0 and "Network traffic (inbound)" in one.output


def test_federation_list(federation, any_transport):
    shown = federation.flwr_json("federation", "list", CONNECTION)["federations"]
    assert [(f["id"], f["archived"], f["simulation"]) for f in shown] == [
        ("@none/default", False, False)
    ]
    arguments = ("federation", "list", CONNECTION, "--federation", "@none/default")
    table = federation.flwr(*arguments)
    assert table.exit_code == 0 and "Runs in the Federation" in table.output
    # The command prints a line of text before the document.
    one = federation.flwr_json(*arguments)["federation"]
    assert one["members"] == [{"member_id": "none", "role": "owner"}]
    assert {node["status"] for node in one["nodes"]} == {"online"}
    assert {run["status"] for run in one["runs"]} == {"finished:completed", "finished:stopped"}
    assert (one["archived"], one["simulation"]) == (False, False)


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("list", CONNECTION, "--run-id", 77), "[code: 16] Run ID not found."),
        (("log", 77, CONNECTION), "[code: 16] Run ID not found."),
        (("log", 77, CONNECTION, "--show"), "[code: 16] Run ID not found."),
        (("stop", 77, CONNECTION), "[code: 16] Run ID not found."),
        (("run", TOY, CONNECTION, "-c", "nonsense=1"), "[code: 15] Invalid run configuration."),
        (
            ("run", TOY, CONNECTION, "--federation", "@none/other"),
            "[code: 2] Federation not found, archived, or you cannot perform this action.",
        ),
        (("supernode", "unregister", 77, CONNECTION), "[code: 24] Node ID not found for account."),
    ],
    ids=lambda value: "-".join(str(part) for part in value[:2]) if value[0] != "[" else "",
)
def test_refusals(federation, any_transport, arguments, text):
    refused = federation.flwr(*arguments)
    assert refused.exit_code == 1
    assert text in refused.output


def test_refusal_as_json(federation, any_transport):
    refused = federation.flwr("stop", 77, CONNECTION, "--format", "json")
    shown = refused.json()
    assert shown["success"] is False and "[code: 16] Run ID not found." in shown["error-message"]


def test_supernode_with_an_unknown_key_is_refused(federation, tls):
    if not tls:
        pytest.skip("nodes bring keys only over TLS")
    stranger = Node(federation, 8, {})
    stranger.make_key()
    child = stranger.start()
    assert child.wait(60) == 1
    assert "[code: 2004] Failed to activate SuperNode." in child.log_text()


def test_register_a_key_once(federation):
    node = Node(federation, 9, {})
    public = node.make_key()
    node_id = node.register()
    assert federation.node_states()[node_id] == "registered"
    again = federation.flwr("supernode", "register", public, CONNECTION)
    assert again.exit_code == 1 and "[code: 23] Public key already in use." in again.output
    gone = federation.flwr_json("supernode", "unregister", node_id, CONNECTION)
    assert gone == {"success": True, "node-id": node_id}
    again = federation.flwr("supernode", "register", public, CONNECTION)
    assert again.exit_code == 1 and "[code: 23] Public key already in use." in again.output


def test_unregistered_node_ends_and_the_rest_goes_on(federation, any_transport):
    """Last in this file: it takes a node away."""
    before = federation.online()
    first = min(before)
    gone = federation.flwr_json("supernode", "unregister", first, CONNECTION)
    assert gone == {"success": True, "node-id": first}
    left = wait_until(
        "one SuperNode ends", lambda: [node for node in federation.nodes if not node.running], 45
    )
    assert [node.child.proc.returncode for node in left] == [0]
    assert federation.online() == before - {first}
    rows = {int(row["node-id"]): row for row in federation.listed_nodes()}
    assert rows[first]["status"] == "unregistered" and TIME.match(rows[first]["deleted-at"])

    output = federation.output()
    config = {"num-server-rounds": 1, "min-nodes": 1, "evaluate": False, **output.config}
    run = federation.run(TOY, config)
    federation.wait_status(run.run_id, "finished:completed", 30)
    assert len(output.notes("train ends")) == 1
