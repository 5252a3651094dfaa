"""Row n7: node, worker and child are killed with -9, the SuperLink is restarted, the network fails;
the run must come to the very result of an undisturbed one, and nothing may be left over.

A disturbance waits for its moment, a fraction of the time that the rounds take undisturbed, and, if
it is to kill a child, for one that lives. What is started over may note its work twice; at the server nothing
shows twice, which the counts in the metrics tell.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.harness.federation import Federation, Node, Output, toy_expected, umbel_node
from tests.harness.proxy import Proxy
from tests.harness.servers import start_server, wait_until
from tests.soak.crash import CrashError, Undisturbed, kill_moments

ROUNDS = 5
TRAIN_SECONDS = 0.4
PAYLOADS_KB = (1, 200, 12_000)  # the last one's objects take several pieces on the way
CUT_BYTES = 100_000  # of a message: in the middle of an object, but for the smallest payload
STORM_SECONDS = (0.2, 4.0)
AT_ONCE = 5  # disturbances of a run
KILLS = ("node", "worker", "child")
NETWORK = ("503", "cut", "cut all", "stall")
HOSTS = ("worker", "worker", "resident", "stock")  # the first is what sites use


@dataclass(frozen=True)
class Disturbance:
    moment: float  # as a fraction of the undisturbed rounds
    what: str
    site: int
    seconds: float = 0.0  # for what lasts a while

    def __str__(self) -> str:
        return f"{self.what} of {self.site} at {self.moment:.2f}"


@dataclass
class Field:
    """A federation whose nodes reach the SuperLink through a proxy."""

    federation: Federation
    proxy: Proxy


@contextlib.contextmanager
def field(folder: Path, host: str) -> Iterator[Field]:
    """Two of our nodes; after it nothing is left of them."""
    with start_server("umbel", home=folder / "server") as server, Proxy(server.address) as proxy:
        options = {"node": umbel_node(host), "superlink": proxy.address}
        with Federation(server, folder / "federation", **options) as federation:
            yield Field(federation, proxy)
            federation.wait_gone(federation.serverapps(), 15)
            for node in federation.nodes:
                wait_until(f"{node.index} lets go of its files", lambda: not node.spools(), 10)


def draw(rng: random.Random, moments: Sequence[float], kinds: Sequence[str]) -> list[Disturbance]:
    """A plan, in the order of time."""
    return [
        Disturbance(moment, rng.choice(kinds), rng.randrange(2), rng.uniform(*STORM_SECONDS))
        for moment in sorted(moments)
    ]


def _start(federation: Federation, payload_kb: int) -> tuple[int, Output]:
    output = federation.output()
    config = {"num-server-rounds": ROUNDS, "payload-kb": payload_kb}
    config.update({"train-seconds": TRAIN_SECONDS, **output.config})
    return federation.start(config), output


def undisturbed(federation: Federation, payload_kb: int) -> Undisturbed:
    run_id, output = _start(federation, payload_kb)
    federation.wait_state(run_id, "finished:completed", 300)
    begin, *_ = output.notes("round closed")
    (end,) = output.notes("server ends")
    wanted = toy_expected(ROUNDS, len(federation.nodes), payload_kb=payload_kb)
    if output.digest() != wanted:
        raise CrashError(f"the undisturbed run has another model: {output.report()}")
    federation.wait_gone(federation.serverapps(), 15)
    return Undisturbed(end["time"] - begin["time"], output.result())


def disturbed(
    field: Field, payload_kb: int, plan: Sequence[Disturbance], reference: Undisturbed
) -> str:
    """One run with all of the plan. Returns a line about it; raises CrashError."""
    federation, done = field.federation, []
    run_id, output = _start(federation, payload_kb)
    try:
        output.wait_notes("round closed", 1)  # round 0: now the first begins
        begin = time.monotonic()
        for step in plan:
            time.sleep(max(0.0, begin + step.moment * reference.seconds - time.monotonic()))
            done.append(_disturb(field, step, output))
        federation.wait_status(run_id, "finished:completed", 3 * reference.seconds + 150)
        if not output.digest() == output.report()["sha256"] == reference.result["sha256"]:
            raise CrashError(f"another model: {output.report()}")
        if output.result() != reference.result:
            raise CrashError(f"{output.result()} is not {reference.result}")
        if len(output.notes("server begins")) != 1:
            raise CrashError("the ServerApp began more than once")
        federation.wait_gone(federation.serverapps(), 15)
        for node in federation.nodes:
            if not node.running:
                raise CrashError(f"node {node.index} ended:\n{node.child.log_text()}")
    except AssertionError as error:
        raise CrashError(
            f"run {run_id}, payload {payload_kb} KiB, after {'; '.join(done)}: {error}\n"
            f"{federation.evidence()}"
        ) from error
    return f"{'; '.join(done)}; done at {time.monotonic() - begin:.1f} s"


def _disturb(field: Field, step: Disturbance, output: Output) -> str:
    """Do it; a line about what was going on then."""
    node = field.federation.nodes[step.site]
    proxy, last = field.proxy, output.notes()[-1:]
    after = f"after {last[0]['what']!r}" if last else "at the beginning"
    if step.what == "node":
        node.kill9()
        node.start()
    elif step.what in ("worker", "child"):
        victim = _victim(node, step.what, output)
        if victim is None:
            return f"no {step.what} was left to kill"
    elif step.what == "superlink":
        field.federation.server.kill9()
        field.federation.server.start()
    elif step.what == "cut":
        proxy.cut(CUT_BYTES, times=3)
    elif step.what == "cut all":
        proxy.cut_all()
    else:
        (proxy.refuse if step.what == "503" else proxy.stall)()
        time.sleep(step.seconds)
        proxy.heal()
    return f"{step} ({after})"


def _victim(node: Node, what: str, output: Output) -> int | None:
    """Kills a child or a worker of the node as soon as one lives; None when the run is over."""

    def find():
        found = node.clientapps() if what == "child" else node.workers()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil refuses a pid that was reused
                return process.pid
        return -1 if output.notes("server ends") else None

    pid = wait_until(f"a {what} of node {node.index} lives", find, 60, 0.005)
    return None if pid == -1 else pid


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` kills at random moments, AT_ONCE to a run, and in each run the network fails or the
    SuperLink is killed as well; one host after another."""
    del kind  # ours, both
    rng, failures, killed, runs = random.Random(seed), [], 0, 0
    while killed < count:
        host = HOSTS[runs % len(HOSTS)]
        runs += 1
        payload_kb = rng.choice(PAYLOADS_KB)
        many = min(AT_ONCE, count - killed)
        plan = draw(rng, kill_moments(rng, many), KILLS)
        plan += draw(rng, kill_moments(rng, 2), (*NETWORK, "superlink"))
        plan.sort(key=lambda step: step.moment)
        killed += many
        try:
            with field(folder / f"run-{runs}", host) as place:
                reference = undisturbed(place.federation, payload_kb)
                line = disturbed(place, payload_kb, plan, reference)
            say(f"{killed}/{count} {host} {payload_kb} KiB: {line}; {dict(place.proxy.done)}")
        except Exception as error:  # whatever broke it, the other runs are still worth having
            failures.append(str(error).splitlines()[0])
            say(f"{killed}/{count} {host} FAILED (see {folder}/run-{runs}): {error}")
    if failures:
        raise CrashError(f"{len(failures)} of {runs} runs failed: {failures[0]}")
    return f"{count} kills and {2 * runs} other failures in {runs} runs, bits equal, nothing left"
