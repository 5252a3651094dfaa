"""The operator's routes: runs, lists, logs, federations, and what a plain SuperLink refuses."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile

from flwr.proto import (
    control_pb2,
    fab_pb2,
    federation_config_pb2,
    log_pb2,
    message_pb2,
    runtime_pb2,
    transport_pb2,
)

from . import wire
from .oracle import Talk, scenario
from .steps import (
    CONTROL,
    RUNTIME,
    UNKNOWN_RUN,
    acquire,
    fill,
    list_run,
    new_node,
    output,
    pull_input,
    running,
    start_run,
    stop_run,
)

DEFAULT = "@none/default"


def _scalars(**values) -> dict[str, transport_pb2.Scalar]:
    names = {bool: "bool", int: "sint64", float: "double", str: "string", bytes: "bytes"}
    return {
        key.replace("_", "-"): transport_pb2.Scalar(**{names[type(value)]: value})
        for key, value in values.items()
    }


@scenario("start-run")
def start(t: Talk) -> None:
    start_run(t, "plain")
    start_run(t, "same-again")
    start_run(t, "deflated", wire.bundle(deflate=True))
    start_run(t, "without-content-list", wire.bundle(with_content=False))
    path = CONTROL + "start-run"

    def ask(step: str, content: bytes, **more) -> None:
        t.know_bytes(content, f"<fab {step}>")
        hashed = fab_pb2.Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content)
        t.call(step, path, control_pb2.StartRunRequest(fab=hashed, **more))

    # The hash the client sends.
    content = wire.bundle()
    wrong_hash = fab_pb2.Fab(hash_str="00" * 32, content=content)
    got = t.call("hash/wrong", path, control_pb2.StartRunRequest(fab=wrong_hash))
    list_run(t, "hash/wrong/list", got.message.run_id if got.message else 0)
    t.call("hash/none", path, control_pb2.StartRunRequest(fab=fab_pb2.Fab(content=content)))
    only_hash = fab_pb2.Fab(hash_str=hashlib.sha256(content).hexdigest())
    t.call("hash/only", path, control_pb2.StartRunRequest(fab=only_hash))
    t.call(
        "hash/only-with-app", path, control_pb2.StartRunRequest(fab=only_hash, app_spec="@acme/toy")
    )
    t.call("fab/none", path, control_pb2.StartRunRequest())

    # Bundles that are not.
    ask("fab/garbage", b"this is not a zip file")
    ask("fab/one-byte", b"P")
    ask("fab/cut", wire.bundle()[:-30])
    ask("fab/head-cut", wire.bundle()[30:])
    ask("fab/junk-before", b"junk" * 10 + wire.bundle())
    ask("fab/junk-after", wire.bundle() + b"junk" * 10)
    ask("fab/no-pyproject", wire.bundle(toml=b""))
    ask("fab/empty-zip", b"PK\x05\x06" + bytes(18))
    damaged = bytearray(wire.bundle())
    damaged[60] ^= 0xFF
    ask("fab/bad-crc", bytes(damaged))
    ask("fab/pyproject-not-toml", wire.bundle(toml="][ not toml"))
    ask("fab/pyproject-not-utf8", wire.bundle(toml=b"\xff\xfe\xfa"))
    ask("fab/pyproject-empty-table", wire.bundle(toml="a = 1"))
    plain = wire.pyproject()
    for label, old, new in (
        ("no-project", plain[: plain.index("[tool")], ""),
        ("no-name", 'name = "toy"\nversion', "version"),
        ("no-version", 'version = "1.0.0"\n', ""),
        ("no-description", 'description = ""\n', ""),
        ("no-license", 'license = "Apache-2.0"\n', ""),
        ("no-dependencies", 'dependencies = ["flwr>=1.41.0"]\n', ""),
        ("no-app", plain[plain.index("[tool.flwr.app]") :], ""),
        ("no-publisher", 'publisher = "acme"\n', ""),
        ("no-components", "[tool.flwr.app.components]\n" + wire.SERVER_CLIENT, ""),
        ("no-config", plain[plain.index("[tool.flwr.app.config]") :], ""),
        ("no-serverapp", 'serverapp = "toy.server:app"\n', ""),
        ("no-clientapp", 'clientapp = "toy.client:app"', ""),
        ("config-list", "fraction = 0.5", "fraction = [1, 2]"),
        ("config-date", "fraction = 0.5", "fraction = 2026-01-01"),
        ("name-number", 'name = "toy"\nversion', "name = 1\nversion"),
        ("version-number", 'version = "1.0.0"', "version = 1"),
        ("component-no-colon", "toy.server:app", "toy.server"),
        ("component-other-module", "toy.server:app", "nowhere.server:app"),
        ("name-bad", 'name = "toy"\nversion', 'name = "1 toy/../x"\nversion'),
        ("version-bad", 'version = "1.0.0"', 'version = "not a version"'),
        ("publisher-bad", 'publisher = "acme"', 'publisher = "a/b c"'),
        ("publisher-empty", 'publisher = "acme"', 'publisher = ""'),
        ("dotted-key", "[tool.flwr.app.config.nested]\ndeep = 1", "nested.deep = 1"),
        ("agentapp", wire.SERVER_CLIENT, 'agentapp = "toy.agent:app"'),
        ("agent-and-server", wire.SERVER_CLIENT, wire.SERVER_CLIENT + '\nagentapp = "toy.a:app"'),
        ("fab-format-1", 'publisher = "acme"', 'publisher = "acme"\nfab-format-version = 1'),
        ("fab-format-9", 'publisher = "acme"', 'publisher = "acme"\nfab-format-version = 9'),
        ("flwr-target", 'publisher = "acme"', 'publisher = "acme"\nflwr-version-target = "9.9.9"'),
    ):
        assert old in plain, label
        ask(f"toml/{label}", wire.bundle(toml=plain.replace(old, new, 1)))

    # Names inside the archive.
    for label, name in {
        "parent": "../evil.py",
        "absolute": "/tmp/evil.py",
        "backslash": "..\\evil.py",
        "drive": "C:/evil.py",
        "dot": "./toy/x.py",
        "directory": "toy/sub/",
        "long": "d/" * 200 + "x.py",
    }.items():
        ask(f"entry/{label}", wire.bundle(files={name: b""}))
    out = io.BytesIO(wire.bundle())
    with zipfile.ZipFile(out, "a") as archive:
        with_second = wire.pyproject(name="second").encode()
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.writestr(zipfile.ZipInfo("pyproject.toml", (2024, 10, 1, 0, 0, 0)), with_second)
    ask("entry/two-pyprojects", out.getvalue())
    ask(
        "entry/content-lies",
        wire.bundle(files={"toy/z.py": b"1"}).replace(b"toy/z.py,", b"toy/y.py,"),
    )

    # Size: ten mebibytes are the limit.
    small = wire.bundle(files={"toy/pad.bin": b""})
    limit = 10 * 1024 * 1024
    for label, size in (("limit", limit), ("limit+1", limit + 1)):
        # The pad's digits in the contents list change the size; find the pad that fits.
        pad = size - len(small) - 8
        while len(big := wire.bundle(files={"toy/pad.bin": bytes(pad)})) != size:
            pad += size - len(big)
        ask(f"size/{label}", big)

    # The run's own configuration.
    for label, values in {
        "known": _scalars(num_server_rounds=5),
        "nested": {"nested.deep": transport_pb2.Scalar(sint64=2)},
        "nested-table": {"nested": transport_pb2.Scalar(sint64=2)},
        "unknown": _scalars(nonsense=5),
        "one-unknown": _scalars(num_server_rounds=5, nonsense=5),
        "other-type": _scalars(num_server_rounds="five"),
        "all-types": _scalars(num_server_rounds=1, fraction=0.25, name="x", flag=False),
        "bytes": _scalars(name=b"abc"),
        "unset": {"name": transport_pb2.Scalar()},
        "uint64": {"num-server-rounds": transport_pb2.Scalar(uint64=7)},
        "negative": _scalars(num_server_rounds=-7),
        "huge": _scalars(num_server_rounds=2**62),
        "empty-key": {"": transport_pb2.Scalar(sint64=1)},
    }.items():
        request = control_pb2.StartRunRequest(fab=wire.fab(content))
        for key, value in values.items():
            request.override_config[key].CopyFrom(value)
        got = t.call(f"config/{label}", path, request)
        if got.status == 200 and got.message.run_id:
            list_run(t, f"config/{label}/list", got.message.run_id)

    for label, name in {
        "default": DEFAULT,
        "other": "@none/other",
        "account": "@someone/default",
        "plain": "default",
        "space": " @none/default",
        "upper": "@NONE/default",
    }.items():
        start_run(t, f"federation/{label}", federation=name)
    config = federation_config_pb2.SimulationConfig(num_supernodes=5)
    start_run(t, "federation-config", override_federation_config=config)
    for label, spec in {
        "word": "nonsense",
        "no-name": "@acme",
        "version": "@acme/toy==x.y",
    }.items():
        start_run(t, f"app-spec/{label}", app_spec=spec)
    start_run(t, "connector-refs", connector_refs=["gmail"])
    start_run(t, "connector-refs/empty", connector_refs=[""])
    start_run(t, "connector-refs/unknown", connector_refs=["nonsense"])
    start_run(t, "connector-ids", connector_ids=[4242])
    start_run(t, "user-prompt", user_prompt="hello")
    agent = wire.bundle(toml=wire.pyproject(components='agentapp = "toy.agent:app"'))
    start_run(t, "agent-with-prompt", agent, user_prompt="hello")
    start_run(t, "agent-blank-prompt", agent, user_prompt="  ")


@scenario("series")
def series(t: Talk) -> None:
    first = start_run(t, "first").message
    second = start_run(t, "second", series_id=first.series_id).message
    start_run(t, "unknown", series_id=4242)
    start_run(t, "zero", series_id=0)
    list_run(t, "list-second", second.run_id)
    path = CONTROL + "get-run-series"
    t.call("get", path, control_pb2.GetRunSeriesRequest(series_id=first.series_id))
    t.call("get-unknown", path, control_pb2.GetRunSeriesRequest(series_id=4242))
    t.call("list", CONTROL + "list-run-series")
    # The context that the first run leaves behind is what the second one starts from.
    token = acquire(t, "first.acquire").message.token
    task_input = pull_input(t, "first.input", token).message
    context = task_input.context
    item = context.state.items.add(key="kept")
    item.config_record.items.add(key="n").value.sint64 = 7
    context.run_config["x"].CopyFrom(transport_pb2.Scalar(sint64=1))
    context.node_config["y"].CopyFrom(transport_pb2.Scalar(string="z"))
    output(t, "first.output", token, "completed", context=context)
    token = acquire(t, "second.acquire").message.token
    pull_input(t, "second.input", token)
    # A context of another run, series or node.
    context.run_id, context.series_id, context.node_id = 5, 6, 7
    output(t, "second.output", token, "failed", "reason", context=context)
    third = start_run(t, "third", series_id=first.series_id).message
    token = acquire(t, "third.acquire").message.token
    pull_input(t, "third.input", token)
    t.call("get-after", path, control_pb2.GetRunSeriesRequest(series_id=third.series_id))
    describe = CONTROL + "update-run-series-description"
    for label, text in {"ok": " hello ", "blank": "  ", "long": "x" * 1000}.items():
        request = control_pb2.UpdateRunSeriesDescriptionRequest(
            series_id=first.series_id, description=text
        )
        t.call(f"describe/{label}", describe, request)
    events = control_pb2.ListRunSeriesEventsRequest(series_id=first.series_id)
    t.call("events", CONTROL + "list-run-series-events", events)


@scenario("list-and-stop")
def list_and_stop(t: Talk) -> None:
    path = CONTROL + "list-runs"
    t.call("list/none", path)
    runs = [start_run(t, f"start-{number}").message.run_id for number in range(23)]
    for number, run_id in enumerate(runs):
        t.names.give("run", run_id, f"run-{number:02}")
    for label, values in {
        "default": {},
        "limit-1": {"limit": 1},
        "limit-0": {"limit": 0},
        "limit-50": {"limit": 50},
        "limit-2-skip-3": {"limit": 2, "skip": 3},
        "skip-20": {"skip": 20},
        "skip-all": {"skip": 100},
        "skip-0": {"skip": 0},
        "one": {"run_id": runs[0]},
        "one-limit-0": {"run_id": runs[0], "limit": 0},
        "zero": {"run_id": 0},
        "unknown": {"run_id": UNKNOWN_RUN},
        "huge": {"run_id": 2**64 - 1},
    }.items():
        got = t.call(f"list/{label}", path, control_pb2.ListRunsRequest(**values), keep=False)
        # Only which runs are listed matters here; one full answer is kept below.
        ids = (
            sorted(t.names.of("run", run_id) for run_id in got.message.run_dict)
            if got.message
            else []
        )
        t.steps[f"list/{label}"] = {"status": got.status, "code": got.code, "runs": ids}
    list_run(t, "list/full", runs[0])
    stop_run(t, "stop/unknown", UNKNOWN_RUN)
    stop_run(t, "stop/zero", 0)
    stop_run(t, "stop/pending", runs[0])
    stop_run(t, "stop/again", runs[0])
    list_run(t, "stop/list", runs[0])
    token = acquire(t, "starting/acquire").message.token
    stop_run(t, "starting/stop", runs[1])
    list_run(t, "starting/list", runs[1])
    pull_input(t, "starting/input", token)
    token = acquire(t, "failed/acquire").message.token
    pull_input(t, "failed/input", token)
    output(t, "failed/output", token, "failed", "it broke\nbadly")
    list_run(t, "failed/list", runs[2])
    stop_run(t, "failed/stop", runs[2])
    output(t, "failed/output-again", token, "completed")
    token = acquire(t, "done/acquire").message.token
    pull_input(t, "done/input", token)
    output(t, "done/output", token, "completed", clientapp_runtime=2.5)
    stop_run(t, "done/stop", runs[3])
    list_run(t, "done/list", runs[3])


@scenario("logs")
def logs(t: Talk) -> None:
    path = CONTROL + "stream-logs"
    t.call("unknown", path, control_pb2.StreamLogsRequest(run_id=UNKNOWN_RUN))
    run_id, token = running(t)

    def write(step: str, *lines: str, **values) -> None:
        request = log_pb2.PushLogsRequest(
            node=wire.node(0), run_id=values.get("run_id", run_id), logs=lines
        )
        t.call(step, RUNTIME + "push-logs", request, token=token)

    write("push/one", "first\n")
    write("push/many", "second\n", "third\n", "no end of line")
    write("push/nothing")
    write("push/empty", "")
    write("push/colour", "\x1b[92mINFO\x1b[0m: ünïcode ✓\r\n")
    write("push/other-run", "other run\n", run_id=UNKNOWN_RUN)
    # A stream that is open while lines arrive, and ends with the run.
    opened = threading.Event()
    result: dict[str, bytes | int] = {}

    def follow() -> None:
        import httpx

        body = control_pb2.StreamLogsRequest(run_id=run_id).SerializeToString()
        headers = {
            "content-type": wire.PROTOBUF,
            "accept": wire.STREAM,
            "accept-encoding": "identity",
        }
        with t.fresh_client() as client, client.stream(
            "POST", path, content=body, headers=headers, timeout=httpx.Timeout(60.0)
        ) as response:
            result["status"] = response.status_code
            got = b""
            for piece in response.iter_raw():
                got += piece
                opened.set()
            result["body"] = got

    follower = threading.Thread(target=follow, name="log-follower")
    follower.start()
    opened.wait(20)
    write("push/live", "while streaming\n")
    output(t, "output", token, "completed")
    follower.join(30)
    from .oracle import frames

    found = frames(result.get("body", b""), control_pb2.StreamLogsResponse)
    t.steps["live"] = {
        "status": result.get("status"),
        "log": "".join(frame.log_output for frame in found),
        "ended": not follower.is_alive(),
    }
    write("push/finished", "too late\n")
    whole = t.call("finished", path, control_pb2.StreamLogsRequest(run_id=run_id))
    last = whole.message[-1].latest_timestamp if whole.message else 0.0
    for label, after in {
        "last": last,
        "future": last + 1e6,
        "negative": -1.0,
        "nan": float("nan"),
    }.items():
        request = control_pb2.StreamLogsRequest(run_id=run_id, after_timestamp=after)
        t.call(f"after/{label}", path, request)
    silent = start_run(t, "silent.start").message.run_id
    stop_run(t, "silent.stop", silent)
    t.call("silent", path, control_pb2.StreamLogsRequest(run_id=silent))
    events = CONTROL + "stream-run-events"
    t.call("events", events, control_pb2.StreamRunEventsRequest(run_id=run_id))
    t.call("events/unknown", events, control_pb2.StreamRunEventsRequest(run_id=UNKNOWN_RUN))


@scenario("federations")
def federations(t: Talk) -> None:
    """What a server without federation management answers, by federation name."""
    node = new_node(t, "a")
    run_id = start_run(t, "start").message.run_id
    for label, name in {"default": DEFAULT, "other": "@none/other", "empty": ""}.items():
        for route in (
            "show-federation", "create-federation", "archive-federation", "set-federation-icon",
            "add-node-to-federation", "remove-node-from-federation",
            "remove-account-from-federation", "create-invitation", "accept-invitation",
            "reject-invitation", "revoke-invitation", "configure-simulation-federation",
        ):  # fmt: skip
            request = fill(
                wire.ROUTES[CONTROL + route][0], federation_name=name, node_id=node.id,
                account_name="somebody", invitee_account_name="somebody", description="d",
            )  # fmt: skip
            t.call(f"{label}/{route}", CONTROL + route, request)
        for route in ("list-apps", "remove-app"):
            request = fill(wire.ROUTES[CONTROL + route][0], federation_id=name, app_id="@acme/toy")
            t.call(f"{label}/{route}", CONTROL + route, request)
        for route in (
            "list-automations", "list-connectors", "disconnect-connector", "begin-connector-oauth",
        ):  # fmt: skip
            request = fill(
                wire.ROUTES[CONTROL + route][0], federation=name, connector_id=4242,
                connector_ref="nonsense", redirect_uri="http://127.0.0.1/",
            )  # fmt: skip
            t.call(f"{label}/{route}", CONTROL + route, request)
    for label, name in {"word": "plain", "odd": "no spaces!", "at": "@none/x"}.items():
        request = control_pb2.CreateFederationRequest(federation_name=name)
        t.call(f"create/{label}", CONTROL + "create-federation", request)
    for label, wrong in {"unknown": 4242, "superlink": 1}.items():
        for route in ("add-node-to-federation", "remove-node-from-federation"):
            request = fill(wire.ROUTES[CONTROL + route][0], federation_name=DEFAULT, node_id=wrong)
            t.call(f"{route}/{label}", CONTROL + route, request)
    t.call("list", CONTROL + "list-federations")
    t.call("list-invitations", CONTROL + "list-invitations")
    app = control_pb2.ListAppAssociationsRequest(app_id="@acme/toy")
    t.call("app-associations", CONTROL + "list-app-associations", app)
    for limit in (0, 1, 2):
        apps = control_pb2.ListAppsRequest(federation_id=DEFAULT, limit=limit)
        t.call(f"list-apps/limit-{limit}", CONTROL + "list-apps", apps)
    t.call("series/federation", CONTROL + "list-run-series",
           control_pb2.ListRunSeriesRequest(federation_id=DEFAULT))  # fmt: skip
    t.call("series/other", CONTROL + "list-run-series",
           control_pb2.ListRunSeriesRequest(federation_id="@none/other"))  # fmt: skip
    t.call("artifacts", CONTROL + "pull-artifacts", control_pb2.PullArtifactsRequest(run_id=run_id))
    t.call("tokens", CONTROL + "get-auth-tokens", control_pb2.GetAuthTokensRequest(device_code="x"))
    t.call("refresh", CONTROL + "refresh-auth-tokens",
           control_pb2.RefreshAuthTokensRequest(refresh_token="x"))  # fmt: skip
    t.call("oauth/complete", CONTROL + "complete-connector-oauth",
           control_pb2.CompleteConnectorOAuthRequest(oauth_session_id="a", code="b", state="c"))  # fmt: skip
    t.call("stop-automation", CONTROL + "stop-automation",
           control_pb2.StopAutomationRequest(automation_id=4242))  # fmt: skip


@scenario("automations")
def automations(t: Talk) -> None:
    first = start_run(t, "start").message
    path = CONTROL + "start-automation"
    base = control_pb2.StartRunRequest(fab=wire.fab(wire.bundle()), series_id=first.series_id)
    for label, values in {
        "bad-time": {"start_at": "tomorrow"},
        "no-zone": {"start_at": "2099-01-01T00:00:00"},
        "no-runs": {"max_runs": 0},
        "no-interval": {"fixed_interval": 0},
        "runs-without-interval": {"max_runs": 2},
    }.items():
        request = control_pb2.StartAutomationRequest(start_run_request=base, **values)
        t.call(label, path, request)
    unknown = control_pb2.StartRunRequest(fab=wire.fab(wire.bundle()), series_id=4242)
    later = {"start_at": "2099-01-01T00:00:00+00:00"}
    t.call(
        "unknown-series",
        path,
        control_pb2.StartAutomationRequest(start_run_request=unknown, **later),
    )
    t.call("list", CONTROL + "list-automations")


@scenario("agent-routes")
def agent_routes(t: Talk) -> None:
    """Routes that only agents use, called by a ServerApp."""
    run_id, token = running(t)
    for kind in (
        "flwr-serverapp",
        "flwr-clientapp",
        "flwr-model",
        "flwr-connector",
        "nonsense",
        "",
    ):
        request = runtime_pb2.CreateTaskRequest(type=kind)
        t.call(f"create-task/{kind}", RUNTIME + "create-task", request, token=token)
    for path in (
        "push-task-message", "pull-task-message", "push-task-events", "get-run-series-events",
        "get-compacted-contexts", "put-compacted-context", "record-task-usage", "get-connector",
        "start-automation",
    ):  # fmt: skip
        t.call(f"{path}/bare", RUNTIME + path, token=token)
    message = message_pb2.Message(
        metadata=message_pb2.Metadata(run_id=run_id, src_task_id=5, dst_task_id=6)
    )
    request = runtime_pb2.PushTaskMessageRequest(message=message)
    t.call("push-task-message/foreign", RUNTIME + "push-task-message", request, token=token)
    request = runtime_pb2.GetCompactedContextsRequest(limit=0)
    t.call(
        "get-compacted-contexts/limit-0", RUNTIME + "get-compacted-contexts", request, token=token
    )
