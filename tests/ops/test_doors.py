"""FLOps's REST door, our own API and its accounts, as their clients see them."""

from __future__ import annotations

import time

import httpx

from tests.ops.conftest import sla


def flops(up, method: str, path: str, **more) -> httpx.Response:
    more.setdefault("headers", {"Authorization": f"Bearer {up.token()}"})
    url = f"http://127.0.0.1:{up.flags['flops-port']}{path}"
    return httpx.request(method, url, timeout=90, **more)


def test_flops_routes_answer_with_and_without_a_slash(up, repository):
    assert flops(up, "GET", "/").json() == {"message": "ok"}
    for slash in ("", "/"):
        answer = flops(up, "POST", f"/api/flops/projects{slash}", json=sla(repository))
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["message"] == "New FLOps project started successfully"
        name = body["flops_project_id"]
        assert flops(up, "GET", f"/api/flops/projects/{name}{slash}").json()["id"] == name
        listed = flops(up, "GET", f"/api/flops/projects{slash}").json()["projects"]
        assert name in [each["id"] for each in listed]
        told = flops(up, "GET", f"/api/flops/projects/{name}/logs{slash}").json()["logs"]
        assert told and all(entry["text"] for entry in told)
    assert flops(up, "DELETE", "/api/flops/database", json={"customerID": "Admin"}).json() == {
        "message": "Successfully reset the database."
    }
    deadline = time.monotonic() + 60
    version = 0
    while flops(up, "GET", "/api/flops/projects").json()["projects"]:
        assert time.monotonic() < deadline
        version = up.get(f"changes?since={version}&wait=5")["version"]


def test_flops_wants_a_token_and_knows_whose(up, repository):
    wrong = {"Authorization": "Bearer e30.e30.x"}
    for headers in ({}, wrong, {"Authorization": "Basic eDp5"}):
        for method, path in (
            ("POST", "projects"), ("GET", "projects"), ("POST", "mocks"), ("GET", "tracking"),
            ("DELETE", "database"),
        ):  # fmt: skip
            assert flops(up, method, f"/api/flops/{path}", headers=headers).status_code == 401
    made = up.request("PUT", "accounts/alice", json={"password": "correct horse"})
    assert made.status_code == 200, made.text
    alice = {"Authorization": f"Bearer {up.token('alice', 'correct horse')}"}
    refused = flops(up, "POST", "/api/flops/projects", json=sla(repository), headers=alice)
    assert refused.status_code == 403 and "alice" in refused.json()["message"]
    reset = flops(up, "DELETE", "/api/flops/database", json={"customerID": "Admin"}, headers=alice)
    assert reset.status_code == 403
    assert reset.json() == {"message": "Only Admins are allowed to reset the database!"}
    tracking = flops(up, "GET", "/api/flops/tracking?customerID=Admin", headers=alice)
    assert tracking.status_code == 403
    name = flops(up, "POST", "/api/flops/projects", json=sla(repository)).json()["flops_project_id"]
    assert flops(up, "GET", f"/api/flops/projects/{name}", headers=alice).status_code == 404
    assert flops(up, "GET", "/api/flops/projects", headers=alice).json() == {"projects": []}
    own = flops(
        up, "POST", "/api/flops/projects", json=sla(repository, customerID="alice"), headers=alice
    )
    assert own.status_code == 200, own.text
    seen = flops(up, "GET", "/api/flops/projects", headers=alice).json()["projects"]
    assert [each["customer"] for each in seen] == ["alice"]


def test_accounts_of_the_api(up):
    assert up.get("accounts") == {"accounts": [{"name": "Admin", "admin": True}]}
    answer = up.request("PUT", "accounts/alice", json={"password": "short"})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "password"
    assert up.request("PUT", "accounts/alice", json={"password": "a" * 12}).status_code == 200
    headers = {"Authorization": f"Bearer {up.token('alice', 'a' * 12)}"}
    url = f"{up.url}/api/v1/accounts"
    assert httpx.get(url, headers=headers).status_code == 403
    raised = httpx.put(f"{url}/alice", headers=headers, json={"password": "b" * 12, "admin": True})
    assert raised.status_code == 403
    assert httpx.put(f"{url}/alice", headers=headers, json={"password": "b" * 12}).status_code == 200
    assert httpx.get(f"{up.url}/api/v1/projects", headers=headers).status_code == 401, "its token is over"
    assert up.request("DELETE", "accounts/alice").status_code == 200
    assert up.request("DELETE", "accounts/alice").status_code == 404
    last = up.request("DELETE", "accounts/Admin")
    assert last.status_code == 409 and "last admin" in last.json()["detail"]


def test_a_restart_ends_no_token(up):
    headers = {"Authorization": f"Bearer {up.token()}"}
    up.kill()
    up.start()
    assert httpx.get(f"{up.url}/api/v1/projects", headers=headers).status_code == 200


def test_the_description_names_every_route(up):
    document = httpx.get(f"{up.url}/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "post", "put", "delete"}:
            route = path.replace("{project}", "none").replace("{service}", "none")
            answer = httpx.request(method, up.url + route.replace("{name}", "none"))
            assert answer.status_code in (200, 401, 422), (method, path, answer.text)
