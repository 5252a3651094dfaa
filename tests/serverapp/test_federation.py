"""`flwr run` of an app that imports its strategy from umbel.serverapp, on either SuperLink.

UMBEL_SOAK=1 compares every mode with Flower's own SuperLink; every day it is two of them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp import strategy as flower

from tests.harness.federation import TOY, Federation, toy_expected, umbel_node
from tests.harness.servers import REPO, start_server
from tests.serverapp.fake import FakeGrid, initial, stock

ROUNDS = 3
PLAIN = "from flwr.serverapp.strategy import FedAvg"
CHANGED = "from umbel.serverapp import FedAvg"
PYTHON = "Rounds run in Python"
NATIVE = "with its rounds in the SuperLink"
MORE = {
    "strategies": "umbel.serverapp",
    "strategy": "FedAvg",
    "parameters": "{}",
    "own": "",
    "here": False,
    "lossy": False,
    "overrides": False,
}
MODES = {
    "alone": {},
    "evaluates-here": {"here": True},
    "aggregates-train": {"own": "train"},
    "aggregates-both": {"own": "train evaluate"},
    "all": {"own": "train evaluate", "here": True},
    "no-evaluation": {"evaluate": False, "here": True},
    "fedprox": {"strategy": "FedProx"},
}
# Those whose result does not depend on which of two sites answers first.
STRATEGIES = {
    "FedAdagrad": {},
    "FedAdam": {"eta": 0.05, "beta_1": 0.5},
    "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.5},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.1},
    "FedYogi": {"tau": 0.01},
    "MultiKrum": {"num_nodes_to_select": 2},
    "QFedAvg": {"client_learning_rate": 0.1, "train_loss_key": "num-examples"},
}
DAILY = ("all", "alone")
SOAK = os.environ.get("UMBEL_SOAK", "") not in ("", "0")
pytestmark = pytest.mark.usefixtures("umbel_bin")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serverapp")


@pytest.fixture(scope="module")
def changed(folder) -> Path:
    """The toy app, with one line of it changed."""
    app = shutil.copytree(TOY, folder / "changed", ignore=shutil.ignore_patterns("__pycache__"))
    file = app / "toy" / "server_app.py"
    text = file.read_text()
    assert text.count(PLAIN) == 1
    file.write_text(text.replace(PLAIN, CHANGED))
    return app


@pytest.fixture(scope="module")
def app(folder) -> Path:
    """The toy's ClientApp with a ServerApp that runs any strategy."""
    app = shutil.copytree(TOY, folder / "any", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("server_app.py"), app / "toy" / "server_app.py")
    with open(app / "pyproject.toml", "a") as file:
        file.writelines(f"{name} = {json.dumps(value)}\n" for name, value in MORE.items())
    return app


def _federation(kind: str, folder: Path):
    # Our binary brings it along for the ServerApps it starts.
    env = {} if kind == "umbel" else {"PYTHONPATH": str(REPO / "python")}
    with start_server(kind, home=folder / f"{kind}-server", env=env) as server:
        with Federation(server, folder / kind, node=umbel_node()) as federation:
            yield federation
            federation.wait_gone(federation.serverapps(), 15)


@pytest.fixture(scope="module")
def ours(folder):
    yield from _federation("umbel", folder)


@pytest.fixture(scope="module")
def upstream(folder):
    yield from _federation("upstream", folder)


def run(federation: Federation, app: Path, seconds: float = 120, **config) -> tuple[dict, str]:
    """What the ServerApp left, and the run's log."""
    output = federation.output()
    given = {"num-server-rounds": ROUNDS, **output.config, **config}
    run_id = federation.start(given, federation.build(app))
    federation.wait_state(run_id, "finished:completed", seconds)
    report = output.report()
    with np.load(output.stem.with_suffix(".npz")) as arrays:
        report["arrays"] = {name: arrays[name] for name in arrays.files}
    return report, federation.log(run_id, show=True).output


def check_equal(found: dict, expected: dict) -> None:
    assert found["called"] == expected["called"]
    for name in ("train_metrics_clientapp", "evaluate_metrics_clientapp",
                 "evaluate_metrics_serverapp"):  # fmt: skip
        assert found[name].keys() == expected[name].keys(), name
        for number, metrics in expected[name].items():
            assert found[name][number].keys() == metrics.keys(), (name, number)
            for key, value in metrics.items():
                np.testing.assert_allclose(found[name][number][key], value, rtol=1e-5, err_msg=key)
                assert type(found[name][number][key]) is type(value), (name, number, key)
    # Their order is that of the initial arrays; Flower has that of the first reply.
    assert found["arrays"].keys() == expected["arrays"].keys()
    for name, array in expected["arrays"].items():
        assert found["arrays"][name].dtype == array.dtype
        np.testing.assert_allclose(found["arrays"][name], array, rtol=1e-5)


