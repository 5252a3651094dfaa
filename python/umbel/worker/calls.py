"""One call of a ClientApp: from the frame that asks for it to the frame that answers."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from flwr.app import Context, Message, Metadata, RecordDict

from . import apps, linux, records
from .frames import FrameError, encode, field

App = Callable[[Message, Context], Any]

_METADATA_KEYS = frozenset(inspect.signature(Metadata).parameters)
_CONTEXT_KEYS = frozenset(inspect.signature(Context).parameters)


def answer(app: App, frame: Any, source: records.Input, target: int) -> dict[str, Any]:
    """Runs the app on what `frame` holds; the reply's arrays go to the file `target`.

    Whatever the app does short of ending the process becomes an answer. errors  FrameError.
    """
    message_frame = field(frame, "message", dict)
    context_frame = field(frame, "context", dict)
    begin = field(frame, "out_offset", int)
    output = records.Output(target, begin)
    result: dict[str, Any] = {}
    context = None
    runtime = 0.0
    try:
        _identify(message_frame, context_frame)
        context = _context(context_frame, source)
        message = _message(message_frame, records.decode(field(frame, "content", list), source))
        started = time.monotonic()
        try:
            reply = _run(app, message, context)
        finally:
            runtime = time.monotonic() - started
        del message  # its arrays, unless the app kept them
        result = _result(reply, output)
        encode(result)
    except FrameError:
        raise
    except BaseException as error:
        # SystemExit too: it would end the process without a word to the node.
        output.end = begin
        result = _error(error)
    result["state"] = _state(context, context_frame, source, output)
    result.update(runtime=runtime, out_end=output.end)
    return result


def _run(app: App, message: Message, context: Context) -> Any:
    pid = os.getpid()
    try:
        return app(message, context)
    finally:
        if os.getpid() != pid:
            # The app forked, and this is its child coming back: one answer to a call is enough.
            linux.flush()
            os._exit(0)


def _message(frame: Any, content: RecordDict) -> Message:
    values = {
        "run_id": field(frame, "run_id", int, "message"),
        "message_id": field(frame, "message_id", str, "message"),
        "src_node_id": field(frame, "src", int, "message"),
        "dst_node_id": field(frame, "dst", int, "message"),
        "reply_to_message_id": field(frame, "reply_to", str, "message"),
        "group_id": field(frame, "group_id", str, "message"),
        "created_at": float(field(frame, "created_at", (int, float), "message")),
        "ttl": float(field(frame, "ttl", (int, float), "message")),
        "message_type": field(frame, "type", str, "message"),
        "src_task_id": field(frame, "src_task_id", (int, type(None)), "message"),
        "dst_task_id": field(frame, "dst_task_id", (int, type(None)), "message"),
    }
    metadata = Metadata(**{key: values[key] for key in values if key in _METADATA_KEYS})
    return Message(content=content, metadata=metadata)


def _context(frame: Any, source: records.Input) -> Context:
    values = {
        "run_id": field(frame, "run_id", int, "context"),
        "node_id": field(frame, "node_id", int, "context"),
        "node_config": field(frame, "node_config", dict, "context"),
        "run_config": field(frame, "run_config", dict, "context"),
        "series_id": field(frame, "series_id", int, "context"),
        "state": records.decode(field(frame, "state", list, "context"), source),
    }
    return Context(**{key: values[key] for key in values if key in _CONTEXT_KEYS})


def _identify(message: Any, context: Any) -> None:
    """Newer versions ask who makes a message that is no reply."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return
    TaskIdentity.run_id = field(context, "run_id", int, "context")
    TaskIdentity.node_id = field(context, "node_id", int, "context")
    TaskIdentity.task_id = field(message, "dst_task_id", (int, type(None)), "message") or 0


def _result(reply: Any, output: records.Output) -> dict[str, Any]:
    if reply is None:
        return {"op": "nothing"}
    if not isinstance(reply, Message):
        raise TypeError(f"a ClientApp returns a Message, not {type(reply)}")
    if reply.has_error():
        error = reply.error
        return {
            "op": "error",
            "code": _plain(error.code, int, "error code"),
            "reason": apps.utf8(str(error.reason or "")),
        }
    if not reply.has_content():
        raise ValueError("the Message returned has neither content nor an error")
    metadata = reply.metadata
    head = {
        "type": _plain(metadata.message_type, str, "message_type"),
        "group_id": _plain(metadata.group_id, str, "group_id"),
        "ttl": float(_plain(metadata.ttl, (int, float), "ttl")),
        "created_at": float(_plain(metadata.created_at, (int, float), "created_at")),
        "reply_to": _plain(metadata.reply_to_message_id, str, "reply_to_message_id"),
        "src": _plain(metadata.src_node_id, int, "src_node_id"),
        "dst": _plain(metadata.dst_node_id, int, "dst_node_id"),
    }
    return {"op": "reply", "head": head, "content": records.encode(reply.content, output)}


def _plain(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} of the Message returned is {type(value)}")
    return value


def _error(error: BaseException) -> dict[str, Any]:
    code, reason = apps.failure(error)
    _say("ClientApp raised an exception", error)
    return {"op": "error", "code": code, "reason": reason}


def _state(
    context: Context | None, frame: Any, source: records.Input, output: records.Output
) -> list[Any]:
    """What the app left, kept after an error as well. If that is nonsense: what it was given."""
    begin = output.end
    if context is not None:
        try:
            state = records.encode(context.state, output)
            encode(state)
            return state
        except Exception as error:
            _say("what the app left of its context's state is lost", error)
            output.end = begin
    return records.encode(records.decode(field(frame, "state", list, "context"), source), output)


def _say(what: str, error: BaseException) -> None:
    with contextlib.suppress(Exception):  # the app may have put anything in its place
        sys.stderr.write(f"{what}\n{apps.trace_of(error)}")
