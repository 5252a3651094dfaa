"""What a ServerApp may ask: its task, messages, objects, nodes."""

from __future__ import annotations

import time

from flwr.proto import message_pb2, runtime_pb2

from . import wire
from .oracle import Talk, scenario
from .steps import (
    CONTROL,
    FLEET,
    RUNTIME,
    SERVERAPP,
    UNKNOWN_HASH,
    UNKNOWN_RUN,
    acquire,
    answer,
    by_node,
    confirm,
    deliver,
    instruction,
    list_run,
    new_node,
    node_push,
    output,
    pull,
    pull_input,
    pull_object,
    push,
    push_object,
    push_wanted,
    register,
    reply,
    running,
    start_run,
    stop_run,
)


@scenario("task-life")
def task_life(t: Talk) -> None:
    acquire(t, "nothing-to-do")
    first = start_run(t, "first").message.run_id
    second = start_run(t, "second").message.run_id
    acquire(t, "acquire/no-types", *[""])
    acquire(t, "acquire/other-type", "flwr-simulation")
    acquire(t, "acquire/unknown-type", "nonsense")
    request = runtime_pb2.AcquireTaskRequest(agentapp_fab_hashes=[UNKNOWN_HASH])
    t.call("acquire/other-hash", RUNTIME + "acquire-task", request)
    token = acquire(
        t, "acquire/all-types", SERVERAPP, "flwr-clientapp", "flwr-simulation", "flwr-agentapp",
        "flwr-model", "flwr-connector",
    ).message.token  # fmt: skip
    t.steps["token-form"] = {
        "length": len(token),
        "hex": all(letter in "0123456789abcdef" for letter in token),
    }
    list_run(t, "starting/list", first)
    beat = RUNTIME + "send-task-heartbeat"
    t.call("starting/heartbeat", beat, token=token)
    t.call("starting/get-nodes", RUNTIME + "get-nodes", token=token)
    pull(t, "starting/pull-messages", token, UNKNOWN_HASH)
    push(t, "starting/push-messages", token, instruction(t, "early", first, 4242))
    output(t, "starting/output-completed", token, "completed", "too soon")
    list_run(t, "starting/list-after-output", first)
    t.call("starting/heartbeat-after-output", beat, token=token)
    pull_input(t, "input", token)
    pull_input(t, "input-again", token)
    list_run(t, "running/list", first)
    t.call("running/heartbeat", beat, token=token)
    output(t, "output/odd", token, "nonsense", "odd")
    list_run(t, "output/odd/list", first)
    output(t, "output", token, "completed", "all good")
    list_run(t, "finished/list", first)
    for label, path in {
        "heartbeat": "send-task-heartbeat",
        "input": "pull-task-input",
        "output": "push-task-output",
        "nodes": "get-nodes",
        "logs": "push-logs",
    }.items():
        t.call(f"finished/{label}", RUNTIME + path, token=token)
    # The second run fails before it ever ran.
    token = acquire(t, "second/acquire").message.token
    acquire(t, "second/acquire-again")
    output(t, "second/output-failed", token, "failed", "no luck")
    list_run(t, "second/list", second)
    t.call("second/heartbeat", beat, token=token)
    # The third says nothing about how it ended; the fourth was stopped by itself.
    third = start_run(t, "third").message.run_id
    token = acquire(t, "third/acquire").message.token
    pull_input(t, "third/input", token)
    output(t, "third/output-empty", token, "")
    list_run(t, "third/list", third)
    fourth = start_run(t, "fourth").message.run_id
    token = acquire(t, "fourth/acquire").message.token
    pull_input(t, "fourth/input", token)
    output(t, "fourth/output-stopped", token, "stopped", "by itself")
    list_run(t, "fourth/list", fourth)
    fifth = start_run(t, "fifth").message.run_id
    token = acquire(t, "fifth/acquire").message.token
    pull_input(t, "fifth/input", token)
    output(t, "fifth/output", token, "failed", "x" * 5000, clientapp_runtime=1.25)
    list_run(t, "fifth/list", fifth)


