"""Who may run where: what finds no room says so for as long as it waits."""

from __future__ import annotations

import pytest

from tests.harness.servers import wait_until
from tests.ops.conftest import sla
from tests.ops.up import Up
from tests.soak.ops_many import ENDED

NO_ADDON = {"node": ["plain-0", "plain-1"]}


def waits_for(up: Up, project: str, *words: str) -> str:
    """Once it waits with these words."""

    def look() -> str | None:
        row = up.project(project)
        assert row["stage"] not in ENDED, up.story(project)
        return row["waiting_for"] if all(each in row["waiting_for"] for each in words) else None

    return wait_until(f"{project} waits for {words}", look, 300, 0.2)


@pytest.mark.parametrize("up", [NO_ADDON], indirect=True, ids=["no add-on"])
def test_without_a_learner_node_a_project_waits_and_says_why(up, repository):
    project = up.submit(sla(repository))
    said = waits_for(up, project, "for room for learner 1 of 2")
    for node in NO_ADDON["node"]:
        assert f"{node} has no add-on FLOps-learner" in said
    assert said in up.cli("project", "show", project).stdout
    assert up.cli("project", "rm", project).returncode == 0
    wait_until("nothing of it is left", lambda: not up.orphans(), 30)
