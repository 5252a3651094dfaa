"""Row 4: the SuperLink is killed with -9 while a run goes on, and started again.

The SuperNodes and the ServerApp are stock programs that live on; the run must complete with the
very result of an undisturbed one, each site having done each piece of work exactly once.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness.federation import Federation, Output, toy_expected
from tests.harness.servers import make_certs, start_server

ROUNDS = 5
TRAIN_SECONDS = 0.5
# Of the model: inline in the database, one object outside it, an array of several chunks.
PAYLOADS_KB = (1, 200, 6000)
OUTAGE_SECONDS = 180.0


class CrashError(AssertionError):
    """A run that did not survive as it should."""


@dataclass(frozen=True)
class Undisturbed:
    seconds: float  # from start-run to the finished state
    result: dict  # model and metrics of all rounds


@contextlib.contextmanager
def crash_federation(kind: str, folder: Path, tls: bool = False) -> Iterator[Federation]:
    """Two SuperNodes around a SuperLink that may be killed; with `tls`, keys and node auth."""
    certs = make_certs(folder / "certs") if tls else None
    with start_server(kind, tls=certs, node_auth=tls, home=folder / "server") as server:
        with Federation(server, folder / "federation", keys=tls) as federation:
            yield federation


def kill_moments(rng: random.Random, count: int) -> list[float]:
    """`count` fractions of a run, uniform, one in each of `count` equal parts, in any order."""
    moments = [(part + rng.random()) / count for part in range(count)]
    rng.shuffle(moments)
    return moments


def _start(federation: Federation, payload_kb: int) -> tuple[int, Output, float]:
    output = federation.output()
    config = {
        "num-server-rounds": ROUNDS,
        "payload-kb": payload_kb,
        "train-seconds": TRAIN_SECONDS,
        **output.config,
    }
    return federation.start(config), output, time.monotonic()


def undisturbed(federation: Federation, payload_kb: int) -> Undisturbed:
    """A run that nobody disturbs: its length, and the result all others must have."""
    run_id, output, begin = _start(federation, payload_kb)
    federation.wait_state(run_id, "finished:completed", 600)
    seconds = time.monotonic() - begin
    _check_result(federation, output, payload_kb, None)
    federation.wait_gone(federation.serverapps(), 15)
    return Undisturbed(seconds, output.result())


def killed(
    federation: Federation,
    payload_kb: int,
    moment: float,
    reference: Undisturbed,
    outage: float = 0.0,
) -> str:
    """One run with one kill at `moment` (a fraction of the undisturbed run's length).

    Returns a line about what went on at that moment; raises CrashError if anything differs."""
    server = federation.server
    nodes = {node.index: node.child.pid for node in federation.nodes}
    online = federation.online()
    run_id, output, begin = _start(federation, payload_kb)
    time.sleep(max(0.0, begin + moment * reference.seconds - time.monotonic()))
    server.kill9()
    at, last = time.monotonic() - begin, output.notes()[-1:]
    apps = [app.pid for app in federation.serverapps()]
    if output.notes("server ends") and not apps:
        server.start()
        raise Missed(f"the run was over before {at:.1f} s")
    time.sleep(outage)
    server.start()
    try:
        limit = 3 * reference.seconds + 120
        federation.wait_status(run_id, "finished:completed", limit)
        _check_result(federation, output, payload_kb, reference)
        _check_log(federation, run_id)
    except AssertionError as error:
        raise CrashError(
            f"run {run_id}, killed at {at:.2f} s of {reference.seconds:.2f} s, "
            f"payload {payload_kb} KiB, last seen {last}: {error}"
        ) from error
    _check(federation.wait_online(len(nodes)) == online, "the nodes have other ids")
    _check(
        {node.index: node.child.pid for node in federation.nodes if node.running} == nodes,
        "a SuperNode ended",
    )
    federation.wait_gone(federation.serverapps(), 15)
    seconds = time.monotonic() - begin
    return f"at {at:5.1f} s (after {_name(last)!r}), done at {seconds:5.1f} s"


def _name(notes: list[dict]) -> str:
    """The last thing an app noted before the kill."""
    if not notes:
        return "start-run"
    return " ".join(str(notes[0][key]) for key in ("what", "round") if key in notes[0])


class Missed(Exception):
    """The run was over before the kill: draw again."""


def _check(condition: bool, text: str) -> None:
    if not condition:
        raise CrashError(text)


def _check_result(
    federation: Federation, output: Output, payload_kb: int, reference: Undisturbed | None
) -> None:
    result, count = output.result(), len(federation.nodes)
    wanted = toy_expected(ROUNDS, count, payload_kb=payload_kb)
    _check(output.digest() == result["sha256"] == wanted, f"another model: {result}")
    if reference:
        _check(result == reference.result, f"{result} is not {reference.result}")
    (app, *more) = output.notes("server begins")
    _check(not more, f"the ServerApp began {1 + len(more)} times")
    _check(app["pid"] == output.report()["pid"], "another ServerApp finished the run")
    done = Counter(
        (note["what"], note["site"], note["round"]) for note in output.notes() if "site" in note
    )
    pieces = 2 * 2 * count * ROUNDS  # begin and end of train and evaluate
    _check(len(done) == pieces, f"{len(done)} of {pieces} pieces of work: {done}")
    twice = {piece: times for piece, times in done.items() if times != 1}
    _check(not twice, f"done more than once: {twice}")


def _check_log(federation: Federation, run_id: int) -> None:
    """The run's log has every round once, although the server was away for a while."""
    log = federation.log(run_id).output
    marks = [f"[ROUND {n}/{ROUNDS}]" for n in range(1, ROUNDS + 1)] + ["Final results:"]
    counts = {mark: log.count(mark) for mark in marks}
    _check(set(counts.values()) == {1}, f"the log of the run shows {counts}")


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` killed runs, half of them over TLS with node keys, then one long outage."""
    rng, failures, done = random.Random(seed), [], 0
    moments = kill_moments(rng, count)
    plan = [(moment, rng.choice(PAYLOADS_KB), 0.0) for moment in moments]
    plan.append((rng.uniform(0.2, 0.8), rng.choice(PAYLOADS_KB), OUTAGE_SECONDS))
    half = count - count // 2
    batches = [(False, plan[:half]), (True, plan[half:])]
    part = 0
    for tls, todo in batches:
        while todo:
            part += 1
            try:
                with crash_federation(kind, folder / f"part-{part}", tls) as federation:
                    references: dict[int, Undisturbed] = {}
                    while todo:
                        moment, payload_kb, outage = todo[0]
                        if payload_kb not in references:
                            references[payload_kb] = undisturbed(federation, payload_kb)
                            seconds = references[payload_kb].seconds
                            say(f"undisturbed, {payload_kb} KiB: {seconds:.1f} s")
                        try:
                            line = killed(
                                federation, payload_kb, moment, references[payload_kb], outage
                            )
                        except Missed as missed:
                            say(f"again: {missed}")
                            todo[0] = (moment * 0.9, payload_kb, outage)
                            continue
                        todo.pop(0)
                        done += 1
                        long = f", {outage:g} s away" if outage else ""
                        say(
                            f"{done}/{len(plan)} {'tls' if tls else 'plain'} {payload_kb} KiB"
                            f"{long}: {line}"
                        )
            except Exception as error:  # whatever broke it, the other runs are still worth having
                done += 1
                failures.append(str(error).splitlines()[0])
                say(f"{done}/{len(plan)} FAILED (see {folder}/part-{part}): {error}")
                if todo:
                    todo.pop(0)  # go on with a fresh federation
    if failures:
        raise CrashError(f"{len(failures)} of {len(plan)} failed: {failures[0]}")
    return f"{count} killed runs and one outage of {OUTAGE_SECONDS:g} s completed, bits equal"
