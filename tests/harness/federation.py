"""A federation around a SuperLink under test.

    with start_server("umbel", home=folder / "server") as server:
        with Federation(server, folder / "federation") as federation:
            result = federation.run(TOY, {"num-server-rounds": 3})
            federation.wait_status(result.run_id, "finished:completed")

The command line and (in process isolation) the SuperExec are the installed, unmodified programs,
each with its own FLWR_HOME as if on its own machine; so are the SuperNodes, unless
`node=umbel_node("worker")` asks for ours. Whatever carries the federation's folder or ports is
known to be ours: only such processes are signalled, by pid, and none may be left when the context
ends; nor may a SuperNode leave a socket or a control group.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.harness.servers import (
    HOST,
    REPO,
    Server,
    child_env,
    free_port,
    umbel_bin,
    venv_program,
    wait_until,
)

TOY = REPO / "tests" / "apps" / "toy"
CONNECTION = "test"
NODE_SECONDS = 90.0  # for a SuperNode to come online on a busy machine
CLI_SECONDS = 90.0  # for a command that does not follow a run
CGROUPS = Path("/sys/fs/cgroup")
FINISHED = ("finished:completed", "finished:failed", "finished:stopped")

sys.path.insert(0, str(TOY))  # so that a test can repeat the toy's arithmetic
from toy import model as toy_model  # noqa: E402


class FederationError(AssertionError):
    """Something a stock program did, or left behind, that it should not have."""


@dataclass(frozen=True)
class RunResult:
    """What a command printed; `run_id` is None when it started no run."""

    exit_code: int
    output: str
    run_id: int | None = None

    def json(self) -> dict:
        """The JSON document of a `--format json` command."""
        return json.loads(self.output[self.output.index("{") :])


def plain(text: str) -> str:
    """Text without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def toml_value(value: object) -> str:
    """A value as `flwr run -c` wants it."""
    return json.dumps(value) if isinstance(value, (str, bool)) else repr(value)


def toy_sites(count: int) -> list[tuple[int, int]]:
    """(site, weight) for each node; the weights add up to a power of two, so sums are exact."""
    total = 1 << count.bit_length()
    return [(site, 1) for site in range(count - 1)] + [(count - 1, total - (count - 1))]


def toy_expected(rounds: int, count: int = 2, seed: int = 1, payload_kb: int = 1) -> str:
    """sha256 of the model that `count` nodes reach after `rounds`, by calculation."""
    return toy_model.digest(toy_model.expected(seed, rounds, payload_kb, toy_sites(count)))


class Child:
    """A program started here: its output goes to a file, it dies by pid."""

    def __init__(self, name: str, command: Sequence[object], env: dict[str, str], log: Path):
        self.name, self.log_path = name, log
        self.command = [str(part) for part in command]
        self._log_begin = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as out:
            self.proc = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
                cwd=log.parent, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.proc.pid

    @property
    def running(self) -> bool:
        return self.proc.poll() is None

    def log_text(self) -> str:
        """What this process, and not one before it, wrote."""
        with open(self.log_path, "rb") as log:
            log.seek(self._log_begin)
            return plain(log.read().decode(errors="replace"))

    def send(self, number: int) -> None:
        if self.running:
            self.proc.send_signal(number)

    def wait(self, seconds: float) -> int:
        return self.proc.wait(seconds)

    def end(self, seconds: float = 10.0) -> None:
        """SIGTERM; SIGKILL if that is not enough."""
        self.send(signal.SIGTERM)
        self.await_end(seconds)

    def await_end(self, seconds: float) -> None:
        """After a signal that ends it: SIGKILL if that was not enough. (A second SIGTERM would
        tell it to drop everything.)"""
        try:
            self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.wait(seconds)