@scenario("get-nodes")
def get_nodes(t: Talk) -> None:
    run_id, token = running(t)
    path = RUNTIME + "get-nodes"
    t.call("none", path, token=token)
    a, b = new_node(t, "a"), new_node(t, "b")
    register(t, "registered-only")
    t.call("two", path, token=token)
    by_node(t, "b/deactivate", b, "deactivate-node")
    t.call("one", path, token=token)
    by_node(t, "b/heartbeat", b, "send-node-heartbeat")
    t.call("two-again", path, token=token)
    by_node(t, "a/unregister", a, "unregister-node")
    t.call("b-only", path, token=token)


@scenario("push-instructions")
def push_instructions(t: Talk) -> None:
    """Instructions that are wrong in one way each, and addressees of every kind."""
    a = new_node(t, "a")
    run_id, token = running(t)
    other_run, _ = running(t, "other")
    path = RUNTIME + "push-messages"
    t.call("nothing", path, token=token)
    good = instruction(t, "good", run_id, a.id)
    request = runtime_pb2.PushAppMessagesRequest(messages_list=[good.message])
    t.call("no-tree", path, request, token=token)
    request = runtime_pb2.PushAppMessagesRequest(message_object_trees=[good.tree])
    t.call("no-message", path, request, token=token)
    request = runtime_pb2.PushAppMessagesRequest(
        messages_list=[good.message], message_object_trees=[good.tree, good.tree]
    )
    t.call("two-trees", path, request, token=token)
    push(t, "good/push-after-refusals", token, good)
    by_node(t, "good/pull-before-objects", a, "pull-messages")

    now = t.started
    for label, change in {
        "created-zero": {"created_at": 0.0},
        "created-early": {"created_at": 1_740_700_799.0, "ttl": 1e9},
        "created-first-allowed": {"created_at": 1_740_700_800.0, "ttl": 1e9},
        "created-ahead": {"created_at": now + 86400.0},
        "created-nan": {"created_at": float("nan")},
        "ttl-zero": {"ttl": 0.0},
        "ttl-negative": {"ttl": -5.0},
        "ttl-nan": {"ttl": float("nan")},
        "ttl-infinite": {"ttl": float("inf")},
        "expired": {"created_at": now - 100.0, "ttl": 99.0},
        "src-zero": {"src": 0},
        "src-node": {"src": a.id},
        "dst-zero": {"dst": 0},
        "no-type": {"kind": ""},
        "type-word": {"kind": "nonsense"},
        "type-action": {"kind": "train.do_it"},
        "type-query": {"kind": "query"},
        "type-system": {"kind": "system"},
        "type-legacy": {"kind": "get_parameters"},
        "type-bad-action": {"kind": "train.1 x"},
        "type-two-dots": {"kind": "train.a.b"},
        "reply-to": {"reply_to": UNKNOWN_HASH},
        "other-run": {"run_id": other_run},
        "unknown-run": {"run_id": UNKNOWN_RUN},
        "run-zero": {"run_id": 0},
        "error": {"error": (2, "an error as instruction")},
        "long-group": {"group": "g" * 5000},
    }.items():
        values = {"src": 1, "dst": a.id, "run_id": run_id, "group": label, "created_at": now}
        values |= change
        parcel = wire.parcel(values.pop("run_id"), values.pop("src"), values.pop("dst"), **values)
        push(t, f"bad/{label}", token, t.know_parcel(parcel, label))

    def changed(label: str, change) -> None:
        parcel = instruction(t, label, run_id, a.id)
        change(parcel.message)
        push(t, f"bad/{label}", token, parcel)

    changed("no-content", lambda message: message.ClearField("content"))
    changed("content-and-error", lambda message: message.error.SetInParent())
    changed("no-metadata", lambda message: message.ClearField("metadata"))
    changed("no-id", lambda message: message.metadata.ClearField("message_id"))
    changed("odd-id", lambda message: setattr(message.metadata, "message_id", "not a hash"))
    changed("other-id", lambda message: setattr(message.metadata, "message_id", UNKNOWN_HASH))
    changed("task-ids", lambda message: setattr(message.metadata, "src_task_id", 5))

    def with_content(message) -> None:
        item = message.content.items.add(key="inline")
        item.metric_record.items.add(key="x").value.double = 1.0

    changed("inline-content", with_content)

    # Object trees.
    def treed(label: str, tree: message_pb2.ObjectTree) -> None:
        parcel = instruction(t, label, run_id, a.id)
        if tree.object_id == "":
            tree.object_id = parcel.id
        request = runtime_pb2.PushAppMessagesRequest(
            messages_list=[parcel.message], message_object_trees=[tree]
        )
        t.call(f"tree/{label}", path, request, token=token)

    empty = "a5fc9cb09319dc373f7a8f11a799fd0d90c359120fd6241c230de34a4f93be3e"
    treed("other-root", message_pb2.ObjectTree(object_id=UNKNOWN_HASH))
    treed("root-only", message_pb2.ObjectTree())
    leaf = message_pb2.ObjectTree(object_id=empty)
    treed("repeated-child", message_pb2.ObjectTree(children=[leaf, leaf]))
    treed("odd-child", message_pb2.ObjectTree(children=[message_pb2.ObjectTree(object_id="odd")]))
    treed("empty-child", message_pb2.ObjectTree(children=[message_pb2.ObjectTree()]))
    upper = message_pb2.ObjectTree(object_id=empty.upper())
    treed("upper-case-child", message_pb2.ObjectTree(children=[upper]))
    deep = message_pb2.ObjectTree(object_id=empty)
    for level in range(60):
        deep = message_pb2.ObjectTree(object_id=f"{level:064x}", children=[deep])
    treed("deep", message_pb2.ObjectTree(children=[deep]))

    # One bad message among good ones.
    one, two = instruction(t, "mixed-1", run_id, a.id), instruction(t, "mixed-2", run_id, a.id)
    two.message.metadata.ttl = -1.0
    push(t, "mixed/push", token, one, two)

    # Addressees.
    offline = new_node(t, "offline")
    by_node(t, "offline/deactivate", offline, "deactivate-node")
    gone = new_node(t, "gone")
    by_node(t, "gone/unregister", gone, "unregister-node")
    quiet = register(t, "quiet")
    wanted = {
        "unknown": 2**63 + 5, "offline": offline.id, "gone": gone.id, "registered": quiet.id,
    }  # fmt: skip
    for label, node_id in wanted.items():
        push(t, f"to/{label}", token, instruction(t, f"to-{label}", run_id, node_id))
    push(
        t, "to/several", token,
        instruction(t, "several-1", run_id, a.id),
        instruction(t, "several-2", run_id, 2**63 + 5),
        instruction(t, "several-3", run_id, a.id),
    )  # fmt: skip
    again = instruction(t, "again", run_id, a.id)
    push(t, "again/first", token, again)
    push(t, "again/second", token, again)
    push(t, "again/twice-in-one", token, again, again)
    list_run(t, "list", run_id)


