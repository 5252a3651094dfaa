"""Each strategy as the SuperLink runs it over real SuperNodes, beside Flower's own class: round by
round, from the same model and the same replies."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord

from tests.harness.federation import Federation, toy_model, toy_sites, umbel_node
from tests.harness.servers import start_server
from tests.strategies.flower import Grid, Reply, make, message, to_record

pytestmark = pytest.mark.umbel_only("native rounds are ours")
SECONDS = 180.0
NODES = 5
ROUNDS = 3
SEED = 1

STRATEGIES = {
    "FedAvg": {},
    "FedProx": {"proximal_mu": 0.5},
    "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.9},
    "FedAdagrad": {"eta": 0.5},
    "FedAdam": {"eta": 0.25},
    "FedYogi": {},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": 0.25},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "QFedAvg": {"client_learning_rate": 0.5, "train_loss_key": "trained"},
}


@pytest.fixture(scope="module")
def server(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        yield server


@pytest.fixture(scope="module")
def federation(server, folder):
    with Federation(server, folder / "fed", nodes=NODES, node=umbel_node("worker")) as federation:
        yield federation


def kept_models(server, run_id: int) -> list[dict[str, np.ndarray]]:
    (folder,) = server.home.rglob(f"models/{run_id}")
    models = []
    for number in range(1, ROUNDS + 1):
        with np.load(folder / f"round-{number}.npz") as file:
            models.append({name: file[name] for name in file.files})
    return models


def flowers(strategy, server_round: int, model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What Flower's class makes of the replies to `model`."""
    replies = []
    for site, weight in toy_sites(NODES):
        trained = toy_model.train(model, SEED, site, server_round)
        arrays = {name: trained[name] for name in model}  # some classes go by place, not by name
        metrics = {"num-examples": weight, "trained": server_round}
        replies.append(message(Reply(arrays, metrics)))
    strategy.configure_train(server_round, to_record(model), ConfigRecord(), Grid(NODES))
    arrays, _ = strategy.aggregate_train(server_round, replies)
    return {name: array.numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_flowers(server, federation, name):
    params = STRATEGIES[name]
    flags = [word for key, value in params.items() for word in ("--set", f"{key}={value}")]
    initial = toy_model.initial(SEED, 4)
    done = federation.umbel_run(
        initial, "--strategy", name, "--rounds", ROUNDS, "--keep", "all", "--watch", *flags
    ).result(SECONDS)
    assert done.exit_code == 0, done.output
    strategy = make(name, params)
    strategy._construct_messages = lambda *_: []  # nobody is asked
    before = initial
    for number, model in enumerate(kept_models(server, done.run_id), 1):
        want = flowers(strategy, number, before)
        assert list(model) == list(want)
        for key, value in want.items():
            assert model[key].dtype == value.dtype, key
            scale = float(np.abs(value).max())
            np.testing.assert_allclose(model[key], value, rtol=1e-6, atol=1e-6 * scale)
        before = model


def test_bulyan_with_too_few_replies_keeps_the_model(server, federation):
    initial = toy_model.initial(SEED, 4)
    done = federation.umbel_run(
        initial, "--strategy", "bulyan", "--set", "num_malicious_nodes=1", "--rounds", ROUNDS,
        "--keep", "all", "--watch",
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    for model in kept_models(server, done.run_id):
        assert toy_model.digest(model) == toy_model.digest(initial)
