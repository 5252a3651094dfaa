"""Row 10: the SuperLink is killed with -9 while it runs native rounds itself, and started again.

The nodes are ours and live on, and so does `umbel run --watch`. Each site works a time of its own,
drawn anew each round, so that replies come in another order every time; the spool is small, so that
every round is checkpointed. The final model must be the one that can be calculated, each site must
have done each piece of work once, each round must be told once, and nothing may be left over.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.harness.federation import Federation, toy_expected, toy_model, umbel_node
from tests.harness.servers import start_server, wait_until
from tests.soak.crash import CrashError, kill_moments

# Of the model: inline in the database, one object outside it, an array of several chunks.
PAYLOADS_KB = (1, 200, 6000)
SPOOL_MODELS = 1.5  # a third reply, or what is folded together, makes a checkpoint


@dataclass(frozen=True)
class Size:
    """How large the runs are."""

    nodes: int = 8
    rounds: int = 10
    kills: int = 5  # in one run
    train_seconds: float = 0.5  # the longest


EVERYDAY = Size(nodes=4, rounds=5, kills=3, train_seconds=0.4)
FULL = Size()


@dataclass
class Done:
    """What was seen of one run."""

    seconds: float = 0.0  # from its start to its end, the server's absence not counted
    kills: list[str] = field(default_factory=list)
    checkpoints: set[str] = field(default_factory=set)  # names of files
    digest: str = ""  # of the final model


@contextlib.contextmanager
def native_federation(folder: Path, size: Size) -> Iterator[Federation]:
    with start_server("umbel", home=folder / "server") as server:
        options = {"nodes": size.nodes, "node": umbel_node("worker")}
        with Federation(server, folder / "federation", **options) as federation:
            yield federation
            for node in federation.nodes:
                wait_until(f"{node.index} lets go of its files", lambda: not node.spools(), 10)


def _folder(federation: Federation, name: str) -> Path:
    """A folder of the SuperLink's state."""
    found = [path for path in federation.server.home.rglob(name) if path.is_dir()]
    if len(found) != 1:
        raise CrashError(f"{len(found)} folders named {name} in {federation.server.home}")
    return found[0]


