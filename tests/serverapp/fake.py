"""A Grid whose two nodes and whose SuperLink live in this process.

The nodes' arithmetic is that of the toy app. The SuperLink is a stock one, which knows nothing of
rounds, or one that runs them: it makes the strategy that the plan names, of Flower's own classes,
so that whatever the plan leaves out or gets wrong shows in the result.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from tests.harness.federation import toy_model

SEED = 1
SITES = {11: (0, 1), 12: (1, 3)}  # node id → site, weight
FIXED = "DifferentialPrivacyServerSideFixedClipping"
ADAPTIVE = "DifferentialPrivacyServerSideAdaptiveClipping"
STRATEGIES = ["FedAvg", "FedProx", "FedAdam", "FedTrimmedAvg", FIXED, ADAPTIVE]


def initial() -> ArrayRecord:
    return ArrayRecord({k: Array(v) for k, v in toy_model.initial(SEED, 1).items()})


class Clock:
    """In place of the module `time`: waiting takes no time."""

    def __init__(self):
        self.now, self.slept = 0.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        self.slept += seconds


class Site:
    """What a ClientApp answers."""

    def __init__(self, node: int):
        self.node = node
        self.site, self.weight = SITES[node]
        self.fails = False

    def answer(self, message: Message) -> Message:
        content = message.content
        server_round = content["config"]["server-round"]
        if self.fails:
            return Message(Error(2, "the app has failed"), reply_to=message)
        arrays = {k: a.numpy() for k, a in content["arrays"].items()}
        checksum = toy_model.checksum(arrays) * (1 + self.site)
        metrics = {"num-examples": self.weight, "checksum": checksum}
        metrics["mu"] = float(content["config"].get("proximal-mu", -1.0))
        metrics["lr"] = float(content["config"].get("lr", -1.0))
        reply = RecordDict({"metrics": MetricRecord(metrics)})
        if message.metadata.message_type == "train":
            new = toy_model.train(arrays, SEED, self.site, server_round)
            reply["arrays"] = ArrayRecord({k: Array(new[k]) for k in arrays})  # in order
        return Message(reply, reply_to=message)


class FakeGrid(Grid):
    """One run's Grid.

    superlink  answers what is sent to node 1; None: nothing ever does.
    """

    def __init__(self, superlink: Callable[[FakeGrid, Message], Message | None] | None):
        self.superlink = superlink
        self.sites = {node: Site(node) for node in SITES}
        self.sent: list[Message] = []  # to node 1
        self.trained = 0  # messages to nodes
        self._replies: dict[str, list[Message]] = defaultdict(list)
        self._numbers = itertools.count(1)

    def kinds(self) -> list[str]:
        """What was sent to node 1."""
        return [message.metadata.message_type for message in self.sent]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            name = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = name
            ids.append(name)
            if message.metadata.dst_node_id == 1:
                self.sent.append(message)
                reply = self.superlink(self, message) if self.superlink else None
            else:
                self.trained += 1
                reply = self.sites[message.metadata.dst_node_id].answer(message)
            if reply is not None:
                self._replies[name].append(reply)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for name in message_ids for reply in self._replies.pop(name, [])]

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(list(messages)))

    def get_node_ids(self) -> list[int]:
        return list(self.sites)

    def set_run(self, run) -> None: ...

    @property
    def run(self): ...

    def create_message(self, *_, **__): ...


def stock(_grid: FakeGrid, message: Message) -> Message:
    """Flower's SuperLink: it has no such node."""
    return Message(Error(5, "Node Unavailable"), reply_to=message)


def echo(_grid: FakeGrid, message: Message) -> Message:
    return Message(message.content, reply_to=message)


@dataclass
class Session:
    plan: ConfigRecord
    strategy: flower.Strategy
    arrays: ArrayRecord
    configs: dict[str, ConfigRecord]
    step: int = 0
    last: RecordDict | None = None
    history: dict[str, MetricRecord] = field(default_factory=dict)


