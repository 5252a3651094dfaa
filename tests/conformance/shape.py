"""Every route: methods, content types, broken bodies, missing credentials, version headers."""

from __future__ import annotations

from flwr.proto import control_pb2, runtime_pb2

from . import wire
from .oracle import Talk, scenario
from .steps import CONTROL, FLEET, RUNTIME, acquire, fleet_request, new_node, running, start_run


def _short(path: str) -> str:
    return path.removeprefix("/v1/").replace("/", ".", 1)


def _malformed(t: Talk, paths: list[str]) -> None:
    for path in paths:
        name = _short(path)
        t.call(f"{name}/get", path, method="GET")
        t.call(f"{name}/type-json", path, body=b"{}", content_type="application/json")
        t.call(f"{name}/type-none", path, content_type=None)
        t.call(f"{name}/broken", path, body=b"\xff\xff\xff")
        t.call(f"{name}/bare", path)


@scenario("shape-fleet")
def fleet_routes(t: Talk) -> None:
    _malformed(t, wire.FLEET)
    node = new_node(t, "node-a")
    other = wire.NodeKey()
    for path in wire.FLEET:
        name = _short(path)
        request = fleet_request(path, node)
        named = "public_key" not in request.DESCRIPTOR.fields_by_name
        t.call(f"{name}/broken-signed", path, body=b"\xff\xff\xff", key=node.key)
        t.call(f"{name}/type-signed", path, request, key=node.key, content_type="text/plain")
        t.call(f"{name}/unsigned", path, request)
        t.call(f"{name}/foreign-key", path, request, key=other)
        signature = node.key.sign(wire.stamp(1.0))
        t.call(
            f"{name}/bad-signature", path, request, headers=node.key.headers(signature=signature)
        )
        t.call(f"{name}/old", path, request, headers=node.key.headers(age=306.0))
        t.call(f"{name}/future", path, request, headers=node.key.headers(age=-6.5))
        if named:
            for wrong, label in ((0, "no-node"), (node.id ^ 2, "wrong-node"), (1, "node-one")):
                request = fleet_request(path, node)
                if "node" in request.DESCRIPTOR.fields_by_name:
                    request.node.node_id = wrong
                else:
                    request.node_id = wrong
                t.call(f"{name}/{label}", path, request, key=node.key)


@scenario("shape-runtime")
def runtime_routes(t: Talk) -> None:
    _malformed(t, wire.RUNTIME)
    run_id, token = running(t)
    for path in wire.RUNTIME:
        if path.endswith("/acquire-task"):
            continue
        name = _short(path)
        t.call(f"{name}/type-token", path, token=token, content_type="text/plain")
        t.call(f"{name}/broken-token", path, token=token, body=b"\xff\xff\xff")
        t.call(f"{name}/wrong-token", path, token="0" * 256)
        t.call(f"{name}/empty-token", path, token="")
        t.call(f"{name}/upper-token", path, token=token.upper())
        t.call(f"{name}/two-tokens", path, token=token, headers=[("flwr-task-token", token)])
        t.call(f"{name}/bearer", path, headers=[("authorization", f"Bearer {token}")])
    t.call("broken-before-token", RUNTIME + "get-nodes", body=b"\xff", token="0" * 256)


@scenario("shape-control")
def control_routes(t: Talk) -> None:
    _malformed(t, wire.CONTROL)
    for path in (CONTROL + "list-runs", CONTROL + "get-login-details", CONTROL + "stream-logs"):
        name = _short(path)
        for label, values in {
            "basic": ["Basic dTpw"],
            "bearer": ["Bearer abc"],
            "bearer-lower": ["bearer abc"],
            "bearer-empty": ["Bearer"],
            "empty": [""],
            "two": ["Bearer abc", "Bearer abc"],
        }.items():
            headers = [("authorization", value) for value in values]
            t.call(f"{name}/authorization-{label}", path, headers=headers)
    basic = [("authorization", "Basic dTpw")]
    path = CONTROL + "list-runs"
    t.call("authorization-before-type", path, headers=basic, content_type="text/plain")
    t.call("authorization-before-body", path, headers=basic, body=b"\xff")
    t.call("authorization-before-method", path, headers=basic, method="GET")
    t.call("authorization-unknown-route", CONTROL + "nonsense", headers=basic)