@scenario("message-to-superlink")
def to_superlink(t: Talk) -> None:
    run_id, token = running(t)
    own = instruction(t, "own", run_id, 1)
    got = push(t, "push", token, own)
    if got.status == 200:
        push_wanted(t, "objects", token, run_id, got, own)
    first = pull(t, "pull", token, own.id)
    pull(t, "pull-again", token, own.id)
    for number, item in enumerate(first.message.messages_list if first.message else []):
        pull_object(t, f"object-{number}", token, run_id, item.metadata.message_id)
    second = instruction(t, "second", run_id, 1)
    push(t, "second/push", token, second)
    pull(t, "second/pull-others", token)
    pull(t, "second/pull", token, second.id)


@scenario("pull-replies")
def pull_replies(t: Talk) -> None:
    """What pull-messages says about questions that have no answer."""
    a = new_node(t, "a")
    run_id, token = running(t)
    other_run, other_token = running(t, "other")
    pull(t, "none", token)
    made = pull(t, "empty-id", token, "")
    for item in made.message.messages_list if made.message else []:
        pull_object(t, "empty-id/object", token, run_id, item.metadata.message_id)
        confirm(t, "empty-id/confirm", token, run_id, item.metadata.message_id)
        pull_object(t, "empty-id/object-after", token, run_id, item.metadata.message_id)
    made = pull(t, "unknown-id", token, UNKNOWN_HASH)
    for item in made.message.messages_list if made.message else []:
        pull_object(t, "unknown-id/object", token, run_id, item.metadata.message_id)
    pull(t, "odd-id", token, "not a hash")
    pull(t, "two-ids", token, "", UNKNOWN_HASH)
    pull(t, "same-id-twice", token, UNKNOWN_HASH, UNKNOWN_HASH)
    waiting = deliver(t, "waiting", token, run_id, a, group="g", kind="evaluate")
    pull(t, "waiting/pull", token, waiting.id)
    pull(t, "waiting/other-run", other_token, waiting.id)
    pull(t, "waiting/with-unknown", token, waiting.id, UNKNOWN_HASH)
    pull(t, "waiting/pull-again", token, waiting.id)
    # Its node goes offline, and comes back.
    by_node(t, "offline/deactivate", a, "deactivate-node")
    lost = pull(t, "offline/pull", token, waiting.id)
    for item in lost.message.messages_list if lost.message else []:
        pull_object(t, "offline/object", token, run_id, item.metadata.message_id)
    by_node(t, "offline/heartbeat", a, "send-node-heartbeat")
    pull(t, "offline/pull-again", token, waiting.id)
    late = reply(t, "late", waiting)
    node_push(t, "offline/late-reply", a, late)
    # Answered in full, then its node goes.
    done = deliver(t, "done", token, run_id, a)
    answer(t, "done-reply", run_id, a, done)
    by_node(t, "done/deactivate", a, "deactivate-node")
    pull(t, "done/pull", token, done.id)
    by_node(t, "done/heartbeat", a, "send-node-heartbeat")
    # Never taken, and its node unregisters.
    b = new_node(t, "b")
    never = instruction(t, "never", run_id, b.id)
    push(t, "never/push", token, never)
    by_node(t, "never/unregister", b, "unregister-node")
    pull(t, "never/pull", token, never.id)
    # Pushed to a node that is offline already.
    c = new_node(t, "c")
    by_node(t, "c/deactivate", c, "deactivate-node")
    away = instruction(t, "away", run_id, c.id)
    push(t, "away/push", token, away)
    pull(t, "away/pull", token, away.id)
    # Time runs out for the instruction; for the reply.
    short = t.know_time(round(time.time(), 3) - 10.0, "short")
    brief = instruction(t, "brief", run_id, a.id, created_at=short, ttl=11.5)
    push(t, "brief/push", token, brief)

    def over(got) -> bool:
        return got.message is not None and len(got.message.messages_list) > 0

    request = runtime_pb2.PullAppMessagesRequest(message_ids=[brief.id])
    t.until("brief/pull", over, RUNTIME + "pull-messages", request, token=token)
    by_node(t, "brief/node-pull", a, "pull-messages")
    asked = deliver(t, "asked", token, run_id, a)
    short = t.know_time(round(time.time(), 3) - 10.0, "short reply")
    answer(t, "short-reply", run_id, a, asked, created_at=short, ttl=11.0)
    while time.time() < short + 11.0:
        time.sleep(0.05)
    pull(t, "short-reply/pull", token, asked.id)
    pull(t, "short-reply/pull-again", token, asked.id)


