"""The life of a node: registration, signatures, heartbeats, and runs it does not know."""

from __future__ import annotations

import base64
import datetime

from flwr.proto import control_pb2, fleet_pb2

from . import wire
from .oracle import Talk, scenario
from .steps import (
    CONTROL,
    FLEET,
    UNKNOWN_HASH,
    UNKNOWN_RUN,
    Node,
    acquire,
    activate,
    answer,
    by_node,
    confirm,
    deliver,
    fill,
    fleet_request,
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
    register,
    reply,
    running,
    start_run,
    stop_run,
)


@scenario("node-life")
def life(t: Talk) -> None:
    a = register(t, "a")
    by_node(t, "registered/pull", a, "pull-messages")
    by_node(t, "registered/heartbeat", a, "send-node-heartbeat")
    by_node(t, "registered/deactivate", a, "deactivate-node")
    by_node(t, "registered/deactivate-again", a, "deactivate-node")
    for interval in (5.0, 9.999, 10.0, 1800.0, 1800.5, 0.0, -30.0, float("nan"), float("inf")):
        b = register(t, f"interval{interval}")
        activate(t, f"interval{interval}/activate", b, interval)
        by_node(
            t, f"interval{interval}/heartbeat", b, "send-node-heartbeat",
            heartbeat_interval=interval,
        )  # fmt: skip
    b = register(t, "b")
    by_node(t, "b/deactivate-registered", b, "deactivate-node")
    activate(t, "b/activate", b)
    activate(t, "b/activate-online", b)
    by_node(t, "b/heartbeat", b, "send-node-heartbeat")
    by_node(t, "b/deactivate", b, "deactivate-node")
    by_node(t, "b/deactivate-again", b, "deactivate-node")
    by_node(t, "b/pull-offline", b, "pull-messages")
    activate(t, "b/activate-again", b)
    by_node(t, "b/deactivate-third", b, "deactivate-node")
    by_node(t, "b/heartbeat-revives", b, "send-node-heartbeat")
    activate(t, "b/activate-revived", b)
    t.call("list-nodes", CONTROL + "list-nodes")
    by_node(t, "b/unregister", b, "unregister-node")
    for path in wire.FLEET:
        t.call(f"b/after/{path.removeprefix(FLEET)}", path, fleet_request(path, b), key=b.key)
    c = register(t, "c")
    by_node(t, "c/unregister-registered", c, "unregister-node")
    d = new_node(t, "d")
    by_node(t, "d/deactivate", d, "deactivate-node")
    by_node(t, "d/unregister-offline", d, "unregister-node")
    t.call("list-nodes-after", CONTROL + "list-nodes")


@scenario("node-registration")
def registration(t: Talk) -> None:
    path = FLEET + "register-node"
    key = wire.NodeKey()

    def ask(step: str, public: bytes, signer: wire.NodeKey, header: bytes | None = None) -> None:
        t.know_bytes(public, f"<key of {step}>")
        t.call(
            step, path, fleet_pb2.RegisterNodeFleetRequest(public_key=public),
            headers=signer.headers(public=header or public),
        )  # fmt: skip

    ask("first", key.pem, key)
    ask("twice", key.pem, key)
    ask("body-differs", wire.NodeKey().pem, key, header=key.pem)
    t.call("body-empty", path, fleet_pb2.RegisterNodeFleetRequest(), key=key)
    for curve in ("p192", "p224", "p384", "p521", "k256", "b256", "rsa", "ed25519"):
        ask(f"curve-{curve}", (own := wire.NodeKey(curve)).pem, own)
    der = wire.NodeKey()
    ask("der", der.der, der)
    ask("openssh", (own := wire.NodeKey()).openssh(), own)
    ask("trailing-newlines", (own := wire.NodeKey()).pem + b"\n\n", own)
    ask("leading-text", b"hello\n" + (own := wire.NodeKey()).pem, own)
    ask("crlf", (own := wire.NodeKey()).pem.replace(b"\n", b"\r\n"), own)
    ask("garbage", b"garbage", wire.NodeKey())
    ask("truncated", (own := wire.NodeKey()).pem[:80], own)
    ask("same-key-in-der", key.der, key)
    ask("same-key-other-bytes", key.pem.rstrip(b"\n"), key)
    twin = wire.NodeKey()
    node = register(t, "twin", twin)
    by_node(t, "twin/unregister", node, "unregister-node")
    ask("after-unregister", twin.pem, twin)
    activate(t, "activate-unknown", Node(wire.NodeKey(), 0))
    activate(t, "activate-unknown-bad-interval", Node(wire.NodeKey(), 0), interval=1.0)
    other = register(t, "other")
    activate(t, "activate-body-differs", other, key=wire.NodeKey())
    t.call("list-nodes", CONTROL + "list-nodes")