class Command(Child):
    """A `flwr` command in progress."""

    _started = re.compile(r"""(?:Successfully started run |"run-id": ")(\d+)""")

    @property
    def run_id(self) -> int | None:
        found = self._started.search(self.log_text())
        return int(found[1]) if found else None

    def wait_run_id(self, seconds: float = CLI_SECONDS) -> int:
        """The id of the run it started, as soon as it is printed."""
        wait_until("flwr run names its run", lambda: self.run_id or not self.running, seconds)
        if self.run_id is None:
            raise FederationError(f"flwr run started no run:\n{self.log_text()}")
        return self.run_id

    def result(self, seconds: float) -> RunResult:
        """Wait for the end."""
        try:
            code = self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise FederationError(
                f"{' '.join(self.command)}: still running after {seconds:g} s\n{self.log_text()}"
            ) from None
        return RunResult(code, self.log_text(), self.run_id)


@dataclass(frozen=True)
class NodeKind:
    """Which SuperNode: Flower's own, or ours with a way to host ClientApps."""

    program: str = "stock"  # flower-supernode; or "umbel"
    host: str = "worker"  # of ours: "worker", "resident" or "stock"
    flags: tuple[object, ...] = ()

    def __str__(self) -> str:
        return f"umbel/{self.host}" if self.program == "umbel" else "flower"


STOCK = NodeKind()


def umbel_node(host: str = "worker", *flags: object) -> NodeKind:
    """Our SuperNode, with more flags for each of its starts."""
    return NodeKind("umbel", host, flags)