@scenario("objects")
def objects(t: Talk) -> None:
    """push-object, pull-object and confirm, right and wrong, from both sides."""
    a, b = new_node(t, "a"), new_node(t, "b")
    run_id, token = running(t)
    other_run, other_token = running(t, "other")
    ask = instruction(t, "ask", run_id, a.id, records=wire.record_dict(1))
    session = push(t, "push", token, ask).message.session_id
    items = list(ask.objects().items())
    first_id, first = items[0]
    second_id, second = items[1]
    root_id, root = items[-1]
    stray = wire.Thing("ArrayChunk", b"stray")

    pull_object(t, "announced/pull", token, run_id, first_id)
    pull_object(t, "announced/node-pull", a, run_id, first_id)
    push_object(t, "unknown-object", token, run_id, stray.id, stray.content, session)
    push_object(t, "odd-object", token, run_id, "odd", b"x", session)
    push_object(t, "wrong-hash", token, run_id, first_id, second, session)
    push_object(t, "empty-content", token, run_id, first_id, b"", session)
    push_object(t, "no-header", token, run_id, first_id, b"no zero byte", session)
    for label, content in {
        "unknown-type": b"Sausage  1\0x",
        "length-lies": b"ArrayChunk  5\0abc",
        "length-words": b"ArrayChunk  many\0abc",
        "two-parts": b"ArrayChunk 3\0abc",
        "bad-children": b"Array xyz 1\0a",
        "negative": b"ArrayChunk  -3\0abc",
    }.items():
        # Announced under its true hash, so that only the form is wrong.
        import hashlib

        object_id = hashlib.sha256(content).hexdigest()
        parcel = instruction(t, f"form-{label}", run_id, a.id)
        tree = parcel.tree
        tree.children.add(object_id=object_id)
        request = runtime_pb2.PushAppMessagesRequest(
            messages_list=[parcel.message], message_object_trees=[tree]
        )
        got = t.call(f"form/{label}/push", RUNTIME + "push-messages", request, token=token)
        own = got.message.session_id if got.message else ""
        push_object(t, f"form/{label}", token, run_id, object_id, content, own)
    push_object(t, "wrong-session", token, run_id, first_id, first, "nonsense")
    push_object(t, "other-task", other_token, other_run, first_id, first, session)
    push_object(t, "other-task-no-session", other_token, other_run, first_id, first, "")
    push_object(t, "wrong-run-in-body", token, other_run, first_id, first, session)
    pull_object(t, "first/pull", token, run_id, first_id)
    push_object(t, "first/again", token, run_id, first_id, first, session)
    push_object(t, "legacy-no-session", token, run_id, second_id, second, "")
    push_object(t, "node-zero", token, run_id, root_id, root, session, node_id=0)
    push_object(t, "node-other", token, run_id, root_id, root, session, node_id=a.id)
    for number, (object_id, content) in enumerate(items[2:]):
        push_object(t, f"rest-{number}", token, run_id, object_id, content, session)
    push_object(t, "after-end", token, run_id, root_id, root, session)
    push_object(t, "after-end/no-session", token, run_id, root_id, root, "")
    push_object(t, "after-end/stray", token, run_id, stray.id, stray.content, session)

    pull_object(t, "pull/node-zero", token, run_id, root_id, node_id=0)
    pull_object(t, "pull/node-other", token, run_id, root_id, node_id=a.id)
    pull_object(t, "pull/unknown", token, run_id, UNKNOWN_HASH)
    pull_object(t, "pull/odd", token, run_id, "odd")
    pull_object(t, "pull/empty-id", token, run_id, "")
    pull_object(t, "pull/other-task", other_token, other_run, root_id)
    pull_object(t, "pull/wrong-run-in-body", token, other_run, root_id)
    pull_object(t, "pull/node-other-run", a, other_run, root_id)
    pull_object(t, "pull/node-b", b, run_id, root_id)
    push_object(t, "node/foreign-session", a, run_id, root_id, root, session)
    push_object(t, "node/stray", a, run_id, stray.id, stray.content, "")

    by_node(t, "take/pull", a, "pull-messages")
    for number, (object_id, _) in enumerate(items):
        pull_object(t, f"take/{number}", a, run_id, object_id)
    confirm(t, "confirm/child", a, run_id, first_id)
    pull_object(t, "confirm/child/pull", a, run_id, first_id)
    confirm(t, "confirm/unknown", a, run_id, UNKNOWN_HASH)
    confirm(t, "confirm/odd", a, run_id, "odd")
    confirm(t, "confirm/stranger", b, run_id, UNKNOWN_HASH)
    confirm(t, "confirm", a, run_id, root_id)
    confirm(t, "confirm/again", a, run_id, root_id)
    for number, (object_id, _) in enumerate(items):
        pull_object(t, f"confirmed/{number}", a, run_id, object_id)

    # The reply, its metadata first and its objects one by one.
    back = reply(t, "back", ask, records=wire.record_dict(2))
    got = node_push(t, "back/push", a, back)
    pull(t, "back/pull-before-objects", token, ask.id)
    push_wanted(t, "back/objects", a, run_id, got, back)
    push_object(
        t, "back/root-again", a, run_id, back.id, back.thing.content, got.message.session_id
    )
    pull(t, "back/pull", token, ask.id)
    for number, object_id in enumerate(back.objects()):
        pull_object(t, f"back/object-{number}", token, run_id, object_id)
    confirm(t, "back/confirm", token, run_id, back.id)
    for number, object_id in enumerate(back.objects()):
        pull_object(t, f"back/confirmed-{number}", token, run_id, object_id)
    pull(t, "back/pull-after-confirm", token, ask.id)


