"""Data that stays on learner nodes: mock data, one part for each learner, no way around."""

from __future__ import annotations

import json
import re

import pytest

from tests.harness.servers import REPO
from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result
from tests.ops.up import make_repository

EXAMPLE = REPO / "examples" / "ml-repos" / "fashion-mnist-sklearn"


def test_learners_train_on_their_parts_of_mock_data(up, tmp_path, say):
    assert "no data servers" in up.cli("data").stdout
    made = up.cli("data", "mock", "--partitions", "2", "--tag", "mnist")
    assert made.returncode == 0, made.stdout + made.stderr
    services = {each["name"]: each for each in up.get("services")["services"]}
    servers = [each for name, each in services.items() if name.startswith("mldata")]
    assert len(servers) == 2 and all(each["url"].startswith("grpc://") for each in servers)
    assert all(each["url"] in up.cli("data").stdout for each in servers)
    repository = tmp_path / "fashion"
    make_repository(EXAMPLE, repository)
    document = sla(repository)
    document["training_configuration"]["data_tags"] = ["mnist"]
    name = up.submit(document)
    project = up.wait_for(name, {"done", "failed", "cancelled"})
    check_result(up, project)
    told = [entry["text"] for entry in up.get(f"projects/{name}/timeline")["entries"]]
    rows = [re.search(r"has (\d+) rows of the data on (node-\d)", text) for text in told]
    shares = {found[2]: int(found[1]) for found in rows if found}
    assert shares == {"node-1": 30_000, "node-2": 30_000}
    say(json.dumps(project["best"]))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dataset_name": "cifar10"}, "dataset_name"),
        ({"number_of_partitions": 0}, "number_of_partitions"),
        ({"data_tag": ""}, "data_tag"),
        ({"data_tag": "../x"}, "data_tag"),
    ],
)
def test_a_mock_sla_that_is_wrong_names_the_field(up, change, field):
    configuration = {"dataset_name": "digits", "number_of_partitions": 1, "data_tag": "d"} | change
    document = {"customerID": "Admin", "mock_data_configuration": configuration}
    answer = up.request("POST", "mocks", json=document)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"mock_data_configuration.{field}"