@contextlib.contextmanager
def _watched(folder: Path, seen: set[str]) -> Iterator[None]:
    """Notes the names of all checkpoints that appear."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            seen.update(name for name in os.listdir(folder) if name.endswith(".sums"))

    thread = threading.Thread(target=look, name="checkpoints")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run_with_kills(
    federation: Federation,
    size: Size,
    payload_kb: int,
    shuffle: int,
    moments: Sequence[float] = (),
    undisturbed: float = 0.0,
    flags: Sequence[object] = (),
    wanted: str | None = None,
) -> Done:
    """One run, with a kill at each of `moments`: fractions of `undisturbed` seconds.

    flags   more of them for `umbel run`.
    wanted  sha256 of the final model; None: that of FedAvg, "": any.

    Kills whose moment comes after the end of the run do not happen. Raises CrashError if anything
    differs from what an undisturbed run leaves."""
    server, output, done = federation.server, federation.output(), Done()
    nodes = {node.index: node.child.pid for node in federation.nodes}
    out = output.stem.with_suffix(".trained.npz")
    config = {"train-seconds": size.train_seconds, "shuffle": shuffle}
    config.update({"trace": output.config["trace"]})
    pairs = " ".join(f"{k}={v!r}".replace("'", '"') for k, v in config.items())
    command = federation.umbel_run(
        toy_model.initial(1, payload_kb), "--rounds", size.rounds, "--watch", "--out", out,
        "--set", f"min_available_nodes={size.nodes}", "--set", f"min_train_nodes={size.nodes}",
        "--set", f"min_evaluate_nodes={size.nodes}", "--min-train-replies", size.nodes,
        "--spool-models", SPOOL_MODELS, "--run-config", pairs, *flags,
    )  # fmt: skip
    run_id = command.wait_run_id()
    alive = time.monotonic()
    before = 0.0
    with _watched(_folder(federation, "rounds"), done.checkpoints):
        for moment in sorted(moments):
            time.sleep(max(0.0, alive + (moment - before) * undisturbed - time.monotonic()))
            before = moment
            if not command.running:
                break
            server.kill9()
            done.seconds += time.monotonic() - alive
            done.kills.append(f"{moment:.2f} ({_last(output.notes())})")
            server.start()
            alive = time.monotonic()
        ended = command.result(3 * undisturbed + 120)
    done.seconds += time.monotonic() - alive
    try:
        _check(ended.exit_code == 0, f"umbel run ended with {ended.exit_code}:\n{ended.output}")
        done.digest = _digest(out)
        if wanted is None:
            wanted = toy_expected(size.rounds, size.nodes, payload_kb=payload_kb)
        _check(done.digest == wanted or not wanted, f"another model: {done.digest}, not {wanted}")
        _check_told(ended.output, size)
        _check_work(output.notes(), size)
        federation.wait_status(run_id, "finished:completed")
        _check_nothing_left(federation, run_id)
        now = {node.index: node.child.pid for node in federation.nodes if node.running}
        _check(now == nodes, "a SuperNode ended")
    except AssertionError as error:
        raise CrashError(
            f"run {run_id}, {payload_kb} KiB, shuffle {shuffle}, killed at {done.kills}: {error}"
        ) from error
    return done


def _last(notes: Sequence[dict]) -> str:
    if not notes:
        return "start"
    return " ".join(str(notes[-1][key]) for key in ("what", "site", "round") if key in notes[-1])


def _check(condition: bool, text: str) -> None:
    if not condition:
        raise CrashError(text)


def _digest(path: Path) -> str:
    with np.load(path) as arrays:
        return toy_model.digest({name: arrays[name] for name in arrays.files})


def _check_told(shown: str, size: Size) -> None:
    """Every phase of every round once, in order, with every node."""
    told = re.findall(r"^round (\d+)/\d+ +(\w+) +(\d+)/(\d+) nodes", shown, re.M)
    count = str(size.nodes)
    wanted = [
        (str(number), kind, count, count)
        for number in range(1, size.rounds + 1)
        for kind in ("train", "evaluate")
    ]
    _check(told == wanted, f"the rounds are told as\n{shown}")
    _check(len(re.findall(r"^completed$", shown, re.M)) == 1, f"the end is told as\n{shown}")


def _check_work(notes: Sequence[dict], size: Size) -> None:
    work = Counter((note["what"], note["site"], note["round"]) for note in notes)
    twice = {piece: times for piece, times in work.items() if times != 1}
    _check(not twice, f"done more than once: {twice}")
    pieces = 2 * 2 * size.nodes * size.rounds  # begin and end of train and evaluate
    _check(len(work) == pieces, f"{len(work)} of {pieces} pieces of work")


def _check_nothing_left(federation: Federation, run_id: int) -> None:
    rounds = _folder(federation, "rounds")
    wait_until("no checkpoint is left", lambda: not os.listdir(rounds), 10)
    found = federation.server.home.rglob(f"*{run_id}*")
    objects = [path for path in found if "models" not in str(path)]
    wait_until(
        f"nothing of run {run_id} is left: {objects}",
        lambda: not any(path.exists() for path in objects),
        10,
    )


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` kills, several in each run."""
    rng, kills, runs, checkpoints, failures = random.Random(seed), 0, 0, 0, []
    seconds: dict[int, float] = {}
    part = 0
    while kills < count:
        part += 1
        try:
            with native_federation(folder / f"part-{part}", FULL) as federation:
                while kills < count:
                    payload_kb, shuffle = rng.choice(PAYLOADS_KB), rng.randrange(1, 1 << 30)
                    if payload_kb not in seconds:
                        first = run_with_kills(federation, FULL, payload_kb, shuffle)
                        seconds[payload_kb] = first.seconds
                        say(f"undisturbed, {payload_kb} KiB: {first.seconds:.1f} s")
                    moments = kill_moments(rng, FULL.kills)
                    done = run_with_kills(
                        federation, FULL, payload_kb, shuffle, moments, seconds[payload_kb]
                    )
                    kills, runs = kills + len(done.kills), runs + 1
                    checkpoints += len(done.checkpoints)
                    say(
                        f"{kills}/{count}, {payload_kb} KiB: {'; '.join(done.kills)}; "
                        f"{len(done.checkpoints)} checkpoints, {done.seconds:.1f} s"
                    )
        except Exception as error:  # whatever broke it, the other runs are still worth having
            kills += FULL.kills
            failures.append(str(error).splitlines()[0])
            say(f"{kills}/{count} FAILED (see {folder}/part-{part}): {error}")
    if failures:
        raise CrashError(f"{len(failures)} runs failed: {failures[0]}")
    _check(checkpoints > 0, "there never was a checkpoint")
    return f"{kills} kills in {runs} runs, bits equal, {checkpoints} checkpoints, nothing left"
