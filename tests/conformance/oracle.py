"""Send the steps of a scenario to a server and write down what it answers.

An answer is kept in a form that two servers can share: ids, tokens, session ids and times are
replaced by names (`run@start`: the run id first seen in step `start`), error texts by the fact
that there is one. Everything else must be equal.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from flwr.proto import message_pb2, runtime_pb2

from . import wire

# ---------------------------------------------------------------------------------------------
# Names for values that differ from one program, or one moment, to the next

_ID_FIELDS = {
    "run_id": "run",
    "run_ids": "run",
    "run_dict": "run",
    "node_id": "node",
    "src_node_id": "node",
    "dst_node_id": "node",
    "task_id": "task",
    "primary_task_id": "task",
    "src_task_id": "task",
    "dst_task_id": "task",
    "series_id": "series",
    "automation_id": "automation",
    "session_id": "session",
    "token": "token",
    "oauth_session_id": "oauth",
}
_TEXT_FIELDS = {"reason", "note", "description", "authorization_url", "icon_key", "display_name"}
_TIME_FIELDS = re.compile(r"(_at|^now|^timestamp|^latest_timestamp|^online_until)$")
_TRAFFIC_FIELDS = {"bytes_sent", "bytes_recv"}
_HEX64 = re.compile(r"[0-9a-f]{64}")
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")
_SMALL = 1 << 32  # ids below are written by the tests themselves


class Names:
    """One name per value, given when the value is first seen."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Any], str] = {}
        self.step = ""

    def give(self, category: str, value: Any, name: str) -> None:
        self._known[category, value] = name

    def known(self, category: str, value: Any) -> str:
        """The name of a value, or nothing if it has none yet."""
        return self._known.get((category, value), "")

    def of(self, category: str, value: Any) -> str:
        if (category, value) not in self._known:
            name, count = f"{category}@{self.step}", 2
            taken = set(self._known.values())
            while name in taken:
                name, count = f"{category}@{self.step}#{count}", count + 1
            self._known[category, value] = name
        return self._known[category, value]


def plain(message: Message, names: Names) -> dict[str, Any]:
    """A protobuf message as JSON-able data with names for what may differ."""
    found: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            found[descriptor.name] = _plain_map(descriptor, value, names)
        elif descriptor.is_repeated:
            items = [_plain_value(descriptor, item, names) for item in value]
            order = {"nodes": "node_id", "nodes_info": "node_id", "runs": "run_id"}
            if descriptor.name in order:
                items.sort(key=lambda item: str(item.get(order[descriptor.name])))
            found[descriptor.name] = items
        else:
            found[descriptor.name] = _plain_value(descriptor, value, names)
    return found


def _plain_map(descriptor: FieldDescriptor, value: Any, names: Names) -> dict[str, Any]:
    item = descriptor.message_type.fields_by_name["value"]
    labels = {}
    for key in value:
        category = _ID_FIELDS.get(descriptor.name)
        if category and isinstance(key, int) and key >= _SMALL:
            label = names.of(category, key)
        elif isinstance(key, str) and _HEX64.fullmatch(key):
            label = names.of("object", key)
        else:
            label = str(key)
        labels[label] = key
    # A map has no order; names are given in the order of the labels.
    return {label: _plain_value(item, value[labels[label]], names) for label in sorted(labels)}


