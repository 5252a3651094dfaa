"""Row 10, the everyday size: one run of 5 rounds over 4 nodes, the SuperLink killed with -9 three
times in it."""

from __future__ import annotations

import os
import random

import pytest

from tests.soak import native_crash
from tests.soak.crash import kill_moments

PAYLOAD_KB = 200
pytestmark = pytest.mark.umbel_only("native rounds are ours")


@pytest.fixture(scope="module")
def seed() -> int:
    given = os.environ.get("UMBEL_SEED")
    return int(given) if given else random.SystemRandom().randrange(1 << 32)


@pytest.fixture(scope="module")
def federation(kind, folder):
    with native_crash.native_federation(folder, native_crash.EVERYDAY) as federation:
        yield federation


def test_native_rounds_survive_kill_9_of_the_superlink(federation, seed, say):
    rng, size = random.Random(seed), native_crash.EVERYDAY
    first = native_crash.run_with_kills(federation, size, PAYLOAD_KB, rng.randrange(1, 1 << 30))
    assert first.checkpoints, "there was no checkpoint to begin with"
    say(f"UMBEL_SEED={seed}, undisturbed {first.seconds:.1f} s")
    moments, seconds = kill_moments(rng, size.kills), first.seconds
    for _ in range(5):  # until none of the kills comes after the end
        shuffle = rng.randrange(1, 1 << 30)
        done = native_crash.run_with_kills(federation, size, PAYLOAD_KB, shuffle, moments, seconds)
        seconds = min(seconds, done.seconds)
        moments = [0.8 * moment for moment in moments]
        if len(done.kills) == size.kills:
            break
    assert len(done.kills) == size.kills, "the run was over before it was killed"
    say(f"killed at {'; '.join(done.kills)}; {len(done.checkpoints)} checkpoints")


def test_privacy_survives_kill_9_of_the_superlink(federation, seed, say):
    """Norm, count and noise are those of a run that nobody has disturbed: the same bits."""
    rng, size = random.Random(seed), native_crash.EVERYDAY
    flags = [
        "--seed", 5, "--wrap", "ServerSideAdaptiveClipping", "--wrap-set", "noise_multiplier=0.3",
        "--wrap-set", f"num_sampled_clients={size.nodes}", "--wrap-set", "clip_norm_lr=0.7",
        "--wrap-set", "initial_clipping_norm=9350",
    ]  # fmt: skip
    first = native_crash.run_with_kills(
        federation, size, PAYLOAD_KB, rng.randrange(1, 1 << 30), flags=flags, wanted=""
    )
    assert first.checkpoints, "there was no checkpoint to begin with"
    say(f"UMBEL_SEED={seed}, undisturbed {first.seconds:.1f} s")
    for _ in range(5):  # until none of the kills comes after the end
        shuffle, moments = rng.randrange(1, 1 << 30), kill_moments(rng, size.kills)
        done = native_crash.run_with_kills(
            federation, size, PAYLOAD_KB, shuffle, [0.8 * moment for moment in moments],
            first.seconds, flags, first.digest,
        )  # fmt: skip
        if len(done.kills) == size.kills:
            break
    assert done.kills, "the run was over before it was killed"
    say(f"killed at {'; '.join(done.kills)}; {len(done.checkpoints)} checkpoints")
