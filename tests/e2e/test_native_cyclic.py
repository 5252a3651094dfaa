"""FedXgbCyclic in the SuperLink: whose turn it is, also after a SuperLink that was killed.

The toy's site answers a row of bytes with the same row, its own number and the round's, so that the
model says who has trained when."""

from __future__ import annotations

import numpy as np
import pytest

from tests.harness.federation import Federation, umbel_node
from tests.harness.servers import start_server

pytestmark = pytest.mark.umbel_only("native rounds are ours")
SECONDS = 120.0
NODES = 3


@pytest.fixture(scope="module")
def federation(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        options = {"nodes": NODES, "node": umbel_node("worker")}
        with Federation(server, folder / "federation", **options) as federation:
            yield federation


def begin(federation, out, rounds, *flags):
    initial = {"0": np.zeros(0, np.uint8)}
    return federation.umbel_run(
        initial, "--strategy", "fedxgbcyclic", "--rounds", rounds, "--watch", "--out", out, *flags
    )


def turns(path) -> list[tuple[int, int]]:
    with np.load(path) as file:
        assert file.files == ["0"] and file["0"].dtype == np.uint8
        return [tuple(pair) for pair in file["0"].reshape(-1, 2).tolist()]


def test_each_node_trains_in_its_turn(federation, folder):
    out = folder / "turns.npz"
    done = begin(federation, out, 7, "--set", f"min_available_nodes={NODES}").result(SECONDS)
    assert done.exit_code == 0, done.output
    told = turns(out)
    sites = [site for site, _ in told]
    assert [number for _, number in told] == list(range(1, 8))
    assert sorted(sites[:NODES]) == list(range(NODES))
    assert sites == (3 * sites[:NODES])[:7]
    assert done.output.count("1/1 nodes") == 14


def test_a_failing_node_s_turn_passes(federation, folder):
    out = folder / "passed.npz"
    done = begin(
        federation, out, 6, "--set", f"min_available_nodes={NODES}",
        "--run-config", 'client-raise="no data" client-raise-site=1',
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    told = turns(out)
    assert len(told) == 4 and {site for site, _ in told} == {0, 2}


def test_the_order_of_turns_survives_kill_9_of_the_superlink(federation, folder):
    """The node with the lowest id comes last, so its turn is the last, and stays so."""
    out = folder / "order.npz"
    done = begin(federation, out, NODES, "--set", f"min_available_nodes={NODES}").result(SECONDS)
    assert done.exit_code == 0, done.output
    first, *others = (site for site, _ in turns(out))
    late = federation.nodes[first]
    late.stop()
    federation.wait_online(NODES - 1)
    output = federation.output()
    held = f'train-seconds=60.0 gate="{output.held["gate"]}" trace="{output.config["trace"]}"'
    command = begin(federation, out, NODES, "--run-config", held)
    output.wait_notes("train begins", 1)
    late.start()
    federation.wait_online(NODES)
    federation.server.kill9()
    federation.server.restart()
    federation.wait_online(NODES)
    output.open_gate()
    done = command.result(SECONDS)
    assert done.exit_code == 0, done.output
    assert [site for site, _ in turns(out)] == [*others, first]
