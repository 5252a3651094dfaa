"""The FLOps base case, really: an SLA becomes a trained, tracked, logged model."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from tests.harness.servers import wait_until
from tests.ops.conftest import sla


def mlflow(url: str, path: str, **body):
    answer = httpx.post(f"{url}/api/2.0/mlflow/{path}", json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()


def rounds_of(url: str, project: str) -> list[dict]:
    experiment = httpx.get(
        f"{url}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": f"FLOps Project {project}"},
        timeout=60,
    ).json()["experiment"]["experiment_id"]
    runs = mlflow(url, "runs/search", experiment_ids=[experiment], max_results=100)["runs"]
    return sorted(runs, key=lambda run: run["info"]["run_name"])


def metrics(run: dict) -> dict[str, float]:
    return {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}


def check_result(up, project: dict) -> None:
    """Three rounds in MLflow, one model, in the best of them."""
    assert project["stage"] == "done", up.story(project["id"])
    url = up.get("tracking?customer=Admin")["url"]
    runs = rounds_of(url, project["id"])
    assert [run["info"]["run_name"] for run in runs] == [f"FLOps FL round {n}" for n in (1, 2, 3)]
    assert all(run["info"]["status"] == "FINISHED" for run in runs)
    accuracies = [metrics(run)["accuracy"] for run in runs]
    best = project["best"]
    assert best["accuracy"] == pytest.approx(max(accuracies))
    assert best["accuracy"] > 0.8
    with_model = [run for run in runs if run.get("outputs", {}).get("model_outputs")]
    assert len(with_model) == 1
    assert with_model[0]["info"]["run_id"] == project["model"]["run_id"]
    assert metrics(with_model[0])["accuracy"] == pytest.approx(best["accuracy"])


@pytest.mark.parametrize("up", [{"mlflow-python": ""}], indirect=True, ids=["own MLflow"])
def test_an_sla_becomes_a_logged_model(up, repository, tmp_path, say):
    file = tmp_path / "sla.json"
    file.write_text(json.dumps(sla(repository)))
    submitted = up.cli("project", "submit", str(file))
    assert submitted.returncode == 0, submitted.stderr
    name = re.search(r"project ([0-9a-f]{24}) ", submitted.stdout).group(1)
    up.wait_for(name, {"train", "record", "failed", "done"})
    table = up.cli("ps").stdout
    assert table.startswith("╭"), table
    project = up.wait_for(name, {"done", "failed", "cancelled"})
    check_result(up, project)

    names = [service["name"] for service in up.get("services")["services"]]
    assert sorted(re.sub(r"[0-9a-f]{12}$", "", each) for each in names) == ["observ", "tracking"]
    told = up.cli("logs", next(each for each in names if each.startswith("observ"))).stdout
    assert "Project Observer started" in told
    assert "Aggregator tasks completed successfully." in told
    shown = up.cli("project", "show", name[:10])
    assert "done" in shown.stdout and "Accuracy" in shown.stdout, shown.stdout
    builder = next(
        each["name"]
        for each in up.get("services?all=1")["services"]
        if each["name"].startswith("builder")
    )
    assert up.cli("logs", builder).stdout
    say(up.story(name))

    second = up.submit(sla(repository))
    project = up.wait_for(second, {"done", "failed", "cancelled"})
    check_result(up, project)
    seconds = re.findall(r"T(\d+):(\d+):([\d.]+)", project["created_at"] + project["ended_at"])
    took = [int(h) * 3600 + int(m) * 60 + float(s) for h, m, s in seconds]
    say(f"the second project took {took[1] - took[0]:.1f} s")

    assert up.cli("project", "rm", name).returncode == 0
    assert up.cli("project", "show", name).returncode == 1
    up.stop()
    wait_until("nothing is left", lambda: not up.processes(), 30)


def test_only_who_has_the_token_may_ask(up):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        answer = httpx.get(f"{up.url}/api/v1/projects", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
    for file in ("accounts.json", "admin.password"):
        assert (up.state / file).stat().st_mode & 0o777 == 0o600
