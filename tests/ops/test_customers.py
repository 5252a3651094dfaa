"""Customers see what is theirs: every route of every door, asked by somebody else.

The tables name each route of the doors' own descriptions, and the test fails when one is missing.
"""

from __future__ import annotations

import httpx
import pytest

from tests.harness.servers import wait_until
from tests.ops.conftest import sla

PASSWORD = "correct horse"
MOCK = {"mock_data_configuration": {"dataset_name": "digits", "data_tag": "alices"}}

# What bob is told who asks for what is alice's: a status, or "own": his own things only.
API = {
    ("post", "/api/v1/projects"): 403,
    ("get", "/api/v1/projects"): "own",
    ("get", "/api/v1/projects/{project}"): 404,
    ("delete", "/api/v1/projects/{project}"): 404,
    ("post", "/api/v1/projects/{project}/stop"): 404,
    ("post", "/api/v1/projects/{project}/resume"): 404,
    ("get", "/api/v1/projects/{project}/timeline"): 404,
    ("post", "/api/v1/mocks"): 403,
    ("delete", "/api/v1/mocks/{mock}"): 404,
    ("get", "/api/v1/services"): "own",
    ("get", "/api/v1/services/{service}/logs"): 404,
    ("get", "/api/v1/nodes"): "own",
    ("get", "/api/v1/tracking"): 403,
    ("get", "/api/v1/changes"): "own",
    ("get", "/api/v1/version"): "own",
    ("get", "/api/v1/accounts"): 403,
    ("post", "/api/v1/accounts"): 403,
    ("put", "/api/v1/accounts/{name}"): 403,
    ("delete", "/api/v1/accounts/{name}"): 403,
}
FLOPS = {
    ("post", "/api/flops/projects"): 403,
    ("get", "/api/flops/projects"): "own",
    ("get", "/api/flops/projects/{project}"): 404,
    ("delete", "/api/flops/projects/{project}"): 404,
    ("post", "/api/flops/projects/{project}/stop"): 404,
    ("post", "/api/flops/projects/{project}/resume"): 404,
    ("get", "/api/flops/projects/{project}/logs"): 404,
    ("post", "/api/flops/mocks"): 403,
    ("delete", "/api/flops/mocks/{mock}"): 404,
    ("get", "/api/flops/tracking"): 403,
    ("delete", "/api/flops/database"): 403,
}
OAKESTRA = {
    ("get", "/api/clusters"): "own",
    ("get", "/api/clusters/active"): "own",
    ("get", "/api/applications"): "own",
    ("get", "/api/application/{app}"): 404,
    ("delete", "/api/application/{project_app}"): 404,
    ("get", "/api/services"): "own",
    ("get", "/api/services/{app}"): "own",
    ("get", "/api/service/{id}"): 404,
}


class Customer:
    def __init__(self, up, name: str):
        self.name = name
        self._headers = {"Authorization": f"Bearer {up.token(name, PASSWORD)}"}
        self._doors = {
            "api": up.url,
            "flops": f"http://127.0.0.1:{up.flags['flops-port']}",
            "oakestra": f"http://127.0.0.1:{up.flags['oakestra-port']}",
        }

    def ask(self, door: str, method: str, path: str, **more) -> httpx.Response:
        url = self._doors[door] + path
        return httpx.request(method, url, headers=self._headers, timeout=60, **more)


@pytest.fixture
def customers(doors, tmp_path):
    for name in ("alice", "bob"):
        doors.request("PUT", f"accounts/{name}", json={"password": PASSWORD}).raise_for_status()
    return doors, Customer(doors, "alice"), Customer(doors, "bob")


def belongings(alice: Customer) -> dict[str, str]:
    """What alice makes, by the names that paths have for it."""
    project = alice.ask("api", "POST", "/api/v1/projects", json=sla("/nowhere", customerID="alice"))
    assert project.status_code == 201, project.text
    mock = alice.ask("api", "POST", "/api/v1/mocks", json=MOCK | {"customerID": "alice"})
    assert mock.status_code == 201, mock.text
    tracking = alice.ask("api", "GET", "/api/v1/tracking")
    assert tracking.status_code == 200, tracking.text
    services = alice.ask("api", "GET", "/api/v1/services").json()["services"]
    [observer] = [each for each in services if each["namespace"] == "observ"]
    made = project.json()
    return {
        "project": made["id"], "project_app": made["app_id"], "app": observer["app_id"], "app_name": made["app_name"],
        "mock": mock.json()["service"], "service": observer["name"], "id": observer["id"],
        "url": tracking.json()["url"], "name": "alice",
    }  # fmt: skip