@scenario("shape-http")
def http_layer(t: Talk) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        t.call(f"health/{method}", "/health", method=method)
    t.call("health/slash", "/health/", method="GET")
    t.call("health/query", "/health?a=b", method="GET")
    for label, path in {
        "root": "/",
        "v1": "/v1",
        "fleet": "/v1/fleet",
        "fleet-slash": "/v1/fleet/",
        "fleet-nonsense": "/v1/fleet/nonsense",
        "runtime-nonsense": "/v1/runtime/nonsense",
        "control-nonsense": "/v1/control/nonsense",
        "v2": "/v2/fleet/register-node",
        "upper": "/v1/fleet/Register-Node",
        "double": "/v1//fleet/register-node",
        "dots": "/v1/fleet/../fleet/register-node",
        "escaped": "/v1/fleet/register%2Dnode",
        "docs": "/docs",
        "openapi": "/openapi.json",
        "redoc": "/redoc",
        "grpc": "/flwr.proto.Fleet/RegisterNode",
    }.items():
        t.call(f"unknown/{label}/GET", path, method="GET")
        t.call(f"unknown/{label}/POST", path)
    for path in (FLEET + "register-node", RUNTIME + "acquire-task", CONTROL + "list-runs"):
        name = _short(path)
        for method in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            t.call(f"{name}/{method}", path, method=method)
        t.call(f"{name}/slash", path + "/")
        t.call(f"{name}/query", path + "?x=1")
        for label, text in {
            "charset": "application/protobuf; charset=utf-8",
            "case": "Application/Protobuf",
            "x-protobuf": "application/x-protobuf",
            "stream": wire.STREAM,
            "octets": "application/octet-stream",
            "empty": "",
            "list": "application/protobuf, application/json",
        }.items():
            t.call(f"{name}/type-{label}", path, content_type=text)
        # A field nobody knows is skipped; an accept header nobody serves is ignored.
        t.call(f"{name}/unknown-field", path, body=b"\xc2\x3e\x03abc")
        t.call(f"{name}/accept-html", path, headers=[("accept", "text/html")])
        t.call(f"{name}/wrong-wire-type", path, body=b"\x08\x01\x10\x01")
    # The Runtime's model endpoint for agents speaks JSON.
    path = RUNTIME + "responses"
    t.call("responses/bare", path)
    t.call("responses/json", path, body=b"{}", content_type="application/json")
    t.call("responses/get", path, method="GET")
    headers = [("authorization", "Bearer abc")]
    t.call("responses/bearer", path, body=b"{}", headers=headers, content_type="application/json")


@scenario("versions")
def version_headers(t: Talk) -> None:
    node = new_node(t, "node-a")
    start_run(t, "start")
    fleet = FLEET + "send-node-heartbeat"
    beat = fleet_request(fleet, node)
    name, version, component = (
        "flwr-package-name",
        "flwr-package-version",
        "flwr-component-name",
    )
    for label, headers in {
        "same": {name: "flwr", version: "1.41.0", component: "SuperExec"},
        "patch": {name: "flwr", version: "1.41.9", component: "SuperExec"},
        "minor": {name: "flwr", version: "1.42.0", component: "SuperExec"},
        "older": {name: "flwr", version: "1.30.0", component: "SuperNode"},
        "major": {name: "flwr", version: "2.41.0", component: "SuperExec"},
        "nightly": {name: "flwr-nightly", version: "1.41.0.dev20260101", component: "SuperExec"},
        "other-package": {name: "other", version: "1.41.0", component: "SuperExec"},
        "garbage": {name: "flwr", version: "what", component: "SuperExec"},
        "short": {name: "flwr", version: "1.41", component: "SuperExec"},
        "only-version": {version: "1.41.0"},
        "only-name": {name: "flwr"},
        "two-of-three": {name: "flwr", version: "1.41.0"},
        "empty": {name: "", version: "", component: ""},
    }.items():
        pairs = list(headers.items())
        t.call(f"fleet/{label}", fleet, beat, key=node.key, headers=pairs)
        t.call(f"control/{label}", CONTROL + "list-federations", headers=pairs)
        # No types are offered, so nothing is claimed.
        t.call(f"runtime/{label}", RUNTIME + "acquire-task", headers=pairs)
    wrong = [(name, "flwr"), (version, "1.30.0"), (component, "x")]
    t.call("runtime/before-token", RUNTIME + "get-nodes", headers=wrong)
    t.call("runtime/after-type", RUNTIME + "get-nodes", headers=wrong, content_type="text/plain")
    t.call("runtime/after-body", RUNTIME + "get-nodes", headers=wrong, body=b"\xff")
    request = runtime_pb2.AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    t.call("runtime/no-claim", RUNTIME + "acquire-task", request, headers=wrong)
    acquire(t, "still-there")
    t.call(
        "control/source",
        CONTROL + "list-runs",
        control_pb2.ListRunsRequest(),
        headers=[("x-flwr-client", "cli")],
    )