@scenario("node-signatures")
def signatures(t: Talk) -> None:
    node = register(t, "a")
    path = FLEET + "pull-messages"
    request = fleet_request(path, node)
    key = node.key

    def ask(step: str, headers: list[tuple[str, str]]) -> None:
        t.call(step, path, request, headers=headers)

    for age in (0, 290, 303, 307, 4000, -3, -7, -4000):
        ask(f"age/{age}", key.headers(age=age))
    names = ("flwr-public-key", "flwr-timestamp", "flwr-signature")
    for name in names:
        ask(f"missing/{name}", [pair for pair in key.headers() if pair[0] != name])
        ask(f"empty/{name}", [(n, "" if n == name else v) for n, v in key.headers()])
        ask(f"twice/{name}", key.headers() + [p for p in key.headers() if p[0] == name])
        ask(f"junk/{name}", [(n, "junk!" if n == name else v) for n, v in key.headers()])
    utc = datetime.datetime.now(datetime.timezone.utc)
    for label, text in {
        "z": utc.isoformat().replace("+00:00", "Z"),
        "no-zone": utc.replace(tzinfo=None).isoformat(),
        "seconds": utc.replace(microsecond=0).isoformat(),
        "milliseconds": utc.isoformat(timespec="milliseconds"),
        "other-zone": utc.astimezone(datetime.timezone(datetime.timedelta(hours=2))).isoformat(),
        "negative-zone": utc.astimezone(
            datetime.timezone(-datetime.timedelta(hours=7))
        ).isoformat(),
        "space": utc.isoformat(sep=" "),
        "basic": utc.strftime("%Y%m%dT%H%M%S+0000"),
        "date": utc.date().isoformat(),
        "unix": str(utc.timestamp()),
        "words": "now",
        "huge": "9" * 400,
        "year-0": "0000-01-01T00:00:00+00:00",
    }.items():
        ask(f"time/{label}", key.headers(timestamp=text))
    again = key.headers()
    ask("replay/first", again)
    ask("replay/second", again)
    public, when, signature = (value for _, value in key.headers())
    while not {"+", "/"} & set(signature):  # so that the other alphabet is one
        public, when, signature = (value for _, value in key.headers())
    urlsafe = signature.replace("+", "-").replace("/", "_")
    raw = base64.b64decode(signature)
    ask("encoding/url-safe", list(zip(names, (public, when, urlsafe))))
    ask("encoding/no-padding", list(zip(names, (public.rstrip("="), when, signature.rstrip("=")))))
    ask("encoding/inner-space", list(zip(names, (public[:9] + " " + public[9:], when, signature))))
    ask("signature/one-bit", key.headers(timestamp=when, signature=raw[:-1] + bytes([raw[-1] ^ 1])))
    ask("signature/longer", key.headers(timestamp=when, signature=raw + b"\0"))
    ask("signature/empty", key.headers(timestamp=when, signature=b""))
    ask("signature/zeros", key.headers(timestamp=when, signature=bytes(72)))
    ask("key/der", key.headers(public=key.der))
    ask("key/crlf", key.headers(public=key.pem.replace(b"\n", b"\r\n")))
    t.call("upper-case-names", path, request, headers=[(n.upper(), v) for n, v in key.headers()])