def body_for(door: str, method: str, path: str) -> dict | None:
    """What is sent: in alice's name, valid but for the sender."""
    if method == "post" and path.endswith("/projects"):
        return sla("/nowhere", customerID="alice")
    if method == "post" and path.endswith("/mocks"):
        return MOCK | {"customerID": "alice"}
    if method in ("post", "put") and "/accounts" in path:
        return {"name": "alice2", "password": "another password"}
    return {"customerID": "alice"} if door == "flops" and path.endswith("/tracking") else None


def documented(alice: Customer, door: str, path: str) -> set[tuple[str, str]]:
    paths = alice.ask(door, "GET", path).json()["paths"]
    return {
        (method, route)
        for route, item in paths.items()
        for method, operation in item.items()
        if method != "parameters" and operation.get("security") != [] and "/renew" not in route
    }


@pytest.mark.parametrize("door", ["api", "flops", "oakestra"])
def test_every_route_keeps_customers_apart(customers, door):
    up, alice, bob = customers
    hers = belongings(alice)
    routes = {"api": API, "flops": FLOPS, "oakestra": OAKESTRA}[door]
    if door != "oakestra":
        where = {"api": "/api/v1/openapi.json", "flops": "/openapi/openapi.json"}[door]
        assert documented(alice, door, where) == set(routes)
    query = {"customer": "alice"} if door == "api" else {"customerID": "alice"}
    for (method, path), expected in routes.items():
        route = path.format(**hers)
        body = body_for(door, method, path)
        answers = [bob.ask(door, method, route, json=body)] if body else []
        if not body or path.endswith("/tracking"):
            params = query if path.endswith("/tracking") else None
            answers.append(bob.ask(door, method, route, params=params))
        for answer in answers:
            status = 200 if expected == "own" else expected
            assert answer.status_code == status, (method, route, answer.text)
            # A refusal may name what was asked for, and nothing else.
            told = answer.text
            for part in route.split("/"):
                told = told.replace(part, "") if len(part) > 5 else told
            for what, value in hers.items():
                assert value not in told, (method, route, what, told)
    # The same is there for whom it belongs to, and nothing of it has changed.
    after = up.get(f"projects/{hers['project']}")
    assert after["pending"] is None and after["stage"] in ("prepare", "failed"), after
    assert [each["name"] for each in up.get("accounts")["accounts"]] == ["Admin", "alice", "bob"]
    for method, path in routes:
        if method == "get" and path != "/api/v1/accounts":
            params = query if path.endswith("/tracking") else None
            answer = alice.ask(door, method, path.format(**hers), params=params)
            assert answer.status_code == 200, (path, answer.text)
    if door != "oakestra":
        stop = next(path for _, path in routes if path.endswith("/stop"))
        assert alice.ask(door, "POST", stop.format(**hers)).status_code in (200, 202)
    names = [each["name"] for each in alice.ask("api", "GET", "/api/v1/services").json()["services"]]
    assert hers["mock"] in names and hers["service"] in names


def test_a_name_that_others_have_too_is_ones_own(customers):
    up, alice, bob = customers
    hers = belongings(alice)["project"]
    made = bob.ask("api", "POST", "/api/v1/projects", json=sla("/nowhere", customerID="bob"))
    his = made.json()["id"]
    shared = hers[:4]
    assert his.startswith(shared), "ids begin with the time"
    assert bob.ask("api", "GET", f"/api/v1/projects/{shared}").json()["id"] == his
    assert alice.ask("flops", "GET", f"/api/flops/projects/{shared}").json()["id"] == hers
    assert up.request("GET", f"projects/{shared}").status_code == 422, "an admin sees both"


def test_mock_data_providers_come_and_go(doors):
    made = doors.request("POST", "mocks", json=MOCK | {"customerID": "Admin"})
    assert made.status_code == 201, made.text
    name = made.json()["service"]

    def instances() -> list:
        services = doors.get("services")["services"]
        return [each["instances"] for each in services if each["name"] == name]

    wait_until("the provider runs", lambda: any(instances()), 30)
    assert doors.request("DELETE", "mocks/mockdp0").status_code == 404
    removed = doors.request("DELETE", f"mocks/{name}")
    assert removed.status_code == 202 and removed.json() == {"service": name}
    wait_until("it is gone", lambda: not instances(), 30)
    everything = doors.get("services?all=1")["services"]
    assert name not in [each["name"] for each in everything]
    assert not list((doors.state / "mocks").iterdir())
    assert not [p for p in (doors.state / "logs").iterdir() if p.name.startswith(name)]


def test_tracking_is_for_customers_there_are(doors):
    nobody = doors.request("GET", "tracking?customer=nobody")
    assert nobody.status_code == 404 and "umbel accounts add" in nobody.json()["detail"]
    first, again = (doors.get("tracking") for _ in range(2))
    assert first["url"] == again["url"] and first["customer"] == "Admin"
    assert not first["ready"] and "tracking" in first["waiting_for"]
    names = [each["name"] for each in doors.get("services")["services"]]
    assert len([name for name in names if name.startswith("tracking")]) == 1
