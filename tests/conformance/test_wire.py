"""The wire compared: our server answers every request as the stock SuperLink did when recorded.

The recording is golden.json; `python -m tests.conformance --record` renews it. Differences must be
listed in differences.py with their reason, and our own answers to them are held in ours.json.
"""

from __future__ import annotations

import json
import os
import random

import pytest
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

from . import runner, wire
from .oracle import SCENARIOS

GOLDEN = runner.load()
OURS = runner.load(runner.OURS)
KNOWN = runner.known_differences(GOLDEN)
LONG = os.environ.get("UMBEL_SLOW") == "1"


def _explain(scenario: str, differ: dict) -> str:
    lines = [f"{len(differ)} answers of {scenario} are not as recorded"]
    for step, (want, got) in list(differ.items())[:20]:
        lines += [
            f"{scenario}/{step}",
            f"  want {json.dumps(want)[:800]}",
            f"  got  {json.dumps(got)[:800]}",
        ]
    return "\n".join(lines)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_umbel_answers_as_recorded(name: str, umbel_bin) -> None:
    scenario = SCENARIOS[name]
    if scenario.slow and not LONG:
        pytest.skip("waits for timeouts; set UMBEL_SLOW=1")
    steps = runner.run(scenario, "umbel")
    differ = runner.differing(GOLDEN[name], steps)
    unlisted = {step: pair for step, pair in differ.items() if f"{name}/{step}" not in KNOWN}
    assert not unlisted, _explain(name, unlisted)
    # Where we mean to differ, we differ in the way we mean to.
    meant = {step: OURS.get(name, {}).get(step) for step in differ}
    changed = {
        step: (meant[step], ours)
        for step, (_, ours) in differ.items()
        if runner.differing({step: meant[step]}, {step: ours})
    }
    assert not changed, _explain(f"{name} (ours.json)", changed)
    stale = [
        full
        for full in KNOWN
        if full.partition("/")[0] == name and full.partition("/")[2] not in differ
    ]
    assert not stale, f"listed as different, but equal: {stale}"


def test_the_recording_still_holds() -> None:
    """A few scenarios, drawn anew each time, against the real program."""
    seed = int(os.environ.get("UMBEL_SEED", random.randrange(2**32)))
    quick = [name for name in sorted(GOLDEN) if name in SCENARIOS and not SCENARIOS[name].slow]
    sample = random.Random(seed).sample(quick, 3)
    print(f"UMBEL_SEED={seed} draws {', '.join(sample)}")
    for name in sample:
        differ = runner.differing(GOLDEN[name], runner.run(SCENARIOS[name], "upstream"))
        assert not differ, f"UMBEL_SEED={seed}: " + _explain(name, differ)


def test_every_scenario_is_recorded() -> None:
    assert set(GOLDEN) == set(SCENARIOS)
    broken = {name: steps["(scenario)"] for name, steps in GOLDEN.items() if "(scenario)" in steps}
    assert not broken


def test_every_route_is_asked() -> None:
    assert set(wire.ROUTES) == {path for _, path in PROTOBUF_REQUEST_TYPES}
    for (_, path), kind in PROTOBUF_REQUEST_TYPES.items():
        assert wire.ROUTES[path][0] is kind
    asked = {
        step.partition("/")[0]
        for name in GOLDEN
        if name.startswith("shape-")
        for step in GOLDEN[name]
    }
    for path in wire.ROUTES:
        assert path.removeprefix("/v1/").replace("/", ".", 1) in asked


def test_no_reason_without_a_step() -> None:
    for reason in runner.DIFFERENCES:
        assert reason in KNOWN.values(), f"nothing matches the patterns of: {reason}"
