"""The trained model answers: /invocations in every form MLflow knows, and a clear no to what is wrong."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result

JSON = {"content-type": "application/json"}


def test_the_best_model_is_served(up, repository, tmp_path, say):
    steps = ["build_image_for_trained_model", "deploy_trained_model_image"]
    name = up.submit(sla(repository, post_training_steps=steps))
    check_result(up, up.wait_for(name, {"done", "failed", "cancelled"}))
    services = up.get("services")["services"]
    (served,) = (each for each in services if each["name"].startswith("trmodel"))
    assert served["app_name"] == "helper"
    url = f"{served['url']}/invocations"
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 17, (5, 64)) / 16
    columns = [str(i) for i in range(64)]
    table = {"columns": columns, "data": rows.tolist()}
    records = [dict(zip(columns, row, strict=True)) for row in rows.tolist()]
    csv = ",".join(columns) + "\n" + "\n".join(",".join(map(str, row)) for row in rows.tolist())
    asked = {
        "csv": httpx.post(url, content=csv, headers={"content-type": "text/csv"}, timeout=60),
        "split": httpx.post(url, json={"dataframe_split": table}, timeout=60),
        "records": httpx.post(url, json={"dataframe_records": records}, timeout=60),
        "instances": httpx.post(url, json={"instances": rows.tolist()}, timeout=60),
        "inputs": httpx.post(url, json={"inputs": rows.tolist()}, timeout=60),
    }
    answers = {}
    for form, answer in asked.items():
        say(f"{form}: {answer.status_code} {answer.text[:120]}")
        assert answer.status_code == 200, (form, answer.text)
        answers[form] = answer.json()["predictions"]
    assert all(each == answers["csv"] for each in answers.values()), answers
    assert all(0 <= each < 10 for each in answers["csv"])
    file = tmp_path / "rows.csv"
    file.write_text(csv)
    asked_by_cli = up.cli("predict", str(file))
    assert asked_by_cli.returncode == 0, asked_by_cli.stderr
    assert json.loads(asked_by_cli.stdout)["predictions"] == answers["csv"]
    file.write_text("a\n1\n")
    refused = up.cli("predict", str(file), "--project", name)
    assert refused.returncode == 1 and "answers 400" in refused.stderr, refused.stderr
    assert name in up.cli("models").stdout
    wrong = httpx.post(url, json={"dataframe_split": {"columns": ["a"], "data": [[1]]}}, timeout=60)
    assert wrong.status_code == 400 and "message" in wrong.json(), wrong.text
    assert up.cli("project", "rm", name).returncode == 0
    with pytest.raises(httpx.HTTPError):
        for _ in range(100):
            httpx.get(f"{served['url']}/ping", timeout=5)
            up.get(f"changes?since={up.get('changes?since=0')['version']}&wait=2")
