"""Requests that wait for something to hand out: they are held, kept open, woken, and let go.

The comparison with the stock SuperLink sends `Prefer: wait=0` and so never waits. Here nobody does.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from dataclasses import dataclass

import httpx
import pytest
from flwr.proto import fleet_pb2, runtime_pb2

from tests.harness import servers

from . import wire
from .oracle import Talk
from .steps import (
    FLEET,
    RUNTIME,
    SERVERAPP,
    answer,
    by_node,
    deliver,
    instruction,
    new_node,
    node_push,
    push,
    push_wanted,
    reply,
    running,
    start_run,
    stop_run,
)

HTTPX = f"python-httpx/{httpx.__version__}"
AT_ONCE = 3.0  # seconds; a hold that is not woken takes 20
QUIET = 0.7  # seconds without an answer: held
slow = pytest.mark.skipif(os.environ.get("UMBEL_SLOW") != "1", reason="waits; set UMBEL_SLOW=1")


@dataclass
class Got:
    """An answer as it came: how many interim lines before it, and after how many seconds."""

    status: int
    body: bytes
    interim: int
    seconds: float


class Held:
    """One request on a connection of its own, which may take its time."""

    def __init__(self, server: servers.Server, path: str, body: bytes, headers=(), agent=HTTPX):
        host, _, port = server.address.rpartition(":")
        lines = [
            f"POST {path} HTTP/1.1", f"Host: {server.address}", f"User-Agent: {agent}",
            f"Content-Type: {wire.PROTOBUF}", f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in headers), "", "",
        ]  # fmt: skip
        self.begin = time.monotonic()
        self._bytes = b""
        self._interim = 0
        self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        self._socket.sendall("\r\n".join(lines).encode() + body)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def interim(self, seconds: float) -> float:
        """Wait for an interim line; returns when it came, in seconds since the request."""
        end = time.monotonic() + seconds
        while not self._take_interim():
            assert self._receive(end), f"no interim line within {seconds} s"
        return time.monotonic() - self.begin

    def quiet(self, seconds: float = QUIET) -> None:
        """Nothing but interim lines comes for this long."""
        end = time.monotonic() + seconds
        while self._receive(end):
            self._take_interim()
            assert not self._bytes, f"answered: {self._bytes[:200]!r}"

    def answer(self, seconds: float = AT_ONCE) -> Got:
        end = time.monotonic() + seconds
        while True:
            self._take_interim()
            head, found, rest = self._bytes.partition(b"\r\n\r\n")
            if found:
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head + b"\r\n")
                size = int(length[1]) if length else 0
                if len(rest) >= size:
                    status = int(head.split()[1])
                    return Got(status, rest[:size], self._interim, time.monotonic() - self.begin)
            assert self._receive(end), f"no answer within {seconds} s, only {self._bytes[:200]!r}"

    def _take_interim(self) -> bool:
        head, found, rest = self._bytes.partition(b"\r\n\r\n")
        if not found or head.split()[1:2] != [b"102"]:
            return False
        self._bytes = rest
        self._interim += 1
        return True

    def _receive(self, end: float) -> bool:
        """More bytes, or False when none came until `end`."""
        left = end - time.monotonic()
        if left <= 0:
            return False
        self._socket.settimeout(left)
        try:
            more = self._socket.recv(65536)
        except TimeoutError:
            return False
        assert more, "the server closed the connection"
        self._bytes += more
        return True


@pytest.fixture
def place(umbel_bin, start_server):
    """A server, and a talk with it that arranges things."""
    server = start_server("umbel", isolation="process")
    with Talk(server.base_url) as talk:
        yield server, talk


def pull_of(server: servers.Server, node, agent: str = HTTPX) -> Held:
    request = fleet_pb2.PullMessagesRequest(node=wire.node(node.id))
    return Held(
        server, FLEET + "pull-messages", request.SerializeToString(), node.key.headers(), agent
    )


def replies_of(server: servers.Server, token: str, *ids: str) -> Held:
    request = runtime_pb2.PullAppMessagesRequest(message_ids=ids)
    headers = [("flwr-task-token", token)]
    return Held(server, RUNTIME + "pull-messages", request.SerializeToString(), headers)


def claim_of(server: servers.Server) -> Held:
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=[SERVERAPP])
    return Held(server, RUNTIME + "acquire-task", request.SerializeToString())


def publish(talk: Talk, name: str, token: str, run_id: int, node) -> wire.Parcel:
    parcel = instruction(talk, name, run_id, node.id)
    got = push(talk, f"{name}.push", token, parcel)
    push_wanted(talk, f"{name}.objects", token, run_id, got, parcel)
    return parcel


def instructions(got: Got) -> list[str]:
    assert got.status == 200
    found = fleet_pb2.PullMessagesResponse.FromString(got.body)
    return [message.metadata.message_id for message in found.messages_list]


def answers(got: Got) -> dict[str, int]:
    """The error code, or 0, of the reply to each message."""
    assert got.status == 200
    found = runtime_pb2.PullAppMessagesResponse.FromString(got.body)
    return {
        message.metadata.reply_to_message_id: message.error.code for message in found.messages_list
    }


def test_node_is_woken_by_work(place) -> None:
    server, talk = place
    node = new_node(talk, "a")
    run_id, token = running(talk)
    with pull_of(server, node) as held:
        held.quiet()
        parcel = instruction(talk, "ask", run_id, node.id)
        got = push(talk, "ask.push", token, parcel)
        held.quiet()  # announced is not here
        begin = time.monotonic()
        push_wanted(talk, "ask.objects", token, run_id, got, parcel)
        assert instructions(held.answer()) == [parcel.id]
        assert time.monotonic() - begin < AT_ONCE


def test_httpx_is_kept_with_interim_lines(place) -> None:
    server, talk = place
    node = new_node(talk, "a")
    run_id, token = running(talk)
    with pull_of(server, node) as held:
        assert 14 < held.interim(20.0) < 17
        parcel = publish(talk, "ask", token, run_id, node)
        got = held.answer()
        assert instructions(got) == [parcel.id]
        assert got.interim == 1


@slow
def test_httpx_survives_a_long_hold(place) -> None:
    server, talk = place
    node = new_node(talk, "a")
    run_id, token = running(talk)
    result: dict[str, object] = {}

    def wait() -> None:
        request = fleet_pb2.PullMessagesRequest(node=wire.node(node.id)).SerializeToString()
        headers = [("content-type", wire.PROTOBUF), *node.key.headers()]
        begin = time.monotonic()
        try:
            with httpx.Client(trust_env=False, timeout=30.0) as client:
                url = server.base_url + FLEET + "pull-messages"
                result["got"] = client.post(url, content=request, headers=headers)
        except httpx.HTTPError as error:
            result["error"] = error
        result["seconds"] = time.monotonic() - begin

    waiter = threading.Thread(target=wait, name="httpx")
    waiter.start()
    for beat in range(5):
        waiter.join(7.0)
        by_node(talk, f"beat-{beat}", node, "send-node-heartbeat")
        talk.call(f"task-beat-{beat}", RUNTIME + "send-task-heartbeat", token=token)
    assert waiter.is_alive(), result
    parcel = publish(talk, "ask", token, run_id, node)
    waiter.join(AT_ONCE)
    assert "error" not in result, result
    got = result["got"]
    assert isinstance(got, httpx.Response) and got.status_code == 200
    found = fleet_pb2.PullMessagesResponse.FromString(got.content)
    assert [message.metadata.message_id for message in found.messages_list] == [parcel.id]
    assert 35 <= float(str(result["seconds"])) < 40


@slow
def test_others_are_answered_in_time(place) -> None:
    """Whoever cannot be told to wait gets an empty answer before a client of 30 s gives up."""
    server, talk = place
    node = new_node(talk, "a")
    run_id, token = running(talk)
    open_ask = publish(talk, "ask", token, run_id, node)
    deliver(talk, "other", token, run_id, node)
    with (
        pull_of(server, new_node(talk, "b"), agent="curl/8.0") as pull,
        # The grid looks at its own clock only between polls, so httpx gets this one back too.
        replies_of(server, token, open_ask.id) as replies,
    ):
        for held in (pull, replies):
            got = held.answer(27.0)
            assert (got.status, got.body, got.interim) == (200, b"", 0)
            assert 18 < got.seconds < 26


def test_replies_are_held_until_all_are_here(place) -> None:
    server, talk = place
    a, b = new_node(talk, "a"), new_node(talk, "b")
    run_id, token = running(talk)
    to_a, to_b = (
        deliver(talk, name, token, run_id, node) for name, node in (("to-a", a), ("to-b", b))
    )
    with replies_of(server, token, to_a.id, to_b.id) as held:
        held.quiet()
        answer(talk, "from-a", run_id, a, to_a)
        held.quiet()  # half of it
        back = reply(talk, "from-b", to_b)
        got = node_push(talk, "from-b.push", b, back)
        held.quiet()  # all of it, but for the objects of one
        push_wanted(talk, "from-b.objects", b, run_id, got, back)
        assert answers(held.answer()) == {to_a.id: 0, to_b.id: 0}


def test_a_node_that_leaves_is_an_answer_too(place) -> None:
    server, talk = place
    a, b = new_node(talk, "a"), new_node(talk, "b")
    run_id, token = running(talk)
    to_a, to_b = (
        deliver(talk, name, token, run_id, node) for name, node in (("to-a", a), ("to-b", b))
    )
    answer(talk, "from-a", run_id, a, to_a)
    with replies_of(server, token, to_a.id, to_b.id) as held:
        held.quiet()
        by_node(talk, "leave", b, "deactivate-node")
        assert answers(held.answer()) == {to_a.id: 0, to_b.id: 5}


def test_a_stopped_run_lets_its_app_go(place) -> None:
    server, talk = place
    node = new_node(talk, "a")
    run_id, token = running(talk)
    asked = deliver(talk, "ask", token, run_id, node)
    with replies_of(server, token, asked.id) as held:
        held.quiet()
        stop_run(talk, "stop", run_id)
        assert held.answer().status == 401


def test_a_node_that_unregisters_is_let_go(place) -> None:
    server, talk = place
    node = new_node(talk, "a")
    with pull_of(server, node) as held:
        held.quiet()
        by_node(talk, "unregister", node, "unregister-node")
        assert held.answer().status == 401


def test_claim_is_woken_by_a_run(place) -> None:
    server, talk = place
    with claim_of(server) as first, claim_of(server) as second:
        first.quiet()
        second.quiet(0.1)
        run_id = start_run(talk, "start").message.run_id
        # Either may get it, the other goes on waiting.
        taken, waiting = [], []
        for held in (first, second):
            try:
                taken.append(held.answer(1.0))
            except AssertionError:
                waiting.append(held)
        assert len(taken) == 1 and len(waiting) == 1
        got = runtime_pb2.AcquireTaskResponse.FromString(taken[0].body)
        assert got.task.run_id == run_id and got.token
        waiting[0].quiet(0.1)


def test_one_who_goes_frees_the_place_and_takes_nothing(place) -> None:
    server, talk = place
    node = new_node(talk, "a")
    run_id, token = running(talk)
    with server.client() as client:

        def connections() -> int:
            text = client.get("/metrics").text
            found = re.search(r"(?m)^umbel_connections_open (\d+)$", text)
            assert found, text
            return int(found[1])

        before = connections()
        held = [pull_of(server, node) for _ in range(3)]
        held += [claim_of(server), claim_of(server)]
        servers.wait_until(
            "five more connections", lambda: connections() >= before + len(held), AT_ONCE
        )
        held[0].quiet(0.2)
        for one in held:
            one.close()
        servers.wait_until("their places are free", lambda: connections() <= before, AT_ONCE)
    # Work that comes now is for those who still ask.
    parcel = publish(talk, "ask", token, run_id, node)
    got = by_node(talk, "pull", node, "pull-messages")
    assert [message.metadata.message_id for message in got.message.messages_list] == [parcel.id]
    next_run = start_run(talk, "next").message.run_id
    with claim_of(server) as claim:
        task = runtime_pb2.AcquireTaskResponse.FromString(claim.answer().body).task
        assert task.run_id == next_run