@scenario("node-unknown-run")
def unknown_run(t: Talk) -> None:
    """Calls that name runs, objects and bundles the server does not have."""
    a = new_node(t, "a")
    by_node(t, "get-run", a, "get-run")
    by_node(t, "get-run-zero", a, "get-run", run_id=0)
    by_node(t, "get-fab", a, "get-fab", hash_str=UNKNOWN_HASH)
    push_object(t, "push-object", a, UNKNOWN_RUN, UNKNOWN_HASH, b"x")
    pull_object(t, "pull-object", a, UNKNOWN_RUN, UNKNOWN_HASH)
    pull_object(t, "pull-object-run-zero", a, 0, UNKNOWN_HASH)
    confirm(t, "confirm", a, UNKNOWN_RUN, UNKNOWN_HASH)
    path = FLEET + "push-messages"
    parcel = t.know_parcel(
        wire.parcel(UNKNOWN_RUN, a.id, 1, reply_to=UNKNOWN_HASH, created_at=t.started), "parcel"
    )
    node_push(t, "push-messages", a, parcel)
    t.call("push-nothing", path, fleet_pb2.PushMessagesRequest(node=wire.node(a.id)), key=a.key)
    request = fleet_pb2.PushMessagesRequest(node=wire.node(a.id), messages_list=[parcel.message])
    t.call("push-without-tree", path, request, key=a.key)
    request = fleet_pb2.PushMessagesRequest(
        node=wire.node(a.id), message_object_trees=[parcel.tree]
    )
    t.call("push-without-message", path, request, key=a.key)


@scenario("node-run-states")
def run_states(t: Talk) -> None:
    """What a node is told about a run that is pending, starting, running, finished."""
    a = new_node(t, "a")
    run_id = start_run(t, "start").message.run_id
    hash_str = wire.fab(wire.bundle()).hash_str

    def look(state: str) -> None:
        by_node(t, f"{state}/get-run", a, "get-run", run_id)
        by_node(t, f"{state}/get-fab", a, "get-fab", run_id, hash_str=hash_str)
        by_node(t, f"{state}/get-fab-other-hash", a, "get-fab", run_id, hash_str=UNKNOWN_HASH)
        by_node(t, f"{state}/get-fab-no-hash", a, "get-fab", run_id)
        pull_object(t, f"{state}/pull-object", a, run_id, UNKNOWN_HASH)
        push_object(t, f"{state}/push-object", a, run_id, UNKNOWN_HASH, b"x")
        confirm(t, f"{state}/confirm", a, run_id, UNKNOWN_HASH)
        parcel = wire.parcel(run_id, a.id, 1, reply_to=UNKNOWN_HASH, created_at=t.started)
        node_push(t, f"{state}/push-messages", a, t.know_parcel(parcel, f"parcel-{state}"))
        by_node(t, f"{state}/pull-messages", a, "pull-messages")
        list_run(t, f"{state}/list", run_id)

    look("pending")
    token = acquire(t, "acquire").message.token
    look("starting")
    pull_input(t, "input", token)
    look("running")
    output(t, "output", token, "completed")
    look("finished")
    second, _ = running(t, "second")
    stop_run(t, "stop", second)
    run_id = second
    look("stopped")
    b = register(t, "b")
    third, _ = running(t, "third")
    by_node(t, "registered-only/get-run", b, "get-run", third)
    by_node(t, "registered-only/get-fab", b, "get-fab", third, hash_str=hash_str)


