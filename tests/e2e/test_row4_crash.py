"""Row 4, the everyday size: three runs of 5 rounds, the SuperLink killed with -9 once in each."""

from __future__ import annotations

import os
import random

import pytest

from tests.soak import crash

KILLS = int(os.environ.get("UMBEL_KILLS", "3"))
PAYLOAD_KB = 200
pytestmark = pytest.mark.umbel_only("it keeps its state in memory")


@pytest.fixture(scope="module")
def seed() -> int:
    given = os.environ.get("UMBEL_SEED")
    return int(given) if given else random.SystemRandom().randrange(1 << 32)


@pytest.fixture(scope="module")
def federation(kind, folder):
    with crash.crash_federation(kind, folder) as federation:
        yield federation
        federation.wait_gone(federation.serverapps(), 15)  # none outlives its run


def test_runs_survive_kill_9_of_the_superlink(federation, seed, say):
    moments = crash.kill_moments(random.Random(seed), KILLS)
    reference = crash.undisturbed(federation, PAYLOAD_KB)
    say(f"{KILLS} kills, UMBEL_SEED={seed}, undisturbed {reference.seconds:.1f} s")
    for moment in moments:
        while True:
            try:
                line = crash.killed(federation, PAYLOAD_KB, moment, reference)
                break
            except crash.Missed:
                moment *= 0.9
        say(f"killed {line}")
