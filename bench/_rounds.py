"""What the benches of native rounds share: runs without a ServerApp, their records, and who trains.

Round records come from watch-rounds. Who trains is either the C++ ClientApp `umbel_heavy`, a real
node, or `umbel_load train`, which plays any number of nodes without a disk and has a clock of its
own. In both, every reply differs from every other in all its chunks.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _bench import REPO, memory, umbel_load

from tests.harness.federation import Child, Federation
from tests.harness.servers import Server, child_env, free_port, wait_until

APP = REPO / "bench" / "apps" / "heavy"  # its FAB; its ClientApp is not used by native nodes
RUN_SECONDS = 3600.0
THREADS = int(os.environ.get("UMBEL_BENCH_THREADS", "6"))  # nodes that send at one time


def program(name: str) -> Path:
    """A program of bench/, built beside umbel_load."""
    return umbel_load().parent / name


def model(bytes_: int, arrays: int = 40) -> dict[str, np.ndarray]:
    """Gaussian float32, `bytes_` in all (of a multiple of 4 × arrays)."""
    rng = np.random.default_rng(1)
    each = bytes_ // 4 // arrays
    return {f"tensor-{i}": rng.standard_normal(each, np.float32) for i in range(arrays)}


def size(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays.values())


# ---------------------------------------------------------------------------------------------
# What the server tells


def _messages():
    """Classes of proto/umbel/rounds.proto. Flower's Python has the messages it imports under other
    file names, so they live in a pool of their own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    command = ["protoc", "-I", REPO / "proto", "--include_imports", "--descriptor_set_out=/dev/stdout"]
    done = subprocess.run([*command, "umbel/rounds.proto"], capture_output=True, check=True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(done.stdout).file:
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    names = ("WatchRoundsRequest", "RoundRecord")
    find = pool.FindMessageTypeByName
    return [message_factory.GetMessageClass(find(f"umbel.rounds.{name}")) for name in names]


def records(server: Server, run_id: int) -> list:
    """The round records of a run that has ended."""
    request_class, record_class = _messages()
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    found, after = [], 0
    with server.client() as client:
        while not found or found[-1].kind != "end":
            request = request_class(run_id=run_id, after=after, once=True)
            reply = client.post(
                "/v1/umbel/watch-rounds", content=request.SerializeToString(), headers=headers
            )
            body = reply.raise_for_status().content
            while body:
                end = 4 + int.from_bytes(body[:4], "big")
                found.append(record_class.FromString(body[4:end]))
                body = body[end:]
            after = found[-1].sequence
    return found


def metric(server: Server, name: str) -> int:
    """A counter of /metrics."""
    with server.client(timeout=10.0) as client:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return int(float(line.split()[1]))
    raise RuntimeError(f"/metrics has no {name}")


def received(server: Server, initial: int) -> int:
    """Object bytes that the nodes have sent: all that came but the initial model."""
    return metric(server, "umbel_object_received_bytes_total") - initial


def check_received(counted: int, wanted: int, chunks: int) -> None:
    """`wanted` bytes of arrays; their heads and the small objects come on top."""
    if not wanted <= counted <= wanted + 4096 * (chunks + 1000) + wanted // 1000:
        raise RuntimeError(f"{counted} bytes of objects were received, not {wanted}")


# ---------------------------------------------------------------------------------------------
# Runs, and who trains


def native_run(
    federation: Federation, arrays, *flags: object, trainers: Trainers | None = None
) -> int:
    """`umbel run` of the heavy app to its end; training only. Returns the id of the run."""
    command = federation.umbel_run(
        arrays, "--watch", "--set", "fraction_evaluate=0", *flags, app=APP
    )

    def over():
        if trainers:
            trainers.check()  # without them the run would wait for ever
        return not command.running

    wait_until("the rounds end", over, RUN_SECONDS, 0.1)
    done = command.result(10.0)
    if done.exit_code != 0:
        raise RuntimeError(done.output)
    return done.run_id


@contextlib.contextmanager
def native_sites(federation: Federation, count: int, parallel: int) -> Iterator[Child]:
    """One process with `count` sites whose ClientApp is umbel_heavy, online."""
    home = federation.folder / "sites"
    home.mkdir()
    command = [program("umbel_heavy"), "--superlink", federation.server.address, "--insecure"]
    command += ["--port", free_port(), "--state-dir", home / "state", "--count", count]
    command += ["--max-parallel", parallel, "--node-config", "site={i}"]
    child = Child("sites", command, child_env(home), home / "sites.log")
    try:
        federation.wait_online(count, 120)
        yield child
    finally:
        child.end(30)


class Trainers:
    """`umbel_load train` in progress."""

    def __init__(self, server: Server, nodes: int, phases: int, *flags: object):
        command = [umbel_load(), "train", "--port", server.port, "--nodes", nodes]
        command += ["--threads", min(nodes, THREADS), "--phases", phases, *flags]
        self._process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Trainers:
        if "online" not in self._process.stdout.readline():
            raise RuntimeError(self._process.communicate()[1])
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def check(self) -> None:
        """Raises what went wrong, if it has ended."""
        if self._process.poll() not in (None, 0):
            raise RuntimeError(self._process.communicate()[1])

    def phases(self, seconds: float = 60.0) -> list[dict]:
        """Waits for the end; the times of each phase."""
        out, problem = self._process.communicate(timeout=seconds)
        if self._process.returncode != 0:
            raise RuntimeError(problem)
        return json.loads(out.splitlines()[-1])["phases"]


# ---------------------------------------------------------------------------------------------
# A server from outside


@dataclass
class Peaks:
    """Bytes."""

    memory: int = 0  # VmHWM, and the most it held in tmpfs and memfd
    disk: int = 0  # blocks of its folder's files, and of files that are gone but open
    parts: dict[str, int] = field(default_factory=dict)  # of the disk then, by subfolder


class Watch:
    """Looks at a server every 50 ms, and once more at the end."""

    def __init__(self, server: Server):
        self._server, self._end, self._files = server, threading.Event(), 0
        self._thread = threading.Thread(target=self._run, name="watch")
        self.peaks = Peaks()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._end.wait(0.05):
            self._look()

    def _look(self) -> None:
        used = memory(self._server.pid)
        self._files = max(self._files, used.files)
        self.peaks.memory = used.peak + self._files
        parts = self._disk()
        if sum(parts.values()) > self.peaks.disk:
            self.peaks.disk, self.peaks.parts = sum(parts.values()), parts

    def _disk(self) -> dict[str, int]:
        found: dict[tuple[int, int], tuple[str, int]] = {}  # each file once, by device and inode

        def count(part: str, path: Path | str) -> None:
            with contextlib.suppress(OSError):
                about = os.stat(path, follow_symlinks=part == "deleted")
                found.setdefault((about.st_dev, about.st_ino), (part, about.st_blocks * 512))

        for folder, _, names in os.walk(self._server.home):
            for name in names:
                count(Path(folder).name, os.path.join(folder, name))
        for link in Path(f"/proc/{self._server.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(link)
                if target.endswith(" (deleted)") and target.startswith(str(self._server.home)):
                    count("deleted", link)
        parts: dict[str, int] = defaultdict(int)
        for part, used in found.values():
            parts[part] += used
        return parts


__all__ = [name for name in dir() if not name.startswith("_")]
