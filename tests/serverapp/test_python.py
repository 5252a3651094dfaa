"""When the rounds run in Python, as Flower's own class runs them: and what was sent before."""

from __future__ import annotations

import contextlib
import random

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

import umbel.serverapp as ours
from tests.serverapp.fake import FakeGrid, Native, echo, initial, stock
from tests.serverapp.test_native import plain

pytestmark = pytest.mark.usefixtures("clock")


def check_python(strategy, superlink, said, why, sent, plain_class=None, **options):
    """It runs in Python with one line that says so, and comes to what Flower's class does."""
    random.seed(5)
    expected = (plain_class or flower.FedAvg)().start(FakeGrid(stock), initial(), 2)
    grid = FakeGrid(superlink)
    random.seed(5)
    result = strategy.start(grid, initial(), 2, **options)
    assert plain(result) == plain(expected)
    assert grid.kinds() == sent
    assert said("Rounds run in Python") == 1
    assert said(why) == 1, why


PROBE = ["query.umbel_probe"]


def answering(records: dict) -> object:
    return lambda _grid, message: Message(RecordDict(records), reply_to=message)


@pytest.mark.parametrize(
    "superlink, why",
    [
        (stock, "Node Unavailable"),
        (echo, "does not know the question"),
        (None, "does not answer"),
        (answering({"umbel": ConfigRecord({"protocol": 0})}), "does not know the question"),
        (answering({"umbel": ConfigRecord({"protocol": "1"})}), "does not know the question"),
        (answering({"umbel": ConfigRecord({"protocol": True})}), "does not know the question"),
        (answering({"umbel": MetricRecord({"protocol": 1})}), "does not know the question"),
        (answering({"other": ConfigRecord({"protocol": 1})}), "does not know the question"),
        (Native(strategies=["FedProx"]), "runs no FedAvg itself"),
        (Native(strategies=[]), "runs no FedAvg itself"),
    ],
)
def test_another_superlink(superlink, why, said):
    check_python(ours.FedAvg(), superlink, said, why, PROBE)


def test_silence_is_waited_for_a_few_seconds(clock):
    ours.FedAvg().start(FakeGrid(None), initial(), 1)
    assert 5 <= clock.slept <= 15


def test_a_grid_that_raises(said):
    class Broken(FakeGrid):
        def push_messages(self, messages):
            if messages[0].metadata.dst_node_id == 1:
                raise ConnectionError("HTTP 400")
            return super().push_messages(messages)

    ours.FedAvg().start(Broken(stock), initial(), 1)
    assert said("Rounds run in Python: this SuperLink runs none itself (HTTP 400)") == 1


@pytest.mark.parametrize("ids", [[], [None], [""]])
def test_a_grid_that_takes_no_message(ids, said):
    class Refusing(FakeGrid):
        def push_messages(self, messages):
            messages = list(messages)
            return ids if messages[0].metadata.dst_node_id == 1 else super().push_messages(messages)

    ours.FedAvg().start(Refusing(stock), initial(), 1)
    assert said("it takes no message") == 1


@pytest.mark.parametrize("here", [False, True])
def test_arrays_that_the_grid_cannot_send(here, said):
    """Too many bytes for one request, perhaps."""

    class Narrow(FakeGrid):
        def push_messages(self, messages):
            messages = list(messages)
            start = messages[0].metadata.message_type == "query.umbel_start"
            return [] if start else super().push_messages(messages)

    evaluate = (lambda *_: None) if here else None
    result = ours.FedAvg().start(Narrow(Native()), initial(), 1, evaluate_fn=evaluate)
    assert result.train_metrics_clientapp and said("Rounds run in Python") == 1


@pytest.mark.parametrize("here", [False, True])
def test_a_plan_that_is_refused_before_any_round(here, said):
    """`evaluate_fn` is not called for round 0 twice."""
    seen = []

    def evaluate(server_round, _arrays):
        seen.append(server_round)

    superlink = Native(strategies=None, refuse="arrays of complex numbers")
    options = {"evaluate_fn": evaluate} if here else {}
    sent = [*PROBE, "query.umbel_start"]
    check_python(ours.FedAvg(), superlink, said, "arrays of complex numbers", sent, **options)
    assert seen == ([0, 1, 2] if here else [])


@pytest.mark.parametrize("timeout", [None, 0, -1.0, float("inf"), float("nan")])
def test_a_timeout_that_only_python_knows(timeout, said):
    check_python(ours.FedAvg(), Native(), said, "a timeout of", [], timeout=timeout)


def test_no_round_at_all():
    grid = FakeGrid(Native())
    assert plain(ours.FedAvg().start(grid, initial(), 0)) == plain(flower.Result())
    assert not grid.sent