@pytest.mark.parametrize("kind", ["upstream", "ours"])
def test_one_import_changed(kind, changed, request):
    federation = request.getfixturevalue(kind)
    report, log = run(federation, changed)
    assert report["sha256"] == toy_expected(ROUNDS)
    assert log.count(PYTHON) == (1 if kind == "upstream" else 0), log
    assert log.count(NATIVE) == (0 if kind == "upstream" else 1), log


@pytest.mark.parametrize("mode", sorted(MODES) if SOAK else DAILY)
def test_the_result_is_that_of_flower_on_its_own_superlink(mode, app, ours, upstream):
    expected, _ = run(upstream, app, strategies="flwr.serverapp.strategy", **MODES[mode])
    found, log = run(ours, app, **MODES[mode])
    assert NATIVE in log and PYTHON not in log, log
    check_equal(found, expected)
    assert found["sha256"] == expected["sha256"] == toy_expected(ROUNDS)  # its sums are exact


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_the_model_of_each_strategy_is_flower_s(name, app, ours):
    """As its class makes it, in this process, of sites that do what the ClientApps do."""
    values, rounds = STRATEGIES[name], 2
    expected = getattr(flower, name)(**values).start(FakeGrid(stock), initial(), rounds)
    config = {"strategy": name, "parameters": json.dumps(values), "num-server-rounds": rounds}
    report, log = run(ours, app, **config)
    assert NATIVE in log and PYTHON not in log, log
    assert report["arrays"].keys() == expected.arrays.keys()
    for key, array in expected.arrays.items():
        assert report["arrays"][key].dtype == array.numpy().dtype
        np.testing.assert_allclose(report["arrays"][key], array.numpy(), rtol=1e-5, atol=1e-6)
    trained = {str(number) for number in expected.train_metrics_clientapp}
    assert report["train_metrics_clientapp"].keys() == trained


def test_answers_that_are_lost_on_the_way(app, ours):
    """The same step may be asked for again."""
    report, log = run(ours, app, here=True, lossy=True)
    assert NATIVE in log and report["called"] == [0, 1, 2, 3]
    assert report["sha256"] == toy_expected(ROUNDS)


def test_failing_sites_do_not_show_differently(app, ours, upstream):
    failing = {"client-raise": "no data", "client-raise-site": 0, "num-server-rounds": 2}
    expected, _ = run(upstream, app, strategies="flwr.serverapp.strategy", **failing)
    found, log = run(ours, app, **failing)
    assert NATIVE in log
    check_equal(found, expected)


def test_no_site_can_answer(app, ours):
    """Then Flower's Result is an empty one."""
    report, log = run(ours, app, **{"client-raise": "no data", "num-server-rounds": 1})
    assert NATIVE in log
    assert not report["arrays"]
    assert not report["train_metrics_clientapp"] and not report["evaluate_metrics_clientapp"]


@pytest.mark.parametrize("here", [False, True])
def test_a_plan_that_the_superlink_refuses_runs_in_python(here, app, ours):
    """Flower does not mind a minimum below zero."""
    config = {"min-nodes": -1, "here": here}
    report, log = run(ours, app, **config)
    assert log.count(f"{PYTHON}: the SuperLink refuses them: min_") == 1, log
    assert report["sha256"] == toy_expected(ROUNDS)
    assert report["called"] == ([0, 1, 2, 3] if here else [])


def test_a_strategy_with_a_method_of_its_own_runs_in_python(app, ours):
    report, log = run(ours, app, overrides=True)
    assert f"{PYTHON}: Mine overrides aggregate_evaluate" in log and NATIVE not in log
    assert report["sha256"] == toy_expected(ROUNDS)


@pytest.mark.parametrize("here", [False, True])
def test_a_superlink_killed_in_a_round_does_not_show(here, app, ours):
    output = ours.output()
    config = {"num-server-rounds": ROUNDS, "here": here, **output.config, **output.held}
    run_id = ours.start(config, ours.build(app))
    output.wait_notes("train begins", len(ours.nodes))
    ours.server.kill9()
    ours.server.restart()
    output.open_gate()
    ours.wait_state(run_id, "finished:completed", 180)
    assert output.report()["sha256"] == toy_expected(ROUNDS)
