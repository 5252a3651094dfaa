"""An idle `umbel up` costs next to nothing: `./run soak ops-idle`, small."""

from __future__ import annotations

from tests.soak.ops_idle import CPU_PERCENT, MEMORY_MB, measure


def test_idling_is_cheap(up, say):
    assert up.get("projects") == {"projects": []}
    memory, cpu, processes = measure(up, 5)
    say(f"{memory:.1f} MB, {cpu:.2f} % of a core, {processes} process(es)")
    assert processes == 1
    assert memory <= MEMORY_MB
    assert cpu <= CPU_PERCENT