@scenario("shared-objects")
def shared_objects(t: Talk) -> None:
    """The same content to two nodes, and the same content back from both."""
    a, b = new_node(t, "a"), new_node(t, "b")
    run_id, token = running(t)
    content = wire.record_dict(1)
    to_a = instruction(t, "to-a", run_id, a.id, records=content)
    to_b = instruction(t, "to-b", run_id, b.id, records=content)
    got = push(t, "push", token, to_a, to_b)
    push_wanted(t, "objects", token, run_id, got, to_a, to_b)
    later = instruction(t, "later", run_id, a.id, records=content)
    got = push(t, "later/push", token, later)
    push_wanted(t, "later/objects", token, run_id, got, later)
    for name, node, parcel in (("a", a, to_a), ("b", b, to_b)):
        by_node(t, f"{name}/pull", node, "pull-messages")
        pull_object(t, f"{name}/object", node, run_id, next(iter(parcel.objects())))
        confirm(t, f"{name}/confirm", node, run_id, parcel.id)
        pull_object(t, f"{name}/object-after", node, run_id, next(iter(parcel.objects())))
    same = wire.record_dict(3)
    from_a = reply(t, "from-a", to_a, records=same)
    from_b = reply(t, "from-b", to_b, records=same)
    got = node_push(t, "from-a/push", a, from_a)
    push_wanted(t, "from-a/objects", a, run_id, got, from_a)
    got = node_push(t, "from-b/push", b, from_b)
    push_wanted(t, "from-b/objects", b, run_id, got, from_b)
    pull(t, "pull", token, to_a.id, to_b.id)
    for object_id in (from_a.id, from_b.id, next(iter(from_a.objects()))):
        pull_object(t, f"object-{t.names.of('object', object_id)}", token, run_id, object_id)
    confirm(t, "confirm-a", token, run_id, from_a.id)
    pull_object(t, "shared-after-one", token, run_id, next(iter(from_a.objects())))
    confirm(t, "confirm-b", token, run_id, from_b.id)
    pull_object(t, "shared-after-both", token, run_id, next(iter(from_a.objects())))
    # The same arrays come back as they were sent.
    echo = deliver(t, "echo", token, run_id, a, records=wire.record_dict(4))
    back = reply(t, "echo-back", echo, records=wire.record_dict(4))
    got = node_push(t, "echo-back/push", a, back)
    push_wanted(t, "echo-back/objects", a, run_id, got, back)
    pull(t, "echo-back/pull", token, echo.id)
    for number, object_id in enumerate(back.objects()):
        pull_object(t, f"echo-back/object-{number}", token, run_id, object_id)