# ---- strategies that are not Flower's any more -------------------------------------------------


class Told:
    """Does nothing but be told."""

    def configure_train(self, server_round, arrays, config, grid):
        return super().configure_train(server_round, arrays, config, grid)


class BeforeOurs(Told, ours.FedAvg):
    pass


class _FlowerTold(Told, flower.FedAvg):
    pass


class AfterOurs(ours.FedAvg, _FlowerTold):
    pass


def overriding(name):
    """A subclass whose method of that name only calls the one it overrides."""

    def method(self, *args, **kwargs):
        return getattr(super(cls, self), name)(*args, **kwargs)

    cls = type("Mine", (ours.FedAvg,), {name: method})
    return cls


@pytest.mark.parametrize(
    "name",
    ["start", "summary", "configure_train", "configure_evaluate", "aggregate_train",
     "aggregate_evaluate", "_check_and_log_replies", "_construct_messages"],
)  # fmt: skip
def test_a_subclass_that_overrides(name, said):
    check_python(overriding(name)(), Native(), said, f"Mine overrides {name}", [])


@pytest.mark.parametrize("cls", [BeforeOurs, AfterOurs])
def test_a_mixin_that_overrides(cls, said):
    check_python(cls(), Native(), said, "overrides configure_train", [])


def test_a_subclass_of_such_a_subclass(said):
    cls = type("Grandchild", (overriding("aggregate_train"),), {})
    check_python(cls(), Native(), said, "Mine overrides aggregate_train", [])


def test_a_subclass_that_answers_for_missing_attributes(said):
    cls = type("Mine", (ours.FedAvg,), {"__getattr__": lambda self, name: 1})
    check_python(cls(), Native(), said, "Mine overrides __getattr__", [])


def test_a_patched_object(said):
    strategy = ours.FedAvg()
    strategy.aggregate_train = strategy.aggregate_train
    check_python(strategy, Native(), said, "has a aggregate_train of its own", [])


@pytest.mark.parametrize("cls", [ours.FedAvg, flower.FedAvg, flower.Strategy])
def test_a_patched_class(cls, said, monkeypatch):
    original = flower.FedAvg.configure_train

    def patched(self, *args):
        return original(self, *args)

    monkeypatch.setattr(cls, "configure_train", patched)
    check_python(ours.FedAvg(), Native(), said, "configure_train was patched", [])


def test_a_state_that_is_not_that_of_the_beginning(said):
    strategy = ours.FedAdam()
    strategy.v_t = {}
    check_python(strategy, Native(), said, "v_t is not what", [], flower.FedAdam)


def test_a_strategy_that_has_been_at_work_in_python(said):
    """Its moments go on, as Flower's do."""
    both = []
    for module in (ours, flower):
        strategy = module.FedAdam()
        strategy.start(FakeGrid(stock), initial(), 1)
        grid = FakeGrid(Native())
        both.append(plain(strategy.start(grid, initial(), 1)))
        assert not grid.sent
    assert both[0] == both[1]
    assert said("is not what its parameters make it") == 1


def test_attributes_that_flower_would_refuse(said):
    strategy = ours.FedTrimmedAvg()
    strategy.beta = 0.7
    with pytest.raises(Exception, match="[Bb]eta|range|cut"):
        strategy.start(FakeGrid(Native()), initial(), 1)
    assert said("Rounds run in Python: Flower refuses the strategy's attributes") == 1


def test_a_rule_that_is_a_function(said):
    strategy = ours.Bulyan(selection_rule=lambda contents, *_: contents)
    strategy.start(FakeGrid(Native(strategies=None)), initial(), 1)
    assert said("Rounds run in Python: the strategy's selection_rule") == 1


def fixed(strategy, **more):
    return ours.DifferentialPrivacyServerSideFixedClipping(strategy, 0.1, 1.0, 2, **more)


def check_refused(strategy, said, why):
    grid = FakeGrid(Native(strategies=None))
    strategy.start(grid, initial(), 1)
    assert not grid.sent and said(f"Rounds run in Python: {why}") == 1


def test_a_wrapper_around_a_class_of_flower_s(said):
    check_refused(fixed(flower.FedAvg()), said, "it wraps a FedAvg, not one of umbel.serverapp")


def test_a_wrapper_around_a_wrapper(said):
    check_refused(fixed(fixed(ours.FedAvg())), said, "it wraps a wrapper")


def test_a_wrapper_around_a_subclass_that_overrides(said):
    check_refused(fixed(overriding("aggregate_train")()), said, "Mine overrides aggregate_train")


