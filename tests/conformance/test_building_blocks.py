"""The tests' own tools: object ids, bundles, names, and starting servers."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO

import httpx
import pytest
from flwr.proto import message_pb2, runtime_pb2

from tests.harness import servers

from . import wire
from .oracle import Names, frames, plain


def test_known_object_ids() -> None:
    values = struct.pack("<4f", 1, 2, 3, 4)
    matrix = wire.array(values, [2, 2])
    assert wire.Thing("ArrayChunk", b"abc").id.startswith("8f373c1473d725a6")
    assert wire.Thing("RecordDict", b"{}").id.startswith("a5fc9cb09319dc37")
    assert matrix.children[0].id.startswith("0bd55c552a4d962c")
    assert matrix.id.startswith("9a6df3451aa0b992")
    failure = wire.parcel(
        7, 2, 1, reply_to="a" * 64, created_at=1774000000.5, ttl=10.0, error=(2, "boom")
    )
    assert failure.id.startswith("0050aa6828af945e")


def test_bundles_are_readable_and_repeatable() -> None:
    assert wire.bundle() == wire.bundle()
    with zipfile.ZipFile(BytesIO(wire.bundle())) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "pyproject.toml"


def test_names_hide_what_differs_and_nothing_else() -> None:
    answers = []
    for run_id, token in ((2**63 + 1, "ab" * 128), (2**62 + 5, "cd" * 128)):
        names = Names()
        names.step = "one"
        message = runtime_pb2.AcquireTaskResponse(token=token)
        message.task.run_id = run_id
        message.task.type = "flwr-serverapp"
        message.task.pending_at = "2026-11-22T02:06:59.298173+00:00"
        answers.append(plain(message, names))
    assert answers[0] == answers[1]
    assert answers[0]["task"] == {
        "run_id": "run@one", "type": "flwr-serverapp", "pending_at": "<time>"
    }  # fmt: skip
    message.task.pending_at = "2026-11-22T02:06:59.298173Z"  # a form that old clients cannot read
    assert plain(message, names)["task"]["pending_at"] != "<time>"


def test_frames() -> None:
    tree = message_pb2.ObjectTree(object_id="x").SerializeToString()
    stream = len(tree).to_bytes(4, "big") + tree
    assert [tree.object_id for tree in frames(stream * 2, message_pb2.ObjectTree)] == ["x", "x"]
    with pytest.raises(ValueError):
        frames(stream[:-1], message_pb2.ObjectTree)


def test_server_can_be_killed_and_restarted(start_server) -> None:
    server = start_server("umbel" if servers.have_umbel() else "upstream", isolation="process")
    first = server.pid
    server.kill9()
    assert server.proc is not None and server.proc.returncode == -9
    with pytest.raises(httpx.TransportError), server.client() as client:
        client.get("/health")
    server.restart()
    assert server.pid != first
    with server.client() as client:
        assert client.get("/health").status_code == 200
    server.stop()
    server.stop()


def test_server_over_tls(start_server, certs) -> None:
    server = start_server(
        "umbel" if servers.have_umbel() else "upstream", tls=certs, node_auth=True
    )
    with server.client() as client:
        assert client.get("/health").status_code == 200
    with pytest.raises(httpx.ConnectError), httpx.Client(trust_env=False) as stranger:
        stranger.get(server.base_url + "/health")


def test_a_server_that_cannot_start_says_why(start_server) -> None:
    kind = "umbel" if servers.have_umbel() else "upstream"
    with pytest.raises(servers.ServerError, match="ended with status"):
        start_server(kind, extra_args=["--no-such-flag"])