@scenario("training")
def training(t: Talk) -> None:
    """Two nodes, two phases, from start-run to the end."""
    a, b = new_node(t, "a"), new_node(t, "b")
    run_id = start_run(t, "start").message.run_id
    token = acquire(t, "acquire").message.token
    t.call("heartbeat", RUNTIME + "send-task-heartbeat", token=token)
    pull_input(t, "input", token)
    t.call("get-nodes", RUNTIME + "get-nodes", token=token)
    for number, kind in enumerate(("train", "evaluate")):
        asks = {}
        for name, node in (("a", a), ("b", b)):
            asks[name] = instruction(
                t, f"{kind}-{name}", run_id, node.id, kind=kind, records=wire.record_dict(number)
            )
        got = push(t, f"{kind}/push", token, *asks.values())
        push_wanted(t, f"{kind}/objects", token, run_id, got, *asks.values())
        pull(t, f"{kind}/pull-nothing", token, asks["a"].id, asks["b"].id)
        for name, node in (("a", a), ("b", b)):
            by_node(t, f"{kind}/{name}/pull", node, "pull-messages")
            by_node(t, f"{kind}/{name}/get-run", node, "get-run", run_id)
            hash_str = wire.fab(wire.bundle()).hash_str
            by_node(t, f"{kind}/{name}/get-fab", node, "get-fab", run_id, hash_str=hash_str)
            for place, object_id in enumerate(asks[name].objects()):
                pull_object(t, f"{kind}/{name}/object-{place}", node, run_id, object_id)
            confirm(t, f"{kind}/{name}/confirm", node, run_id, asks[name].id)
            by_node(t, f"{kind}/{name}/pull-more", node, "pull-messages")
            by_node(t, f"{kind}/{name}/heartbeat", node, "send-node-heartbeat")
        backs = {}
        for name, node in (("a", a), ("b", b)):
            records = wire.record_dict(100 + 10 * number + ord(name))
            backs[name] = answer(
                t, f"{kind}-back-{name}", run_id, node, asks[name], records=records
            )
            pull(t, f"{kind}/pull-after-{name}", token, asks[name].id)
            for place, object_id in enumerate(backs[name].objects()):
                pull_object(t, f"{kind}/{name}/back-{place}", token, run_id, object_id)
            confirm(t, f"{kind}/{name}/back-confirm", token, run_id, backs[name].id)
        t.call(f"{kind}/get-nodes", RUNTIME + "get-nodes", token=token)
    context = message_pb2.Context(run_id=run_id, node_id=1)
    context.state.SetInParent()
    output(t, "output", token, "completed", context=context)
    list_run(t, "list", run_id)
    by_node(t, "a/pull-after-end", a, "pull-messages")
    by_node(t, "a/deactivate", a, "deactivate-node")
    by_node(t, "a/unregister", a, "unregister-node")
    by_node(t, "b/unregister", b, "unregister-node")
    t.call("list-nodes", CONTROL + "list-nodes")


