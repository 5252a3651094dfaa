"""Moves that many scenarios share. Each records its own steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flwr.proto import control_pb2, fleet_pb2, message_pb2, runtime_pb2

from . import wire
from .oracle import Answer, Talk

FLEET, RUNTIME, CONTROL = "/v1/fleet/", "/v1/runtime/", "/v1/control/"
SERVERAPP = "flwr-serverapp"
UNKNOWN_RUN = 4242
UNKNOWN_HASH = "ab" * 32


@dataclass
class Node:
    """A SuperNode as the server knows it."""

    key: wire.NodeKey
    id: int


def fill(kind: type, **values: Any):
    """A request with those of `values` that it has fields for."""
    message = kind()
    for name, value in values.items():
        if name in message.DESCRIPTOR.fields_by_name:
            if name == "node":
                message.node.node_id = value
            else:
                setattr(message, name, value)
    return message


def fleet_request(path: str, node: Node, run_id: int = UNKNOWN_RUN):
    """A plain request of any Fleet route, as this node would send it."""
    return fill(
        wire.ROUTES[path][0],
        public_key=node.key.pem,
        node=node.id,
        node_id=node.id,
        run_id=run_id,
        heartbeat_interval=30.0,
    )


def register(t: Talk, name: str, key: wire.NodeKey | None = None) -> Node:
    key = key or wire.NodeKey()
    t.know_bytes(key.pem, f"key-{name}")
    answer = t.call(
        f"{name}.register",
        FLEET + "register-node",
        fill(wire.ROUTES[FLEET + "register-node"][0], public_key=key.pem),
        key=key,
    )
    node = Node(key, answer.message.node_id)
    t.names.give("node", node.id, name)
    return node


def activate(t: Talk, step: str, node: Node, interval: float = 30.0, key=None) -> Answer:
    request = fleet_pb2.ActivateNodeRequest(public_key=node.key.pem, heartbeat_interval=interval)
    return t.call(step, FLEET + "activate-node", request, key=key or node.key)


def new_node(t: Talk, name: str) -> Node:
    node = register(t, name)
    activate(t, f"{name}.activate", node)
    return node


def by_node(t: Talk, step: str, node: Node, route: str, run_id: int = UNKNOWN_RUN, **values):
    """A Fleet call of `node`; `values` override fields of the request."""
    path = FLEET + route
    request = fleet_request(path, node, run_id)
    for name, value in values.items():
        if name == "node":
            request.node.node_id = value
        else:
            setattr(request, name, value)
    return t.call(step, path, request, key=node.key)


def start_run(t: Talk, step: str, content: bytes | None = None, **values: Any) -> Answer:
    content = wire.bundle() if content is None else content
    request = control_pb2.StartRunRequest(fab=wire.fab(content), **values)
    answer = t.call(step, CONTROL + "start-run", request)
    t.names.give("object", request.fab.hash_str, "fab")
    t.names.give("bytes", content, "<fab>")
    return answer


def acquire(t: Talk, step: str, *types: str) -> Answer:
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=types or [SERVERAPP])
    return t.call(step, RUNTIME + "acquire-task", request)


def pull_input(t: Talk, step: str, token: str) -> Answer:
    return t.call(step, RUNTIME + "pull-task-input", token=token)


def output(t: Talk, step: str, token: str, sub_status: str, details: str = "", **more) -> Answer:
    request = runtime_pb2.PushTaskOutputRequest(sub_status=sub_status, details=details, **more)
    return t.call(step, RUNTIME + "push-task-output", request, token=token)


def running(t: Talk, name: str = "run", **values: Any) -> tuple[int, str]:
    """A run in state running; returns its id and the token of its ServerApp."""
    run_id = start_run(t, f"{name}.start", **values).message.run_id
    token = acquire(t, f"{name}.acquire").message.token
    pull_input(t, f"{name}.input", token)
    return run_id, token


def list_run(t: Talk, step: str, run_id: int) -> Answer:
    return t.call(step, CONTROL + "list-runs", control_pb2.ListRunsRequest(run_id=run_id))


def stop_run(t: Talk, step: str, run_id: int) -> Answer:
    return t.call(step, CONTROL + "stop-run", control_pb2.StopRunRequest(run_id=run_id))


def push(t: Talk, step: str, token: str, *parcels: wire.Parcel) -> Answer:
    """Runtime push-messages."""
    request = runtime_pb2.PushAppMessagesRequest(
        messages_list=[parcel.message for parcel in parcels],
        message_object_trees=[parcel.tree for parcel in parcels],
    )
    return t.call(step, RUNTIME + "push-messages", request, token=token)


def pull(t: Talk, step: str, token: str, *ids: str) -> Answer:
    """Runtime pull-messages."""
    request = runtime_pb2.PullAppMessagesRequest(message_ids=ids)
    return t.call(step, RUNTIME + "pull-messages", request, token=token)


def node_push(t: Talk, step: str, node: Node, *parcels: wire.Parcel, **values: Any) -> Answer:
    """Fleet push-messages."""
    request = fleet_pb2.PushMessagesRequest(
        node=wire.node(node.id),
        messages_list=[parcel.message for parcel in parcels],
        message_object_trees=[parcel.tree for parcel in parcels],
        **values,
    )
    return t.call(step, FLEET + "push-messages", request, key=node.key)


def push_object(
    t: Talk,
    step: str,
    who: str | Node,
    run_id: int,
    object_id: str,
    content: bytes,
    session_id: str = "",
    node_id: int | None = None,
    keep: bool = True,
) -> Answer:
    """push-object of a task (`who` is its token) or of a node."""
    app = isinstance(who, str)
    own_id = wire.SUPERLINK if app else who.id
    request = message_pb2.PushObjectRequest(
        node=wire.node(own_id if node_id is None else node_id),
        run_id=run_id,
        object_id=object_id,
        object_content=content,
        session_id=session_id,
    )
    path = (RUNTIME if app else FLEET) + "push-object"
    auth = {"token": who} if app else {"key": who.key}
    return t.call(step, path, request, keep=keep, **auth)


def pull_object(t: Talk, step: str, who: str | Node, run_id: int, object_id: str, node_id=None):
    app = isinstance(who, str)
    own_id = wire.SUPERLINK if app else who.id
    request = message_pb2.PullObjectRequest(
        node=wire.node(own_id if node_id is None else node_id), run_id=run_id, object_id=object_id
    )
    auth = {"token": who} if app else {"key": who.key}
    return t.call(step, (RUNTIME if app else FLEET) + "pull-object", request, **auth)


def confirm(t: Talk, step: str, who: str | Node, run_id: int, object_id: str) -> Answer:
    app = isinstance(who, str)
    request = message_pb2.ConfirmMessageReceivedRequest(
        node=wire.node(wire.SUPERLINK if app else who.id),
        run_id=run_id,
        message_object_id=object_id,
    )
    auth = {"token": who} if app else {"key": who.key}
    return t.call(step, (RUNTIME if app else FLEET) + "confirm-message-received", request, **auth)


def push_wanted(
    t: Talk, step: str, who: str | Node, run_id: int, answer: Answer, *parcels: wire.Parcel
) -> None:
    """Push every object that `answer` asks for; records only whether all were stored."""
    objects: dict[str, bytes] = {}
    for parcel in parcels:
        objects.update(parcel.objects())
    stored = [
        push_object(
            t, step, who, run_id, wanted, objects[wanted], answer.message.session_id, keep=False
        ).message.stored
        for wanted in answer.message.objects_to_push
    ]
    t.steps[step] = {"all stored": all(stored), "any": bool(stored)}


def pull_tree(t: Talk, step: str, who: str | Node, run_id: int, parcel: wire.Parcel) -> None:
    """Pull every object of a message, children first."""
    for number, object_id in enumerate(parcel.objects()):
        pull_object(t, f"{step}.{number}", who, run_id, object_id)


def instruction(t: Talk, name: str, run_id: int, dst: int, **values: Any) -> wire.Parcel:
    """A message to a node; its group makes its id differ from that of the others."""
    values.setdefault("created_at", t.started)
    values.setdefault("group", name)
    return t.know_parcel(wire.parcel(run_id, wire.SUPERLINK, dst, **values), name)


def reply(t: Talk, name: str, to: wire.Parcel, **values: Any) -> wire.Parcel:
    if "created_at" not in values:
        values["created_at"] = t.know_time(round(time.time(), 3), f"time of {name}")
    return t.know_parcel(wire.reply_to(to, **values), name)


def deliver(t: Talk, name: str, token: str, run_id: int, node: Node, **values: Any) -> wire.Parcel:
    """Send an instruction and let the node take it, with all its objects, and confirm it."""
    parcel = instruction(t, name, run_id, node.id, **values)
    answer = push(t, f"{name}.push", token, parcel)
    push_wanted(t, f"{name}.objects", token, run_id, answer, parcel)
    by_node(t, f"{name}.pull", node, "pull-messages")
    pull_tree(t, f"{name}.object", node, run_id, parcel)
    confirm(t, f"{name}.confirm", node, run_id, parcel.id)
    return parcel


def answer(
    t: Talk, name: str, run_id: int, node: Node, to: wire.Parcel, **values: Any
) -> wire.Parcel:
    """Send a reply with all its objects."""
    parcel = reply(t, name, to, **values)
    got = node_push(t, f"{name}.push", node, parcel, clientapp_runtime_list=[0.25])
    push_wanted(t, f"{name}.objects", node, run_id, got, parcel)
    return parcel