class Native:
    """A SuperLink that runs rounds. `refuse` is a reason to refuse every plan."""

    def __init__(self, strategies: list[str] | None = STRATEGIES, refuse: str = ""):
        self.strategies, self.refuse = strategies, refuse
        self.sessions: dict[str, Session] = {}
        self.fail_at: int | None = None  # step
        self.end_at: int | None = None
        self.phases = 0  # run in all sessions

    def __call__(self, grid: FakeGrid, message: Message) -> Message:
        try:
            return Message(self._answer(grid, message), reply_to=message)
        except _Refusal as error:
            return Message(error.args[0], reply_to=message)

    def _answer(self, grid: FakeGrid, message: Message) -> RecordDict:
        kind, content = message.metadata.message_type, message.content
        if kind == "query.umbel_probe":
            assert not content
            told = ConfigRecord({"protocol": 1})
            if self.strategies is not None:
                told["strategies"] = self.strategies
            return RecordDict({"umbel": told})
        if kind == "query.umbel_start":
            if self.refuse:
                raise _Refusal(Error(6, self.refuse))
            name = f"session-{len(self.sessions) + 1}"
            session = self.sessions[name] = self._open(content)
            if session.plan["stepped"]:
                told = ConfigRecord({"session": name, "step": 0})
                return RecordDict({"session": told})
            for step in range(1, 2 * session.plan["num-rounds"] + 1):
                self._run(grid, session, step)
            return RecordDict({"arrays": session.arrays, **session.history})
        assert kind == "query.umbel_step"
        ask = content["step"]
        session = self.sessions[ask["session"]]
        if ask["step"] == session.step + 1:
            self._run(grid, session, ask["step"])
        if ask["step"] != session.step:
            raise _Refusal(Error(0, f"step {session.step} was the last"))
        answer = RecordDict(dict(session.last))
        if ask["arrays"]:
            answer["arrays"] = session.arrays
        return answer

    def _open(self, content: RecordDict) -> Session:
        assert set(content) == {"arrays", "plan", "train-config", "evaluate-config"}
        plan = content["plan"]
        values = {k[6:]: v for k, v in plan.items() if k.startswith("param.")}
        around = {k[14:]: v for k, v in plan.items() if k.startswith("wrapper.param.")}
        rest = {"strategy", "num-rounds", "timeout", "stepped"}
        rest |= {f"wrapper.param.{name}" for name in around} | ({"wrapper"} & set(plan))
        assert set(plan) == rest | {f"param.{name}" for name in values}
        assert type(plan["num-rounds"]) is int and type(plan["timeout"]) is float
        strategy = getattr(flower, plan["strategy"])(**values)
        if "wrapper" in plan:
            strategy = getattr(flower, plan["wrapper"])(strategy, **around)
        configs = {kind: content[f"{kind}-config"] for kind in ("train", "evaluate")}
        return Session(plan, strategy, content["arrays"], configs)

    def _run(self, grid: FakeGrid, session: Session, step: int) -> None:
        self.phases += 1
        if step == self.fail_at:
            raise _Refusal(Error(0, "the disk is full"))
        number, kind = (step + 1) // 2, "evaluate" if step % 2 == 0 else "train"
        strategy = session.strategy
        configure = getattr(strategy, f"configure_{kind}")
        messages = list(configure(number, session.arrays, session.configs[kind], grid))
        replies = grid.send_and_receive(messages)
        used = [reply for reply in replies if not reply.has_error()]
        records = {
            f"reply-{reply.metadata.src_node_id}": MetricRecord(dict(reply.content["metrics"]))
            for reply in used
        }
        if kind == "train":
            arrays, metrics = strategy.aggregate_train(number, replies)
            session.arrays = session.arrays if arrays is None else arrays
        else:
            metrics = strategy.aggregate_evaluate(number, replies)
        if metrics is not None:
            session.history[f"{kind}-{number}"] = metrics
        session.step = step
        ended = step in (2 * session.plan["num-rounds"], self.end_at)
        told = {"step": step, "round": number, "kind": kind, "skipped": not messages}
        told.update(failures=len(replies) - len(used), ended=ended)
        session.last = RecordDict(
            {"step": ConfigRecord(told), "metrics": metrics or MetricRecord(), **records}
        )


class _Refusal(Exception):
    pass
