"""A customer's MLflow, for who asks before there is a project: real ones."""

from __future__ import annotations

import httpx

from tests.ops.test_doors import flops


def test_who_asks_first_gets_a_server(up):
    asked = flops(up, "GET", "/api/flops/tracking", json={"customerID": "Admin"})
    assert asked.status_code == 200, asked.text
    url = asked.json()["tracking_server_url"]
    assert url == f"http://127.0.0.1:{up.flags['tracking-port']}"
    assert "start" in asked.json()["message"]
    shown = up.cli("tracking")
    assert shown.returncode == 0 and shown.stdout == f"{url}\n", shown.stderr
    assert httpx.get(f"{url}/health", timeout=10).status_code == 200, "it waits until MLflow answers"
    for answer in (
        flops(up, "GET", "/api/flops/tracking?customerID=Admin"),
        flops(up, "GET", "/api/flops/tracking/", json={"customerID": "Admin"}),
    ):
        assert answer.json() == {"tracking_server_url": url}
    assert up.get("tracking?wait=30")["ready"] is True
    assert len(up.get("services")["services"]) == 1, "asking again makes no other"
    assert flops(up, "GET", "/api/flops/tracking").status_code == 422
    assert flops(up, "GET", "/api/flops/tracking?customerID=nobody").status_code == 404