@scenario("delivery")
def delivery(t: Talk) -> None:
    """Lost and repeated pulls, and messages announced before their objects."""
    a = new_node(t, "a")
    run_id, token = running(t)
    one = instruction(t, "one", run_id, a.id, records=wire.record_dict(1))
    got = push(t, "one/push", token, one)
    push_wanted(t, "one/objects", token, run_id, got, one)
    by_node(t, "one/pull", a, "pull-messages")
    by_node(t, "one/pull-untouched", a, "pull-messages")
    pull_object(t, "one/touch", a, run_id, one.id)
    by_node(t, "one/pull-touched", a, "pull-messages")
    confirm(t, "one/confirm", a, run_id, one.id)
    by_node(t, "one/pull-confirmed", a, "pull-messages")
    pull_object(t, "one/object-confirmed", a, run_id, next(iter(one.objects())))
    answer(t, "one-back", run_id, a, one)
    pull(t, "one-back/pull", token, one.id)
    pull(t, "one-back/pull-again", token, one.id)
    # Several wait; they come in the order they were pushed.
    for number in (1, 2, 3):
        parcel = instruction(t, f"queue-{number}", run_id, a.id, created_at=t.started - number)
        got = push(t, f"queue/{number}/push", token, parcel)
        push_wanted(t, f"queue/{number}/objects", token, run_id, got, parcel)
    for number in (1, 2, 3):
        taken = by_node(t, f"queue/{number}/pull", a, "pull-messages")
        for item in taken.message.messages_list:
            confirm(t, f"queue/{number}/confirm", a, run_id, item.metadata.message_id)
    by_node(t, "queue/pull-empty", a, "pull-messages")


@scenario("announced-first")
def announced_first(t: Talk) -> None:
    """Messages whose objects have not arrived yet."""
    a = new_node(t, "a")
    run_id, token = running(t)
    ask = instruction(t, "ask", run_id, a.id, records=wire.record_dict(1))
    got = push(t, "push", token, ask)
    by_node(t, "pull-before-objects", a, "pull-messages")
    push_wanted(t, "objects", token, run_id, got, ask)
    by_node(t, "pull-after-objects", a, "pull-messages")
    for number, object_id in enumerate(ask.objects()):
        pull_object(t, f"object-{number}", a, run_id, object_id)
    confirm(t, "confirm", a, run_id, ask.id)
    back = reply(t, "back", ask, records=wire.record_dict(2))
    got = node_push(t, "back/push", a, back)
    pull(t, "back/pull-before-objects", token, ask.id)
    push_wanted(t, "back/objects", a, run_id, got, back)
    pull(t, "back/pull-after-objects", token, ask.id)


