"""Control, /metrics and unproved claims of tasks are answered only to the peers they are meant for."""

from __future__ import annotations

from flwr.proto import runtime_pb2

from . import wire
from .oracle import Talk
from .steps import FLEET, RUNTIME, SERVERAPP, fill, new_node

# 192.0.2.0/24 is documentation's own network; this machine is not in it.
ELSEWHERE = ["--control-from", "192.0.2.0/24"]
HEADERS = {"content-type": wire.PROTOBUF, "prefer": "wait=0"}


def test_foreign_peers_cannot_command(umbel_bin, start_server) -> None:
    server = start_server("umbel", isolation="process", extra_args=ELSEWHERE)
    with server.client() as client:
        for path in [*wire.CONTROL, "/v1/control/nonsense"]:
            assert client.post(path, headers=HEADERS).status_code == 401, path
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
    # The Fleet serves nodes wherever they are.
    with Talk(server.base_url) as talk:
        node = new_node(talk, "a")
        request = fill(wire.ROUTES[FLEET + "pull-messages"][0], node=node.id)
        assert talk.call("pull", FLEET + "pull-messages", request, key=node.key).status == 200


def test_a_foreign_superexec_must_know_the_secret(umbel_bin, start_server, tmp_path) -> None:
    """Whoever claims a task may act as its ServerApp."""
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=[SERVERAPP])
    body = request.SerializeToString(deterministic=True)
    path = RUNTIME + "acquire-task"
    server = start_server("umbel", isolation="process", extra_args=ELSEWHERE)
    with server.client() as client:
        assert client.post(path, headers=HEADERS, content=body).status_code == 401
    secret = tmp_path / "secret"
    secret.write_bytes(b"shared")
    server = start_server(
        "umbel", isolation="process", secret_file=secret, extra_args=ELSEWHERE
    )
    with server.client() as client:
        assert client.post(path, headers=HEADERS, content=body).status_code == 401
        signed = [*HEADERS.items(), *wire.superexec_headers(b"shared", body)]
        assert client.post(path, headers=signed, content=body).status_code == 200


def test_loopback_may(umbel_bin, start_server) -> None:
    server = start_server("umbel", isolation="process")
    with server.client() as client:
        assert client.post("/v1/control/list-runs", headers=HEADERS).status_code == 200
        assert client.post(RUNTIME + "acquire-task", headers=HEADERS).status_code == 200
        metrics = client.get("/metrics")
        assert metrics.status_code == 200
        assert metrics.headers["content-type"].startswith("text/plain")
