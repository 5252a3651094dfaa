"""Row 7 of the SuperNode, the everyday size: node, worker and child are killed with -9 at random
moments of one run, and the SuperLink is killed and started again in between."""

from __future__ import annotations

import os
import random

import pytest

from tests.harness.federation import toy_expected
from tests.harness.servers import wait_until
from tests.soak import node_crash

PAYLOAD_KB = 200
pytestmark = pytest.mark.usefixtures("umbel_bin")


@pytest.fixture
def rng(say) -> random.Random:
    given = os.environ.get("UMBEL_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1 << 32)
    say(f"UMBEL_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def field(folder):
    with node_crash.field(folder, "worker") as field:
        yield field


@pytest.fixture(scope="module")
def reference(field):
    return node_crash.undisturbed(field.federation, PAYLOAD_KB)


def test_kill_9_of_node_worker_child_and_superlink(field, reference, rng, say):
    moments = sorted(node_crash.kill_moments(rng, 4))
    victims = [*node_crash.KILLS, "superlink"]
    rng.shuffle(victims)
    plan = [
        node_crash.Disturbance(moment, victim, rng.randrange(2))
        for moment, victim in zip(moments, victims)
    ]
    line = node_crash.disturbed(field, PAYLOAD_KB, plan, reference)
    say(f"undisturbed {reference.seconds:.1f} s; {line}")


def test_a_bad_network(field, reference, rng, say):
    """A storm of 503, connections cut in the middle of an object, and one that stands still."""
    moments = sorted(node_crash.kill_moments(rng, 4))
    plan = [
        node_crash.Disturbance(moment, what, 0, 1.5)
        for moment, what in zip(moments, rng.sample(node_crash.NETWORK, 4))
    ]
    line = node_crash.disturbed(field, PAYLOAD_KB, plan, reference)
    assert field.proxy.done["cut"] >= 1
    say(f"{line}; {dict(field.proxy.done)}")


def test_reply_made_while_the_superlink_was_away(field):
    """The node keeps it, also over its own death, and does not train again."""
    federation, node = field.federation, field.federation.nodes[0]
    output = federation.output()
    config = {"num-server-rounds": 1, "evaluate": False, **output.config, **output.held}
    run_id = federation.start(config)
    output.wait_notes("train begins", 2)
    federation.server.kill9()
    output.open_gate()
    output.wait_notes("train ends", 2)
    wait_until(
        "the reply is kept",
        lambda: [work["state"] for work in node.status()["sites"][0]["working_on"]] == ["sending"],
        10,
    )
    node.kill9()
    node.start()
    federation.server.start()
    federation.wait_state(run_id, "finished:completed", 60)
    assert output.digest() == toy_expected(1)
    trained = [note["site"] for note in output.notes("train begins")]
    assert sorted(trained) == [0, 1], "a site has trained again"
