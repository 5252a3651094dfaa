"""Rounds in the SuperLink: what is sent, what comes back, what goes wrong."""

from __future__ import annotations

import inspect
import random

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

import umbel.serverapp as ours
from tests.serverapp.fake import ADAPTIVE, FIXED, FakeGrid, Native, echo, initial, stock

pytestmark = pytest.mark.usefixtures("clock")
MADE_WITH = {
    "FedAvg": {"fraction_evaluate": 0.5, "min_evaluate_nodes": 1},
    "FedProx": {"proximal_mu": 0.25},
    "FedAdam": {"eta": 0.5, "tau": np.float32(0.125), "beta_1": 0.5},
    "FedTrimmedAvg": {"beta": 0.25, "min_available_nodes": np.int64(2)},
}
WRAPPED_IN = {  # the strategy inside, and the wrapper's own
    FIXED: ("FedAdam", {"noise_multiplier": 0, "clipping_norm": 20.0, "num_sampled_clients": 2}),
    ADAPTIVE: ("FedAvg", {"noise_multiplier": 0.0, "num_sampled_clients": 2,
                          "initial_clipping_norm": 0.5, "clip_norm_lr": 0.75}),
}  # fmt: skip
ROUNDS = 3


def plain(result: flower.Result) -> dict:
    """A Result in values that compare."""
    rounds = {
        name: {number: dict(metrics) for number, metrics in getattr(result, name).items()}
        for name in vars(result)
        if name != "arrays"
    }
    return {"arrays": {k: a.numpy().tolist() for k, a in result.arrays.items()}, **rounds}


def run(module, name, superlink, own=False, here=False, **options):
    """The result of one `start()` and its grid."""
    random.seed(5)  # Flower draws the nodes with it
    grid = FakeGrid(superlink)

    def aggregate(replies: list[RecordDict], weight: str) -> MetricRecord:
        records = [reply["metrics"] for reply in replies]
        heaviest = max(records, key=lambda metrics: metrics[weight])
        return MetricRecord({"replies": len(records), "checksum": heaviest["checksum"]})

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round == 1:
            return None
        return MetricRecord({"mean": float(arrays["weights"].numpy().mean()), "at": server_round})

    inner, around = WRAPPED_IN.get(name, (name, {}))
    values = dict(MADE_WITH[inner])
    if own:
        values["train_metrics_aggr_fn"] = aggregate
    strategy = getattr(module, inner)(**values)
    if around:
        strategy = getattr(module, name)(strategy, **around)
    result = strategy.start(
        grid, initial(), ROUNDS, evaluate_fn=evaluate if here else None, **options
    )
    return plain(result), grid


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", sorted(MADE_WITH) + sorted(WRAPPED_IN))
def test_the_result_is_that_of_flower_s_class(name, own, here):
    options = {"train_config": ConfigRecord({"lr": 0.5}), "own": own, "here": here}
    expected, _ = run(flower, name, stock, **options)
    options["train_config"] = ConfigRecord({"lr": 0.5})
    found, grid = run(ours, name, Native(), **options)
    assert found == expected
    steps = 2 * ROUNDS if own or here else 0
    assert grid.kinds() == ["query.umbel_probe", "query.umbel_start"] + steps * ["query.umbel_step"]


def test_arrays_come_only_for_a_function_that_wants_them():
    def asked(**options):
        _, grid = run(ours, "FedAvg", Native(), **options)
        steps = [m.content["step"]["arrays"] for m in grid.sent if "step" in m.content]
        return [number for number, arrays in enumerate(steps, start=1) if arrays]

    assert asked(own=True) == [2 * ROUNDS]
    assert asked(here=True) == [2, 4, 6]


def test_a_message_outlives_what_it_covers():
    _, grid = run(ours, "FedAvg", Native(), timeout=100_000)
    assert grid.sent[1].metadata.ttl >= ROUNDS * 2 * 100_000 + 3600
    _, grid = run(ours, "FedAvg", Native(), timeout=100_000, here=True)
    assert all(m.metadata.ttl >= 100_000 + 3600 for m in grid.sent[1:])