@scenario("replies")
def replies(t: Talk) -> None:
    """Replies that are wrong, late, repeated, contradictory, or somebody else's."""
    a, b = new_node(t, "a"), new_node(t, "b")
    run_id, token = running(t)
    other_run, _ = running(t, "other")
    ask = deliver(t, "ask", token, run_id, a)
    for label, change in {
        "src-superlink": {"src": 1},
        "src-zero": {"src": 0},
        "src-other-node": {"src": b.id},
        "dst-node": {"dst": b.id},
        "dst-zero": {"dst": 0},
        "no-reply-to": {"reply_to": ""},
        "unknown-reply-to": {"reply_to": UNKNOWN_HASH},
        "other-run": {"run_id": other_run},
        "no-type": {"kind": ""},
        "other-type": {"kind": "evaluate"},
        "odd-type": {"kind": "not a type"},
        "other-group": {"group": "else"},
        "ttl-zero": {"ttl": 0.0},
        "ttl-negative": {"ttl": -1.0},
        "ttl-longer": {"ttl": 7200.0},
        "created-early": {"created_at": 1_000_000_000.0},
        "expired": {"created_at": t.started - 100.0, "ttl": 50.0},
    }.items():
        # A reply that is wrongly accepted would hide the next; each gets its own question.
        own = deliver(t, f"{label}/ask", token, run_id, a)
        wrong = reply(t, f"{label}/reply", own, **change)
        node_push(t, f"{label}/push", a, wrong)
        pull(t, f"{label}/seen", token, own.id)
    own = deliver(t, "no-content/ask", token, run_id, a)
    bare = reply(t, "no-content/reply", own)
    bare.message.ClearField("content")
    node_push(t, "no-content/push", a, bare)
    pull(t, "no-content/seen", token, own.id)
    own = deliver(t, "both/ask", token, run_id, a)
    both = reply(t, "both/reply", own)
    both.message.error.code = 2
    node_push(t, "both/push", a, both)
    pull(t, "both/seen", token, own.id)
    own = deliver(t, "no-id/ask", token, run_id, a)
    nameless = reply(t, "no-id/reply", own)
    nameless.message.metadata.message_id = ""
    node_push(t, "no-id/push", a, nameless)
    pull(t, "no-id/seen", token, own.id)
    own = deliver(t, "other-root/ask", token, run_id, a)
    rooted = reply(t, "other-root/reply", own)
    request = fleet_pb2.PushMessagesRequest(
        node=wire.node(a.id),
        messages_list=[rooted.message],
        message_object_trees=[rooted.tree.children[0]],
    )
    t.call("other-root/push", FLEET + "push-messages", request, key=a.key)
    pull(t, "other-root/seen", token, own.id)
    # The question's own run takes a good reply, again the same, and not a second one.
    good = reply(t, "good", ask)
    node_push(t, "good/push", a, good, clientapp_runtime_list=[1.5])
    node_push(t, "good/push-again", a, good, clientapp_runtime_list=[1.5])
    second = reply(t, "second", ask, error=(2, "different"))
    node_push(t, "second/push", a, second)
    node_push(t, "good/push-third", a, good)
    # A stranger cannot answer for the node it was sent to.
    theirs = deliver(t, "theirs", token, run_id, a)
    node_push(t, "stranger/push", b, reply(t, "stranger", theirs))
    node_push(t, "stranger/own-name", b, reply(t, "stranger-own", theirs, src=b.id))
    pull(t, "stranger/seen", token, theirs.id)
    # Two messages in one call: only the first counts.
    one, two = (deliver(t, f"pair-{n}", token, run_id, a) for n in (1, 2))
    node_push(t, "pair/push", a, reply(t, "pair-reply-1", one), reply(t, "pair-reply-2", two))
    pull(t, "pair/seen-second", token, two.id)
    # A reply to a question that nobody pulled yet.
    unasked = instruction(t, "unasked", run_id, a.id, group="unasked")
    push(t, "unasked/push", token, unasked)
    node_push(t, "unasked/reply", a, reply(t, "unasked-reply", unasked))
    answer(t, "error-reply", run_id, a, deliver(t, "failing", token, run_id, a), error=(2, "boom"))
    list_run(t, "list", run_id)


