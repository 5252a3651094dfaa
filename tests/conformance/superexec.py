"""The shared secret between a SuperLink and an external SuperExec."""

from __future__ import annotations

import time

from flwr.proto import runtime_pb2

from . import wire
from .oracle import Answer, Talk, scenario
from .steps import RUNTIME, SERVERAPP, list_run, output, pull_input, start_run

# The file's bytes are the secret, its line end included.
SECRET = b"a secret with a line end\n"
PATH = RUNTIME + "acquire-task"


@scenario("superexec-secret", secret=SECRET)
def secret(t: Talk) -> None:
    run_id = start_run(t, "start").message.run_id
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=[SERVERAPP])
    body = request.SerializeToString(deterministic=True)

    def ask(step: str, headers: list[tuple[str, str]], message=request) -> Answer:
        return t.call(step, PATH, message, headers=headers)

    def signed(**values) -> list[tuple[str, str]]:
        return wire.superexec_headers(values.pop("secret", SECRET), body, **values)

    ask("none", [])
    ask("none/no-types", [], runtime_pb2.AcquireTaskRequest())
    names = [name for name, _ in signed()]
    for name in names:
        ask(f"missing/{name}", [pair for pair in signed() if pair[0] != name])
        ask(f"empty/{name}", [(n, "" if n == name else v) for n, v in signed()])
        ask(f"twice/{name}", signed() + [pair for pair in signed() if pair[0] == name])
    ask("wrong-secret", signed(secret=b"another secret"))
    ask("stripped-secret", signed(secret=SECRET.strip()))
    ask("wrong-method", signed(method="/flwr.proto.Runtime/PullTaskInput"))
    ask("wrong-body", wire.superexec_headers(SECRET, body + b"\x0a\x01x"))
    ask("wrong-body-hash", signed(body_sha256="00" * 32))
    ask("upper-body-hash", signed(body_sha256=dict(signed())["flwr-superexec-body-sha256"].upper()))
    ask("other-message", signed(), runtime_pb2.AcquireTaskRequest(supported_task_types=["x"]))
    ask("wrong-nonce", [(n, "cd" if n.endswith("nonce") else v) for n, v in signed(nonce="ab")])
    ask("wrong-time", [(n, str(int(v) - 1) if n.endswith("ts") else v) for n, v in signed()])
    ask("bad-signature", signed(signature="00" * 32))
    ask("short-signature", signed(signature="ab"))
    ask("not-hex-signature", signed(signature="zz" * 32))
    for age in (310, 3600, -8, -3600):
        ask(f"age/{age}", signed(age=age))
    for label, text in {
        "float": f"{time.time():.3f}",
        "words": "now",
        "huge": "9" * 300,
        "negative": "-5",
        "space": f"{int(time.time())} 0",
    }.items():
        ask(f"time/{label}", signed(ts=text))
    # Nothing was claimed by all this; the right signature gets the task, once per nonce.
    list_run(t, "list", run_id)
    once = signed()
    got = ask("right", once)
    ask("replay", once)
    list_run(t, "list-after", run_id)
    ask("right/nothing-left", signed())
    ask("old-but-allowed", signed(age=300))
    ask("ahead-but-allowed", signed(age=-3))
    ask("time/plus", [(n, "+" + v if n.endswith("ts") else v) for n, v in signed()])
    ask("time/zeros", [(n, "000" + v if n.endswith("ts") else v) for n, v in signed()])
    ask(
        "time/underscore", [(n, v[0] + "_" + v[1:] if n.endswith("ts") else v) for n, v in signed()]
    )
    ask("long-nonce", signed(nonce="n" * 500))
    ask("upper-signature", [(n, v.upper() if n.endswith("signature") else v) for n, v in signed()])
    # A failed attempt does not burn the nonce.
    nonce = "0123456789abcdef" * 2
    ask("burn/wrong", signed(nonce=nonce, signature="00" * 32))
    ask("burn/right", signed(nonce=nonce))
    ask("burn/again", signed(nonce=nonce))
    # An empty message is signed as no bytes; a body in another order is signed as it should be.
    empty = runtime_pb2.AcquireTaskRequest()
    ask("empty-message", wire.superexec_headers(SECRET, b""), empty)
    extra = body + b"\xc2\x3e\x03abc"
    t.call("unknown-field/signed", PATH, body=extra, headers=wire.superexec_headers(SECRET, extra))
    hashes = ("ab" * 32).encode()
    swapped = b"\x12\x40" + hashes + body
    t.call("swapped/as-sent", PATH, body=swapped, headers=wire.superexec_headers(SECRET, swapped))
    straight = runtime_pb2.AcquireTaskRequest()
    straight.ParseFromString(swapped)
    straight = straight.SerializeToString(deterministic=True)
    t.call("swapped/ordered", PATH, body=swapped, headers=wire.superexec_headers(SECRET, straight))
    t.call("broken", PATH, body=b"\xff", headers=signed())
    # The rest of the Runtime asks for the task's token only.
    token = got.message.token if got.message else ""
    pull_input(t, "input", token)
    output(t, "output", token, "completed")
    t.call("other-route/signed", RUNTIME + "get-nodes", headers=signed())