class Node:
    """One SuperNode: its key, state, home and port outlive its process."""

    def __init__(
        self,
        federation: Federation,
        index: int,
        config: Mapping[str, object],
        kind: NodeKind = STOCK,
        superlink: str | None = None,
    ):
        self.federation, self.index, self.config = federation, index, dict(config)
        self.kind = kind
        self.superlink = superlink or federation.server.address
        self.home = federation.folder / f"node-{index}"
        self.home.mkdir(parents=True)
        self.state = self.home / "state"  # of ours
        self.port = free_port()
        self.address = f"{HOST}:{self.port}"
        self.key: Path | None = None
        self.node_id: int | None = None  # known beforehand only for a registered key
        self.child: Child | None = None
        self._pids: list[int] = []  # of every start

    def make_key(self) -> Path:
        """A P-384 key pair as the documentation of Flower makes it; returns the public half."""
        self.key = self.home / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", "", "-f", self.key],
            check=True,
        )
        return self.key.with_suffix(".pub")

    def register(self) -> int:
        """`flwr supernode register`: the node id that belongs to this node's key."""
        public = self.key.with_suffix(".pub") if self.key else self.make_key()
        done = self.federation.flwr_json("supernode", "register", public, CONNECTION)
        self.node_id = int(done["node-id"])
        return self.node_id

    def start(self, *flags: object) -> Child:
        if self.child and self.child.running:
            raise FederationError(f"node {self.index} runs already")
        given = [*self.kind.flags, *flags]
        tls = self.federation.server.tls
        settings: dict[str, object] = {"--superlink": self.superlink, "--port": self.port}
        if tls and "--insecure" not in given:
            settings["--root-certificates"] = tls.ca
        if self.key:
            settings["--auth-supernode-private-key"] = self.key
        if self.config:
            pairs = (f"{name}={toml_value(value)}" for name, value in self.config.items())
            settings["--node-config"] = " ".join(pairs)
        command: list[object] = [venv_program("flower-supernode")]
        if self.kind.program == "umbel":
            command = [umbel_bin(), "supernode"]
            settings.update({"--clientapp-host": self.kind.host, "--python": sys.executable})
            settings["--state-dir"] = self.state
        if not tls and "--insecure" not in given:
            command += ["--insecure"]
        for name, value in settings.items():
            if name not in given:
                command += [name, value]
        env = child_env(self.home)
        log = self.home / "supernode.log"
        self.child = Child(f"supernode-{self.index}", [*command, *given], env, log)
        self._pids.append(self.child.pid)
        return self.child

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running

    def clientapps(self) -> list[psutil.Process]:
        """The ClientApp processes that work for this node now."""
        if self.kind.program == "stock" or self.kind.host == "stock":
            return find_processes("flwr-clientapp", self.address)
        workers = {worker.pid for worker in self.workers()}
        return [child for child in self._descendants() if _parent(child) in workers]

    def workers(self) -> list[psutil.Process]:
        """The Python workers of ours, which ClientApps are forked from."""
        return [child for child in self._descendants() if _parent(child) == self.child.pid]

    def _descendants(self) -> list[psutil.Process]:
        if not self.running:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.child.pid).children(recursive=True)
        return []

    def status(self) -> dict:
        """What our node says of itself."""
        url = f"http://{self.address}/v1/umbel/node-status"
        return httpx.get(url, trust_env=False, timeout=10.0).raise_for_status().json()

    def kill9(self) -> None:
        """SIGKILL to the SuperNode alone. What it has started notices and ends."""
        if self.child:
            self.child.send(signal.SIGKILL)
            self.child.wait(10)

    def restart(self, *flags: object) -> Child:
        """Start it again with the same key, state and port, after stopping it if it runs."""
        self.stop()
        return self.start(*flags)

    def stop(self, seconds: float = 15.0) -> None:
        """The way a user stops it (SIGINT): it signs off at the SuperLink first."""
        if self.child:
            self.child.send(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(seconds)

    def leftovers(self) -> list[str]:
        """A line for each thing that this node, which does not run, has left on the machine.

        Control groups of a node that was killed wait for the next start of any node."""
        left = [f"process {process.pid}" for process in marked_processes(f"{self.home}{os.sep}")]
        with open("/proc/net/unix") as sockets:
            left += [line.split()[-1] for line in sockets if f"{self.home}{os.sep}" in line]
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self.port:
                left.append(f"listener on {self.address}")
        pids = self._pids if self.child and self.child.proc.returncode != -9 else self._pids[:-1]
        left += [str(path) for pid in pids for path in CGROUPS.rglob(f"umbel-{pid}-*")]
        return [f"node {self.index} ({self.kind}): {what}" for what in left]

    def spools(self) -> list[str]:
        """Files of messages that our node keeps."""
        return sorted(os.listdir(self.state / "spool"))


def _parent(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.ppid()
    return 0


def marked_processes(*marks: str) -> list[psutil.Process]:
    """Live processes with one of these texts in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            texts = [*process.cmdline(), *process.environ().values()]
            if any(mark in text for mark in marks for text in texts):
                found.append(process)
    return found


def find_processes(program: str, address: str) -> list[psutil.Process]:
    """Live processes of a Flower program that talk to this Runtime API address."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if address in line and any(Path(part).name == program for part in line[:2]):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


class Federation:
    """SuperNodes and the stock command line around one SuperLink."""

    def __init__(
        self,
        server: Server,
        folder: Path | str,
        nodes: int = 2,
        node_configs: Sequence[Mapping[str, object]] | None = None,
        keys: bool = False,
        superexec_secret: Path | None = None,
        superexec: bool = False,
        start_nodes: bool = True,
        node: NodeKind | Sequence[NodeKind] = STOCK,
        superlink: str | None = None,
    ):
        """
        folder            for homes and logs; must not exist. Kept: it holds the evidence.
        node_configs      one --node-config each; default: the toy's site and weight.
        node              which SuperNodes: one kind, or one for each.
        superlink         where the nodes look for the server, if not at its own address.
        keys              every node gets a P-384 key, registered before it starts.
        superexec         start an external `flower-superexec`, for a server in process isolation,
                          with `superexec_secret` if given.
        """
        self.server, self.folder = server, Path(folder).absolute()
        self.folder.mkdir(parents=True)
        configs = node_configs or [{"site": s, "examples": w} for s, w in toy_sites(nodes)]
        kinds = [node] * len(configs) if isinstance(node, NodeKind) else node
        self.nodes = [
            Node(self, index, config, kind, superlink)
            for index, (config, kind) in enumerate(zip(configs, kinds, strict=True))
        ]
        self.superexec: Child | None = None
        self._keys, self._start_nodes = keys, start_nodes
        self._superexec = superexec or superexec_secret is not None
        self._secret = superexec_secret
        self._commands: list[Command] = []
        self._fabs: dict[Path, bytes] = {}
        self._outputs = 0
        self._home = self.folder / "cli"
        self._client: httpx.Client | None = None

    # ---- beginning and end ------------------------------------------------------------------

    def __enter__(self) -> Federation:
        self._client = self.server.client(timeout=30.0)
        self._write_connection()
        try:
            if self._superexec:
                self.start_superexec()
            if self._keys:
                for node in self.nodes:
                    node.register()
            if self._start_nodes:
                self.start_nodes()
        except BaseException:
            self._end_all()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        left = self._end_all()
        if left and kind is None:
            raise FederationError("left behind:\n" + "\n".join(left))

    def _write_connection(self) -> None:
        lines = ["[superlink]", f'default = "{CONNECTION}"', f"[superlink.{CONNECTION}]"]
        lines += [f'address = "{self.server.address}"']
        tls = self.server.tls
        lines += [f'root-certificates = "{tls.ca}"' if tls else "insecure = true"]
        path = self._home / "flwr" / "config.toml"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")

    def start_nodes(self, seconds: float = NODE_SECONDS) -> None:
        """Start all SuperNodes that do not run, and wait until all are online."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self.wait_online(len(self.nodes), seconds)

    def start_superexec(self, secret: Path | None = None) -> Child:
        """An external SuperExec for the server, with the given or the federation's secret."""
        command = [venv_program("flower-superexec"), "--runtime-api-address", self.server.address]
        tls = self.server.tls
        command += ["--root-certificates", tls.ca] if tls else ["--insecure"]
        secret = secret or self._secret
        if secret:
            command += ["--superexec-auth-secret-file", secret]
        home = self.folder / "superexec"
        home.mkdir(exist_ok=True)
        self.superexec = Child("superexec", command, child_env(home), home / "superexec.log")
        return self.superexec

    def processes(self) -> list[psutil.Process]:
        """Every live process of this federation: children, and whatever they launched."""
        inside = f"{self.folder}{os.sep}"  # not also a folder whose name only begins like ours
        return marked_processes(inside, *(node.address for node in self.nodes))

    def _end_all(self) -> list[str]:
        """End everything; returns a line for each thing that should have ended by itself."""
        for command in self._commands:
            command.end()
        running = [node.child for node in self.nodes if node.running]
        if self.superexec:
            running.append(self.superexec)
        for child in running:
            child.send(signal.SIGTERM)
        for child in running:
            child.await_end(15.0)  # a SuperNode whose server is gone would sign off for ever
        with contextlib.suppress(TimeoutError):
            wait_until("the federation's processes end", lambda: not self.processes(), 10.0, 0.2)
        left = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                left.append(f"{process.pid} {' '.join(process.cmdline())}")
                process.kill()
        left += [line for node in self.nodes for line in node.leftovers()]
        if self._client:
            self._client.close()
        return left

    # ---- the command line -------------------------------------------------------------------

    def umbel_run(
        self, initial: Mapping[str, object] | Path, *flags: object, app: Path = TOY
    ) -> Command:
        """Start `umbel run` with this initial model, or file of one; without a ServerApp."""
        model = initial
        if not isinstance(initial, Path):
            model = self._home / f"{len(self._commands):03d}-initial.npz"
            np.savez(model, **initial)
        tls = self.server.tls
        where = ["--root-certificates", tls.ca] if tls else ["--insecure"]
        arguments = ["run", app, "--superlink", self.server.address, *where, "--initial", model]
        return self.command(*arguments, "--flwr", venv_program("flwr"), *flags, program=umbel_bin())

    def command(self, *arguments: object, program: object = None) -> Command:
        """Start a `flwr` command, or one of another program."""
        log = self._home / f"{len(self._commands):03d}-{arguments[0]}.log"
        line = [program or venv_program("flwr"), *arguments]
        # Wide enough that a table does not break its cells.
        env = child_env(self._home, COLUMNS="250", TERM="dumb")
        command = Command("flwr", line, env, log)
        self._commands.append(command)
        return command

    def flwr(self, *arguments: object, seconds: float = CLI_SECONDS) -> RunResult:
        """Run a `flwr` command to its end."""
        return self.command(*arguments).result(seconds)

    def flwr_json(self, *arguments: object) -> dict:
        """The document a `flwr … --format json` command prints; it must succeed."""
        done = self.flwr(*arguments, "--format", "json")
        if done.exit_code != 0 or not done.json().get("success", True):
            raise FederationError(f"flwr {arguments} ended with {done.exit_code}:\n{done.output}")
        return done.json()

    def run(
        self,
        app: Path = TOY,
        config: Mapping[str, object] | None = None,
        stream: bool = True,
        flags: Sequence[str] = (),
        seconds: float = 300.0,
    ) -> RunResult:
        """`flwr run` to its end: with `stream` that is the end of the run."""
        return self.run_command(app, config, stream, flags).result(seconds)

    def run_command(
        self,
        app: Path = TOY,
        config: Mapping[str, object] | None = None,
        stream: bool = True,
        flags: Sequence[str] = (),
    ) -> Command:
        """`flwr run`, not waited for."""
        arguments: list[object] = ["run", app, CONNECTION, *(["--stream"] if stream else [])]
        if config:
            pairs = " ".join(f"{name}={toml_value(value)}" for name, value in config.items())
            arguments += ["--run-config", pairs]
        return self.command(*arguments, *flags)

    def stop(self, run_id: int) -> RunResult:
        return self.flwr("stop", run_id, CONNECTION, "--format", "json")

    def log(self, run_id: int, show: bool = False) -> RunResult:
        """`flwr log`: to the end of the run, or with `show` what there is now."""
        return self.flwr("log", run_id, CONNECTION, "--show" if show else "--stream")

    def listed(self, run_id: int) -> dict:
        """The run as `flwr list --format json` shows it."""
        return self.flwr_json("list", CONNECTION, "--run-id", run_id)["runs"][0]

    def listed_nodes(self) -> list[dict]:
        return self.flwr_json("supernode", "list", CONNECTION)["nodes"]

    # ---- the Control API, without the seconds a command takes to start ---------------------

    def post(self, method: str, request) -> httpx.Response:
        """POST one message to /v1/control/<method>."""
        headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        content = request.SerializeToString()
        return self._client.post(f"/v1/control/{method}", content=content, headers=headers)

    def control(self, method: str, request, answer):
        """The same; the reply must be 200, and `answer` is filled with it and returned."""
        reply = self.post(method, request)
        reply.raise_for_status()
        answer.ParseFromString(reply.content)
        return answer

    def build(self, app: Path = TOY) -> bytes:
        """The app's FAB as `flwr build` makes it (once)."""
        if app not in self._fabs:
            out = self._home / f"build-{len(self._fabs)}"
            out.mkdir(parents=True)
            build = [venv_program("flwr"), "build", "--app", app]
            subprocess.run(
                build, cwd=out, env=child_env(self._home), check=True, capture_output=True
            )
            (fab,) = out.glob("*.fab")
            self._fabs[app] = fab.read_bytes()
        return self._fabs[app]

    def post_start(
        self, config: Mapping[str, object] | None = None, fab: bytes | None = None
    ) -> httpx.Response:
        """start-run as `flwr run` sends it, but from this process."""
        from flwr.common.serde import user_config_to_proto
        from flwr.proto import control_pb2, fab_pb2

        content = self.build() if fab is None else fab
        request = control_pb2.StartRunRequest(
            fab=fab_pb2.Fab(hash_str=hashlib.sha256(content).hexdigest(), content=content),
            override_config=user_config_to_proto(dict(config or {})),
        )
        return self.post("start-run", request)

    def start(self, config: Mapping[str, object] | None = None, fab: bytes | None = None) -> int:
        """Start a run (of the toy, if no FAB is given); returns its id."""
        from flwr.proto import control_pb2

        reply = self.post_start(config, fab)
        reply.raise_for_status()
        answer = control_pb2.StartRunResponse.FromString(reply.content)
        if not answer.HasField("run_id"):
            raise FederationError("start-run gave no run id")
        return answer.run_id

    def check_sound(self, seconds: float = 90.0) -> None:
        """One round of the toy over all nodes ends as it should, to the last bit."""
        output, count = self.output(), len(self.nodes)
        config = {"num-server-rounds": 1, "min-nodes": count, "evaluate": False, **output.config}
        run_id = self.start(config)
        self.wait_state(run_id, "finished:completed", seconds)
        if output.report()["sha256"] != toy_expected(1, count):
            raise FederationError(f"the run after it has another result: {output.report()}")
        self.wait_gone(self.serverapps(), 15)

    def state(self, run_id: int) -> tuple[str, str]:
        """(status, details), e.g. ("finished:failed", "…"), by list-runs."""
        from flwr.proto import control_pb2

        request = control_pb2.ListRunsRequest(run_id=run_id)
        answer = self.control("list-runs", request, control_pb2.ListRunsResponse())
        status = answer.run_dict[run_id].status
        text = f"{status.status}:{status.sub_status}" if status.sub_status else status.status
        return text, status.details

    def node_states(self) -> dict[int, str]:
        """node id → status, by list-nodes."""
        from flwr.proto import control_pb2

        request, answer = control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse()
        nodes = self.control("list-nodes", request, answer).nodes_info
        return {node.node_id: node.status for node in nodes}

    def online(self) -> set[int]:
        return {node for node, state in self.node_states().items() if state == "online"}

    # ---- waiting ----------------------------------------------------------------------------

    def patient(self, ask: Callable[[], object]) -> Callable[[], object]:
        """The same question, with "no" for an answer while the server does not answer."""

        def asked():
            try:
                return ask()
            except httpx.TransportError:
                return None
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 503:
                    raise
                return None

        return asked

    def wait_online(self, count: int, seconds: float = NODE_SECONDS) -> set[int]:
        """Wait until exactly `count` nodes are online; no SuperNode may end meanwhile."""
        start = [node.child for node in self.nodes if node.running]

        def settled():
            for child in start:
                if not child.running:
                    raise FederationError(f"{child.name} ended:\n{child.log_text()}")
            online = self.online()
            return online if len(online) == count else None

        return wait_until(f"{count} nodes online", self.patient(settled), seconds, 0.1)

    def wait_state(self, run_id: int, wanted: str | Sequence[str], seconds: float) -> str:
        """Wait until the run is in a wanted state, e.g. "running" or a tuple of states.

        Any other final state ends the wait with an error that shows the run's log."""
        wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)

        def settled():
            status, details = self.state(run_id)
            if status in FINISHED and status not in wanted:
                raise FederationError(
                    f"run {run_id} is {status} ({details}), not {wanted}\n{self.evidence()}"
                )
            return status if status in wanted else None

        try:
            return wait_until(f"run {run_id} {wanted}", self.patient(settled), seconds, 0.1)
        except TimeoutError as error:
            last = self.patient(lambda: self.state(run_id))()
            raise FederationError(f"{error}; it is {last}\n{self.evidence()}") from None

    def wait_status(self, run_id: int, wanted: str | Sequence[str], seconds: float = 120.0) -> dict:
        """`wait_state`, then the run as `flwr list --format json` shows it, which must agree."""
        reached = self.wait_state(run_id, wanted, seconds)
        row = self.listed(run_id)
        if row["status"] != reached:
            raise FederationError(f"flwr list shows {row}, list-runs said {reached}")
        return row

    def serverapps(self) -> list[psutil.Process]:
        """The ServerApp processes of this server, whoever launched them."""
        return find_processes("flwr-serverapp", self.server.address)

    def wait_gone(self, processes: Sequence[psutil.Process], seconds: float) -> None:
        """Wait until none of these lives."""

        def alive(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

        wait_until(
            f"{[p.pid for p in processes]} end",
            lambda: not any(alive(process) for process in processes),
            seconds,
        )

    # ---- results and evidence ---------------------------------------------------------------

    def output(self) -> Output:
        """A fresh place for the toy's result and notes."""
        self._outputs += 1
        return Output(self.folder / f"output-{self._outputs:03d}")

    def evidence(self, lines: int = 40) -> str:
        """The ends of all logs, for a failure's report."""
        logs = {"superlink": self.server.log_path}
        logs.update({f"node {n.index}": n.home / "supernode.log" for n in self.nodes})
        if self.superexec:
            logs["superexec"] = self.superexec.log_path
        parts = []
        for name, path in logs.items():
            if path.exists():
                tail = plain(path.read_text(errors="replace")).splitlines()[-lines:]
                parts.append(f"--- {name} ({path})\n" + "\n".join(tail))
        return "\n".join(parts)


class Output:
    """Where one run of the toy writes its result and its notes."""

    def __init__(self, stem: Path):
        self.stem = stem
        self.gate = stem.with_suffix(".gate")

    @property
    def config(self) -> dict[str, str]:
        """To be merged into the run config."""
        return {"output": str(self.stem), "trace": str(self.stem.with_suffix(".trace"))}

    @property
    def held(self) -> dict[str, object]:
        """Run config with which every ClientApp trains until `open_gate`."""
        return {"train-seconds": 600.0, "gate": str(self.gate)}

    def open_gate(self) -> None:
        self.gate.touch()

    def notes(self, what: str | None = None) -> list[dict]:
        """What the apps noted so far, or the notes of one kind."""
        path = self.stem.with_suffix(".trace")
        if not path.exists():
            return []
        found = [json.loads(line) for line in path.read_text().splitlines()]
        return [note for note in found if what in (None, note["what"])]

    def wait_notes(self, what: str, count: int, seconds: float = 90.0, **fields) -> list[dict]:
        """Wait for `count` notes of a kind (with these fields)."""

        def enough():
            found = [n for n in self.notes(what) if fields.items() <= n.items()]
            return found if len(found) >= count else None

        return wait_until(f"{count} × {what!r} {fields or ''}", enough, seconds)

    def report(self) -> dict:
        """What the ServerApp wrote at its end."""
        return json.loads(self.stem.with_suffix(".json").read_text())

    def result(self) -> dict:
        """The part of the report that must not depend on what happened on the way."""
        report = self.report()
        return {name: report[name] for name in ("sha256", "train", "evaluate")}

    def digest(self) -> str:
        """sha256 of the arrays in the .npz, read back."""
        import numpy as np

        with np.load(self.stem.with_suffix(".npz")) as arrays:
            return toy_model.digest({name: arrays[name] for name in arrays.files})


def edited_fab(fab: bytes, files: Mapping[str, bytes]) -> bytes:
    """The same app with these files, new or in place of its own; the manifest lists them.

    Entries are stored as they are."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(fab)) as old, zipfile.ZipFile(out, "w") as new:
        listed = old.read(".info/CONTENT").decode().splitlines()
        listed = [line for line in listed if line and line.split(",")[0] not in files]
        for name, blob in files.items():
            listed.append(f"{name},{hashlib.sha256(blob).hexdigest()},{len(blob) * 8}")
            new.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), blob)
        for entry in old.infolist():
            if entry.filename in files:
                continue
            manifest = entry.filename == ".info/CONTENT"
            info = zipfile.ZipInfo(entry.filename, entry.date_time)
            info.external_attr = entry.external_attr
            new.writestr(info, "\n".join(listed) if manifest else old.read(entry))
    return out.getvalue()


def padded_fab(fab: bytes, size: int) -> bytes:
    """The same app with a file of padding, so that the FAB has exactly `size` bytes."""

    def pack(padding: int) -> bytes:
        return edited_fab(fab, {"padding.py": bytes(padding)})

    padding = size - len(pack(0))
    while (miss := size - len(pack(padding))) != 0:  # the manifest's digits count too
        padding += miss
    return pack(padding)