@scenario("stop-in-the-middle")
def stop_in_the_middle(t: Talk) -> None:
    a = new_node(t, "a")
    run_id, token = running(t)
    taken = deliver(t, "taken", token, run_id, a, records=wire.record_dict(1))
    waiting = instruction(t, "waiting", run_id, a.id, records=wire.record_dict(2))
    got = push(t, "waiting/push", token, waiting)
    push_wanted(t, "waiting/objects", token, run_id, got, waiting)
    back = reply(t, "back", taken, records=wire.record_dict(3))
    session = node_push(t, "back/push", a, back).message.session_id
    stop_run(t, "stop", run_id)
    stop_run(t, "stop-again", run_id)
    list_run(t, "list", run_id)
    for path in wire.RUNTIME:
        if not path.endswith("acquire-task"):
            t.call(f"after{path.removeprefix('/v1')}", path, token=token)
    push(t, "after/push-messages", token, instruction(t, "late", run_id, a.id))
    by_node(t, "after/get-run", a, "get-run", run_id)
    hash_str = wire.fab(wire.bundle()).hash_str
    by_node(t, "after/get-fab", a, "get-fab", run_id, hash_str=hash_str)
    by_node(t, "after/pull-messages", a, "pull-messages")
    first_id, first = next(iter(back.objects().items()))
    push_object(t, "after/push-object", a, run_id, first_id, first, session)
    pull_object(t, "after/pull-object", a, run_id, waiting.id)
    confirm(t, "after/confirm", a, run_id, waiting.id)
    node_push(t, "after/push-reply", a, reply(t, "late-reply", taken))
    by_node(t, "after/heartbeat", a, "send-node-heartbeat")
    t.call(
        "after/logs", CONTROL + "stream-logs",
        wire.ROUTES[CONTROL + "stream-logs"][0](run_id=run_id),
    )  # fmt: skip
    acquire(t, "after/acquire")
    # The next run is fine.
    second, token = running(t, "next")
    ask = deliver(t, "next-ask", token, second, a)
    answer(t, "next-back", second, a, ask)
    pull(t, "next-pull", token, ask.id)
    output(t, "next-output", token, "completed")
    list_run(t, "next-list", second)


@scenario("two-runs")
def two_runs(t: Talk) -> None:
    """One node serves two runs; neither sees what belongs to the other."""
    a = new_node(t, "a")
    run_1, token_1 = running(t, "run-1")
    run_2, token_2 = running(t, "run-2")
    ask_1 = instruction(t, "ask-1", run_1, a.id, records=wire.record_dict(1))
    ask_2 = instruction(t, "ask-2", run_2, a.id, records=wire.record_dict(1))
    for name, token, run_id, ask in (("1", token_1, run_1, ask_1), ("2", token_2, run_2, ask_2)):
        got = push(t, f"push-{name}", token, ask)
        push_wanted(t, f"objects-{name}", token, run_id, got, ask)
    for number in (1, 2):
        taken = by_node(t, f"pull-{number}", a, "pull-messages")
        for item in taken.message.messages_list:
            confirm(t, f"confirm-{number}", a, item.metadata.run_id, item.metadata.message_id)
    wrong = reply(t, "wrong-run", ask_1, run_id=run_2)
    node_push(t, "wrong-run/push", a, wrong)
    answer(t, "back-1", run_1, a, ask_1)
    answer(t, "back-2", run_2, a, ask_2)
    pull(t, "pull-1/by-2", token_2, ask_1.id)
    pull(t, "pull-1/by-1", token_1, ask_1.id)
    stop_run(t, "stop-1", run_1)
    pull(t, "pull-2/after-stop", token_2, ask_2.id)
    list_run(t, "list-2", run_2)


@scenario("expiry", slow=True)
def expiry(t: Talk) -> None:
    """Tokens that get no heartbeat: 30 s while starting, 60 s while running."""
    first = start_run(t, "first").message.run_id
    token = acquire(t, "starting/acquire").message.token
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=[SERVERAPP])

    def got_task(got) -> bool:
        return got.message is not None and bool(got.message.token)

    again = t.until(
        "starting/acquire-again", got_task, RUNTIME + "acquire-task", request,
        seconds=45.0, pause=0.5,
    )  # fmt: skip
    pull_input(t, "starting/old-token", token)
    pull_input(t, "starting/new-token", again.message.token)
    list_run(t, "running/list", first)
    from flwr.proto import control_pb2

    def finished(got) -> bool:
        runs = got.message.run_dict.values() if got.message else []
        return any(run.status.status == "finished" for run in runs)

    t.until(
        "running/finished", finished, CONTROL + "list-runs",
        control_pb2.ListRunsRequest(run_id=first), seconds=90.0, pause=0.5,
    )  # fmt: skip
    t.call("running/token", RUNTIME + "get-nodes", token=again.message.token)