def _plain_value(descriptor: FieldDescriptor, value: Any, names: Names) -> Any:
    name = descriptor.name
    if isinstance(value, Message):
        return plain(value, names)
    if isinstance(value, bytes):
        return _plain_bytes(value, names)
    if isinstance(value, bool):
        return value
    if name in _TRAFFIC_FIELDS:
        return ">0" if value > 0 else value
    if name in _TEXT_FIELDS:
        return "<text>" if value else value
    if _TIME_FIELDS.search(name):
        return _plain_time(value, names)
    if name == "ttl" and not float(value).is_integer():
        return "<remaining>"
    if name in _ID_FIELDS:
        if isinstance(value, str) and value:
            return names.of(_ID_FIELDS[name], value)
        if isinstance(value, int) and value >= _SMALL:
            return names.of(_ID_FIELDS[name], value)
    if isinstance(value, str) and _HEX64.fullmatch(value):
        return names.of("object", value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _plain_time(value: Any, names: Names) -> Any:
    if isinstance(value, str):
        return "<time>" if _ISO.fullmatch(value) else value
    if names.known("time", value):
        return names.known("time", value)
    return "<time>" if value > 1e9 else value


def _plain_bytes(value: bytes, names: Names) -> Any:
    if names.known("bytes", value):
        return names.known("bytes", value)
    head, _, body = value.partition(b"\0")
    if head.startswith(b"Message "):  # an error reply that the server made
        inner = message_pb2.Message()
        try:
            inner.ParseFromString(body)
        except DecodeError:
            return "<broken Message object>"
        digest = names.of("object", hashlib.sha256(value).hexdigest())
        fits = int(head.split()[-1]) == len(body)
        return {"object": digest, "length fits": fits, "is": plain(inner, names)}
    return f"<{len(value)} bytes>" if value else ""


# ---------------------------------------------------------------------------------------------
# One conversation with one server


@dataclass
class Answer:
    """What came back: the HTTP status, the error code if any, the decoded message if any."""

    status: int
    code: int | None
    message: Any
    headers: httpx.Headers
    content: bytes
    kept: dict[str, Any] = field(default_factory=dict)


class Talk:
    """Sends requests to one server and keeps the answers by step."""

    def __init__(self, base_url: str, verify: Any = False, label: str = ""):
        self.label = label
        self.base_url = base_url
        self._verify = verify
        self.names = Names()
        self.steps: dict[str, dict[str, Any]] = {}
        self.started = round(time.time() - 1.0, 3)
        self.know_time(self.started, "start")
        self._http = httpx.Client(
            base_url=base_url, verify=verify, trust_env=False, timeout=30.0, follow_redirects=False
        )

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def fresh_client(self) -> httpx.Client:
        """A second connection, for a request that stays open."""
        return httpx.Client(base_url=self.base_url, verify=self._verify, trust_env=False)

    # Names that a scenario hands out itself.
    def know_time(self, value: float, name: str) -> float:
        """Name an instant; one that has a name already becomes the next free millisecond."""
        while self.names.known("time", value):
            value = round(value + 0.001, 3)
        self.names.give("time", value, name)
        return value

    def know_bytes(self, value: bytes, name: str) -> bytes:
        self.names.give("bytes", value, name)
        return value

    def know_parcel(self, parcel: wire.Parcel, name: str) -> wire.Parcel:
        """Name a message and the objects it consists of."""
        for number, (object_id, content) in enumerate(parcel.objects().items()):
            label = name if object_id == parcel.id else f"{name}.{number}"
            if not self.names.known("object", object_id):
                self.names.give("object", object_id, label)
                self.names.give("bytes", content, f"<{label}>")
        return parcel

    def call(
        self,
        step: str,
        path: str,
        message: Message | None = None,
        *,
        key: wire.NodeKey | None = None,
        token: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        method: str = "POST",
        content_type: str | None = wire.PROTOBUF,
        body: bytes | None = None,
        keep: bool = True,
    ) -> Answer:
        """One request. `key` signs it as a node, `token` claims it for a task."""
        if body is None:
            body = message.SerializeToString(deterministic=True) if message is not None else b""
        sent = [("user-agent", "umbel-conformance"), ("prefer", "wait=0")]
        if content_type is not None and method not in {"GET", "HEAD"}:
            sent.append(("content-type", content_type))
        if path in wire.ROUTES:
            sent.append(("accept", wire.STREAM if path in wire.STREAMS else wire.PROTOBUF))
        if key is not None:
            sent += key.headers()
        if token is not None:
            sent.append(("flwr-task-token", token))
        sent += headers
        response = self._http.request(method, path, content=body or None, headers=sent)
        answer = self._read(path, response, step)
        if keep:
            if step in self.steps:
                raise AssertionError(f"step {step!r} of {self.label} used twice")
            self.steps[step] = answer.kept
        return answer

    def until(
        self, step: str, ready: Callable[[Answer], bool], *args: Any, **kwargs: Any
    ) -> Answer:
        """Repeat a request until its answer is `ready`; only that answer is kept."""
        deadline = time.monotonic() + kwargs.pop("seconds", 20.0)
        pause = kwargs.pop("pause", 0.05)
        while True:
            answer = self.call(step, *args, keep=False, **kwargs)
            if ready(answer) or time.monotonic() > deadline:
                self.steps[step] = answer.kept
                return answer
            time.sleep(pause)

    def _read(self, path: str, response: httpx.Response, step: str) -> Answer:
        self.names.step = step
        kept: dict[str, Any] = {"status": response.status_code}
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        code, message = None, None
        if "www-authenticate" in response.headers:
            kept["www-authenticate"] = response.headers["www-authenticate"]
        if "location" in response.headers:
            kept["location"] = response.headers["location"].replace(self.base_url, "")
        if kind == "application/json" and response.status_code >= 400 and response.content:
            error = response.json()
            code = error.get("code")
            if code is None:
                kept["error"] = error  # the framework's own short phrases
            else:
                kept["code"] = code
                if error.get("extra"):
                    kept["extra"] = "<text>"
                if set(error) - {"code", "detail", "extra"} or not error.get("detail"):
                    kept["keys"] = sorted(error)
        elif response.status_code == 200 and path in wire.ROUTES:
            kept["type"] = kind
            reply = wire.ROUTES[path][1]
            if path in wire.STREAMS:
                message = frames(response.content, reply)
                kept["stream"] = self._stream(message)
            else:
                message = reply()
                message.ParseFromString(response.content)
                self._order(message)
                kept["answer"] = plain(message, self.names)
        else:
            kept["type"] = kind
            kept["body"] = "empty" if not response.content else "something"
        return Answer(response.status_code, code, message, response.headers, response.content, kept)

    def _order(self, message: Message) -> None:
        """Several pulled messages come in no order; ours is by what they answer."""
        if not isinstance(message, runtime_pb2.PullAppMessagesResponse):
            return
        trees = {tree.object_id: tree for tree in message.message_object_trees}
        items = sorted(
            message.messages_list,
            key=lambda item: self.names.known("object", item.metadata.reply_to_message_id),
        )
        trees = [trees[item.metadata.message_id] for item in items]
        del message.messages_list[:], message.message_object_trees[:]
        message.messages_list.extend(items)
        message.message_object_trees.extend(trees)

    def _stream(self, messages: list[Message]) -> dict[str, Any]:
        """Frames may be cut differently; what they say may not."""
        if messages and not hasattr(messages[0], "log_output"):
            return {"events": [plain(message, self.names) for message in messages]}
        stamps = [message.latest_timestamp for message in messages]
        return {
            "log": "".join(message.log_output for message in messages),
            "rising": stamps == sorted(stamps),
        }


def frames(content: bytes, kind: type) -> list[Message]:
    """Split a stream into its messages: four bytes of length, then the message."""
    found, place = [], 0
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        if place + 4 + size > len(content):
            raise ValueError(f"stream ends inside a frame at byte {place}")
        message = kind()
        message.ParseFromString(content[place + 4 : place + 4 + size])
        found.append(message)
        place += 4 + size
    return found


# ---------------------------------------------------------------------------------------------
# Scenarios


@dataclass(frozen=True)
class Scenario:
    """A named conversation and the flags its server needs."""

    name: str
    run: Callable[[Talk], None]
    tls: bool = False
    node_auth: bool = False
    secret: bytes | None = None
    slow: bool = False


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, **flags: Any) -> Callable[[Callable[[Talk], None]], Callable[[Talk], None]]:
    def keep(run: Callable[[Talk], None]) -> Callable[[Talk], None]:
        if name in SCENARIOS:
            raise AssertionError(f"scenario {name} defined twice")
        SCENARIOS[name] = Scenario(name, run, **flags)
        return run

    return keep