@pytest.mark.parametrize("superlink", [stock, Native()], ids=["python", "native"])
def test_without_a_usable_reply_the_result_has_no_arrays(superlink):
    grid = FakeGrid(superlink)
    for site in grid.sites.values():
        site.fails = True
    assert plain(ours.FedAvg().start(grid, initial(), 2)) == plain(flower.Result())
    evaluated = ours.FedAvg().start(grid, initial(), 1, evaluate_fn=lambda *_: None)
    assert plain(evaluated) == plain(flower.Result())


def test_a_phase_that_is_skipped():
    def result(module, superlink):
        strategy = module.FedAvg(fraction_evaluate=0.0)
        found = strategy.start(
            FakeGrid(superlink), initial(), 2, evaluate_fn=lambda n, _: MetricRecord({"n": n})
        )
        return plain(found)

    assert result(ours, Native()) == result(flower, stock)


def test_a_session_that_ends_before_its_last_round_gives_its_arrays():
    superlink = Native()
    superlink.end_at = 3
    grid = FakeGrid(superlink)
    aggregate = flower.FedAvg().train_metrics_aggr_fn
    strategy = ours.FedAvg(train_metrics_aggr_fn=lambda *args: aggregate(*args))
    result = strategy.start(grid, initial(), 3)
    assert list(result.train_metrics_clientapp) == [1, 2] and superlink.phases == 3
    expected = flower.FedAvg().start(FakeGrid(stock), initial(), 2).arrays
    assert result.arrays == expected


# ---- answers that are lost, late, repeated or wrong ------------------------------------------


class Unreliable(FakeGrid):
    """Answers come after a few pulls, each twice, beside one that nobody has asked for; of each
    message the first `lost` pulls find the reply unavailable."""

    def __init__(self, superlink, lost=0):
        super().__init__(superlink)
        self.lost = lost
        self._pulls: dict[str, int] = {}
        self._kept: dict[str, list[Message]] = {}

    def pull_messages(self, message_ids):
        if not any(m.metadata.message_id in message_ids for m in self.sent):
            return super().pull_messages(message_ids)  # of nodes
        (name,) = message_ids
        pulls = self._pulls[name] = self._pulls.get(name, 0) + 1
        if pulls < 3:
            return []
        replies = self._kept.setdefault(name, super().pull_messages([name]))
        if pulls < 3 + self.lost:
            instruction = next(m for m in self.sent if m.metadata.message_id == name)
            return [Message(Error(3, "objects are unavailable"), reply_to=instruction)]
        foreign = Message(RecordDict({"step": ConfigRecord()}), 1, "query.umbel_step")
        foreign.metadata.__dict__["_message_id"] = "of another"
        return [Message(Error(0, "not yours"), reply_to=foreign), *replies, *replies]


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("lost", [0, 2])
def test_late_lost_and_repeated_answers_do_not_show(lost, here, monkeypatch):
    expected, _ = run(ours, "FedAvg", Native(), here=here)
    superlink = Native()
    monkeypatch.setitem(globals(), "FakeGrid", lambda link: Unreliable(link, lost))
    found, _ = run(ours, "FedAvg", superlink, here=here)
    assert found == expected
    assert superlink.phases == 2 * ROUNDS and len(superlink.sessions) == 1


def test_a_step_is_asked_again_after_silence_and_loss(clock):
    """The server has done the step; the answer to its first two messages never comes."""
    superlink = Native()
    answered: dict[int, int] = {}

    def forgetful(grid, message):
        reply = superlink(grid, message)
        if message.metadata.message_type != "query.umbel_step":
            return reply
        step = message.content["step"]["step"]
        answered[step] = answered.get(step, 0) + 1
        return None if answered[step] <= 2 else reply

    expected, _ = run(ours, "FedAvg", Native(), here=True)
    found, _ = run(ours, "FedAvg", forgetful, here=True, timeout=50.0)
    assert found == expected
    assert set(answered.values()) == {3} and superlink.phases == 2 * ROUNDS