def test_a_wrapper_with_an_accountant(said):
    strategy = fixed(ours.FedAvg())
    strategy.accountant = object()
    with contextlib.suppress(AttributeError):  # of an object that is none
        strategy.start(FakeGrid(Native(strategies=None)), initial(), 1)
    assert said("Rounds run in Python: the strategy's accountant is not what its") == 1


def test_a_superlink_without_the_wrapper(said):
    grid = FakeGrid(Native(strategies=["FedAvg"]))
    fixed(ours.FedAvg()).start(grid, initial(), 1)
    assert grid.kinds() == PROBE
    assert said("runs no DifferentialPrivacyServerSideFixedClipping itself") == 1


# ---- strategies that still are -------------------------------------------------------------------


def plan_of(strategy) -> dict:
    grid = FakeGrid(Native(strategies=None))
    strategy.start(grid, initial(), 1)
    return dict(grid.sent[1].content["plan"])


def test_what_a_wrapper_was_made_with():
    """It keeps some of it as something else."""
    around = {"noise_multiplier": 0.75, "num_sampled_clients": 20, "initial_clipping_norm": 0.25}
    strategy = ours.DifferentialPrivacyServerSideAdaptiveClipping(ours.FedProx(), **around)
    strategy.strategy.proximal_mu = 0.5
    plan = plan_of(strategy)
    name = "DifferentialPrivacyServerSideAdaptiveClipping"
    assert (plan["strategy"], plan["param.proximal_mu"]) == ("FedProx", 0.5)
    assert (plan["wrapper"], plan["wrapper.param.clipped_count_stddev"]) == (name, 1.0)
    assert plan["wrapper.param.noise_multiplier"] == pytest.approx(0.75, rel=1e-15)
    assert plan["wrapper.param.initial_clipping_norm"] == 0.25
    again = {k[14:]: v for k, v in plan.items() if k.startswith("wrapper.param.")}
    made = flower.DifferentialPrivacyServerSideAdaptiveClipping(flower.FedProx(), **again)
    assert made.noise_multiplier == pytest.approx(strategy.noise_multiplier, rel=1e-15)


def test_a_wrapper_goes_on_from_the_norm_it_has():
    strategy = ours.DifferentialPrivacyServerSideAdaptiveClipping(ours.FedAvg(), 0.0, 2)
    strategy.clipping_norm = 0.625
    assert plan_of(strategy)["wrapper.param.initial_clipping_norm"] == 0.625


def test_attributes_changed_after_construction_count():
    strategy = ours.FedProx(proximal_mu=0.5)
    strategy.proximal_mu, strategy.min_train_nodes, strategy.weighted_by_key = 2, 1, "num-examples"
    plan = plan_of(strategy)
    assert plan["param.proximal_mu"] == 2 and plan["param.min_train_nodes"] == 1


def test_a_derived_attribute_must_follow(said):
    """Flower decides at construction whether FedAvgM optimises; later changes come too late."""
    strategy = ours.FedAvgM()
    strategy.server_momentum = 0.5
    grid = FakeGrid(Native(strategies=None))
    strategy.start(grid, initial(), 1)
    assert not grid.sent and said("server_opt is not what its parameters make it") == 1
    assert plan_of(ours.FedAvgM(server_momentum=0.5))["param.server_momentum"] == 0.5


def test_a_subclass_with_a_constructor_and_names_of_its_own():
    class Mine(ours.FedAvg):
        """Only sets things."""

        site = "here"

        def __init__(self, nodes: int):
            super().__init__(min_train_nodes=nodes, fraction_evaluate=0.0)
            self.nodes = nodes

        def helper(self):
            return self.nodes

    plan = plan_of(Mine(2))
    assert plan["strategy"] == "FedAvg" and plan["param.fraction_evaluate"] == 0.0
    assert plan["param.min_evaluate_nodes"] == 0 and "param.nodes" not in plan


def test_reading_a_strategy_warns_of_nothing_twice(said):
    strategy = ours.FedAvg(fraction_evaluate=0.0)
    before = said("fraction_evaluate is set to 0.0")
    assert before == 1
    from umbel.serverapp.instance import read

    read(strategy)
    assert said("fraction_evaluate is set to 0.0") == before


@pytest.mark.parametrize("name", [n for n in ours.__all__ if not n.startswith("Differential")])
def test_every_other_class_can_be_told(name):
    from umbel.serverapp.instance import read

    needed = {"client_learning_rate": 0.1} if name == "QFedAvg" else {}
    values, own = read(getattr(ours, name)(**needed))
    assert not own and getattr(flower, name)(**values)
    assert all(type(value) in (bool, int, float, str) for value in values.values())