@scenario("node-auth", tls=True, node_auth=True)
def node_auth(t: Talk) -> None:
    """Keys must be registered by the operator."""
    path = CONTROL + "register-node"

    def enrol(step: str, public: bytes, **more) -> int:
        t.know_bytes(public, f"<key of {step}>")
        request = control_pb2.RegisterNodeRequest(public_key=public, **more)
        got = t.call(step, path, request)
        return got.message.node_id if got.message is not None else 0

    key = wire.NodeKey("p384")
    node = Node(key, enrol("enrol", key.pem))
    t.names.give("node", node.id, "keyed")
    enrol("enrol/twice", key.pem)
    for curve in ("p192", "p224", "p256", "p521", "k256", "b256", "rsa", "ed25519"):
        enrol(f"curve/{curve}", wire.NodeKey(curve).pem)
    enrol("form/der", wire.NodeKey().der)
    enrol("form/openssh", wire.NodeKey().openssh())
    enrol("form/garbage", b"garbage")
    enrol("form/empty", b"")
    enrol("form/truncated", wire.NodeKey().pem[:90])
    enrol("form/trailing", wire.NodeKey().pem + b"more")
    for label, text in {
        "plain": "52.52,13.40",
        "space": "52.52, 13.40",
        "empty": "",
        "one": "52.52",
        "three": "1,2,3",
        "words": "Berlin",
        "north": "90.1,0",
        "east": "0,180.5",
        "edge": "-90,-180",
        "nan": "nan,0",
        "exponent": "5e1,1e1",
    }.items():
        enrol(f"location/{label}", wire.NodeKey().pem, location=text)
    enrol("name", wire.NodeKey().pem, name="site one")
    enrol("name/empty", wire.NodeKey().pem, name="")
    enrol("name/long", wire.NodeKey().pem, name="n" * 300)
    enrol("name/same", wire.NodeKey().pem, name="site one")
    enrol("name/lines", wire.NodeKey().pem, name="two\nlines")
    t.call("list-nodes", CONTROL + "list-nodes")

    register_path = FLEET + "register-node"
    stranger = wire.NodeKey()
    request = fleet_pb2.RegisterNodeFleetRequest(public_key=stranger.pem)
    t.call("self-registration", register_path, request, key=stranger)
    request = fleet_pb2.RegisterNodeFleetRequest(public_key=key.pem)
    t.call("self-registration/known", register_path, request, key=key)
    t.call("self-registration/unsigned", register_path, request)
    activate(t, "activate/stranger", Node(stranger, 0))
    by_node(t, "before/pull", node, "pull-messages")
    activate(t, "activate", node)
    by_node(t, "heartbeat", node, "send-node-heartbeat")
    by_node(t, "unregister-itself", node, "unregister-node")
    by_node(t, "pull", node, "pull-messages")
    by_node(t, "deactivate", node, "deactivate-node")
    activate(t, "activate-again", node)
    t.call("list-nodes/online", CONTROL + "list-nodes")

    def dismiss(step: str, node_id: int) -> None:
        request = control_pb2.UnregisterNodeRequest(node_id=node_id)
        t.call(step, CONTROL + "unregister-node", request)

    dismiss("unregister/unknown", 4242)
    dismiss("unregister/superlink", 1)
    dismiss("unregister", node.id)
    dismiss("unregister/again", node.id)
    by_node(t, "after/pull", node, "pull-messages")
    by_node(t, "after/heartbeat", node, "send-node-heartbeat")
    activate(t, "after/activate", node)
    enrol("after/enrol", key.pem)
    t.call("list-nodes/after", CONTROL + "list-nodes")


@scenario("control-nodes")
def control_nodes(t: Talk) -> None:
    """Operator and self-service registration side by side, without node authentication."""
    key = wire.NodeKey()
    t.know_bytes(key.pem, "<key>")
    request = control_pb2.RegisterNodeRequest(public_key=key.pem, name="n", location="1,2")
    node = Node(key, t.call("enrol", CONTROL + "register-node", request).message.node_id)
    t.names.give("node", node.id, "enrolled")
    t.call(
        "self-registration", FLEET + "register-node",
        fill(fleet_pb2.RegisterNodeFleetRequest, public_key=key.pem), key=key,
    )  # fmt: skip
    activate(t, "activate", node)
    own = new_node(t, "own")
    request = control_pb2.RegisterNodeRequest(public_key=own.key.pem)
    t.call("enrol-self-registered", CONTROL + "register-node", request)
    t.call("list", CONTROL + "list-nodes")
    by_node(t, "unregister-enrolled", node, "unregister-node")
    t.call(
        "unregister-self-registered", CONTROL + "unregister-node",
        control_pb2.UnregisterNodeRequest(node_id=own.id),
    )  # fmt: skip
    by_node(t, "self-registered/pull", own, "pull-messages")
    t.call("list-after", CONTROL + "list-nodes")