class Losing(FakeGrid):
    """The answers to the first `messages` messages for each step can never be had."""

    def __init__(self, messages):
        super().__init__(Native())
        self.messages = messages

    def pull_messages(self, message_ids):
        steps = [m for m in self.sent if m.metadata.message_type == "query.umbel_step"]
        for message in steps:
            if message.metadata.message_id in message_ids:
                number = message.content["step"]["step"]
                same = [m for m in steps if m.content["step"]["step"] == number]
                if same.index(message) < self.messages:
                    return [Message(Error(4, "objects are unavailable"), reply_to=message)]
        return super().pull_messages(message_ids)


def test_a_step_whose_answer_is_lost_is_asked_again():
    grid = Losing(2)
    ours.FedAvg().start(grid, initial(), 2, evaluate_fn=lambda *_: None)
    assert grid.superlink.phases == 4 and len(grid.sent) == 2 + 3 * 4


def test_a_step_that_stays_lost_is_an_error():
    with pytest.raises(RuntimeError, match="objects are unavailable"):
        ours.FedAvg().start(Losing(3), initial(), 2, evaluate_fn=lambda *_: None)


@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("step", [1, 4])
def test_an_error_half_way_ends_the_run_with_its_reason(step, here):
    superlink = Native()
    superlink.fail_at = step
    with pytest.raises(RuntimeError, match="the disk is full"):
        run(ours, "FedAvg", superlink, here=here)


def test_a_start_that_is_never_answered_ends_the_run(clock):
    superlink = Native()

    def silent(grid, message):
        if message.metadata.message_type == "query.umbel_start":
            return None
        return superlink(grid, message)

    with pytest.raises(RuntimeError, match="does not answer"):
        run(ours, "FedAvg", silent)
    assert clock.now > 2 * ROUNDS * 3600


@pytest.mark.parametrize("wrong", [{"step": 9}, {"round": 2}, {"kind": "evaluate"}])
def test_an_answer_to_another_question_is_an_error(wrong):
    superlink = Native()

    def confused(grid, message):
        reply = superlink(grid, message)
        if message.metadata.message_type == "query.umbel_step":
            reply.content["step"].update(wrong)
        return reply

    with pytest.raises(RuntimeError, match="tells of step"):
        run(ours, "FedAvg", confused, here=True)


def test_a_start_that_is_echoed_is_an_error():
    superlink = Native()

    def half(grid, message):
        probe = message.metadata.message_type == "query.umbel_probe"
        return superlink(grid, message) if probe else echo(grid, message)

    with pytest.raises(RuntimeError, match="session"):
        run(ours, "FedAvg", half, here=True)


def test_an_exception_of_evaluate_fn_is_the_app_s():
    def broken(server_round, _arrays):
        if server_round == 1:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ours.FedAvg().start(FakeGrid(Native()), initial(), 2, evaluate_fn=broken)


# ---- the classes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ours.__all__)
def test_each_class_is_flower_s_with_its_signatures(name):
    cls, base = getattr(ours, name), getattr(flower, name)
    assert issubclass(cls, base) and cls.__name__ == name
    assert inspect.signature(cls) == inspect.signature(base)
    found, expected = (inspect.signature(one.start).parameters for one in (cls, base))
    assert [(p.name, p.default, p.kind) for p in found.values()] == [
        (p.name, p.default, p.kind) for p in expected.values()
    ]


def test_a_wrapper_says_what_it_wraps(said):
    run(ours, FIXED, Native())
    assert said(f"Starting {FIXED} around FedAdam strategy") == 1
    assert not said("Rounds run in Python")


def test_it_logs_what_a_user_of_flower_looks_for(said):
    run(ours, "FedAvg", Native())
    for text in ("Starting FedAvg", "[ROUND 2/3]", "Aggregated MetricRecord", "Final results"):
        assert said(text), text
    assert not said("Rounds run in Python")


def test_a_model_of_other_arrays_passes_through():
    arrays = [np.ones((2, 3), np.float16), np.asarray(2.5), np.zeros((0, 4))]
    record = ArrayRecord({str(i): Array(array) for i, array in enumerate(arrays)})
    grid = FakeGrid(Native())
    for site in grid.sites.values():
        site.fails = True
    seen = []
    ours.FedAvg().start(grid, record, 1, evaluate_fn=lambda _, arrays: seen.append(arrays))
    assert seen == [record, record]
