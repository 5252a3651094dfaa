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

PRIVATE = [
    ("FedAvg", "ServerSideFixedClipping", {"clipping_norm": 900}),
    ("FedAdam", "ServerSideFixedClipping", {"clipping_norm": 900}),
    ("MultiKrum", "ServerSideFixedClipping", {"clipping_norm": 1310}),
    ("FedMedian", "ServerSideAdaptiveClipping", {"initial_clipping_norm": 900}),
    ("FedAvg", "ServerSideAdaptiveClipping",
     {"initial_clipping_norm": 1310, "clip_norm_lr": 0.5, "target_clipped_quantile": 0.25}),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        yield server


@pytest.fixture(scope="module")
def federation(server, folder):
    with Federation(server, folder / "fed", nodes=NODES, node=umbel_node("worker")) as federation:
        yield federation


def kept_models(server, run_id: int, rounds: int = ROUNDS) -> list[dict[str, np.ndarray]]:
    (folder,) = server.home.rglob(f"models/{run_id}")
    models = []
    for number in range(1, rounds + 1):
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
    check(kept_models(server, done.run_id), make(name, params), initial)


def check(models, strategy, initial):
    """Each model is what Flower's class makes of the one before. Wrapped ones count, too."""
    base = getattr(strategy, "strategy", strategy)
    base._construct_messages = lambda *_: []  # nobody is asked
    before = initial
    for number, model in enumerate(models, 1):
        want = flowers(strategy, number, before)
        assert list(model) == list(want)
        for key, value in want.items():
            assert model[key].dtype == value.dtype, key
            scale = float(np.abs(value).max())
            np.testing.assert_allclose(model[key], value, rtol=1e-6, atol=1e-6 * scale)
        before = model


def wrap_flags(wrapper, params):
    pairs = (("--wrap-set", f"{key}={value}") for key, value in params.items())
    return ["--wrap", wrapper, *(word for pair in pairs for word in pair)]


@pytest.mark.parametrize("name, wrapper, around", PRIVATE)
def test_a_wrapped_strategy_is_flowers(server, federation, name, wrapper, around):
    params = STRATEGIES[name]
    around = {"noise_multiplier": 0, "num_sampled_clients": NODES, **around}
    flags = [word for key, value in params.items() for word in ("--set", f"{key}={value}")]
    initial = toy_model.initial(SEED, 4)
    done = federation.umbel_run(
        initial, "--strategy", name, "--rounds", ROUNDS, "--keep", "all", "--watch", *flags,
        *wrap_flags(wrapper, around),
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    strategy = make(name, params, f"DifferentialPrivacy{wrapper}", around)
    models = kept_models(server, done.run_id)
    check(models, strategy, initial)
    plain = make(name, params)
    with pytest.raises(AssertionError):  # it has clipped something
        check(models, plain, initial)


def test_noise_is_that_of_the_seed(server, federation):
    initial = toy_model.initial(SEED, 100)
    around = {"noise_multiplier": 0.5, "num_sampled_clients": NODES, "clipping_norm": 500}
    models = []
    for more in (around, around, {**around, "noise_multiplier": 0}):
        done = federation.umbel_run(
            initial, "--rounds", 1, "--keep", "all", "--watch", "--seed", 3,
            *wrap_flags("ServerSideFixedClipping", more),
        ).result(SECONDS)  # fmt: skip
        assert done.exit_code == 0, done.output
        models.append(kept_models(server, done.run_id, 1)[0])
    assert toy_model.digest(models[0]) == toy_model.digest(models[1])
    noise = (models[0]["weights"] - models[2]["weights"]).ravel().astype(np.float64)
    deviation = 0.5 * 500 / NODES
    assert abs(noise.std() / deviation - 1) < 0.03
    assert abs(noise.mean()) < 5 * deviation / np.sqrt(noise.size)


def test_a_reply_with_an_error_stops_a_private_round(server, federation):
    """Flower's wrapper aggregates nothing then: no model, no metrics, and the norm stays."""
    initial = toy_model.initial(SEED, 4)
    done = federation.umbel_run(
        initial, "--rounds", ROUNDS, "--keep", "all", "--watch",
        *wrap_flags("ServerSideAdaptiveClipping",
                    {"noise_multiplier": 0, "num_sampled_clients": NODES}),
        "--run-config", 'client-raise="no data" client-raise-site=1',
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    for model in kept_models(server, done.run_id):
        assert toy_model.digest(model) == toy_model.digest(initial)
    assert "trained" not in done.output


@pytest.mark.parametrize(
    "flags, why",
    [
        (["--wrap", "ServerSideFixedClipping"], "needs the parameter noise_multiplier"),
        (["--wrap", "FedAvg"], "FedAvg does not wrap a strategy"),
        (["--wrap-set", "clipping_norm=1"], "name it with --wrap"),
        (["--strategy", "FedXgbBagging", "--wrap", "ServerSideFixedClipping"], "cannot wrap"),
        (["--wrap", "ServerSideFixedClippin"], "did you mean 'ServerSideFixedClipping'?"),
        (["--wrap", "ServerSideFixedClipping", "--wrap-set", "x"], "'x' is not NAME=VALUE"),
    ],
)  # fmt: skip
def test_a_wrapper_that_cannot_be_is_refused(federation, flags, why):
    done = federation.umbel_run(toy_model.initial(SEED, 1), *flags).result(SECONDS)
    assert done.exit_code == 1 and why in done.output


def test_a_plan_in_toml_names_a_wrapper(federation, folder):
    plan = folder / "plan.toml"
    plan.write_text(
        'strategy = "fedavg"\nrounds = 1\nwrap = "serversidefixedclipping"\n'
        f'wrap-set = ["noise_multiplier=0", "clipping_norm=1", "num_sampled_clients={NODES}"]\n'
    )
    done = federation.umbel_run(
        toy_model.initial(SEED, 1), "--plan", plan, "--watch"
    ).result(SECONDS)
    assert done.exit_code == 0, done.output
    assert "serversidefixedclipping around fedavg over 1 rounds" in done.output


def test_bulyan_with_too_few_replies_keeps_the_model(server, federation):
    initial = toy_model.initial(SEED, 4)
    done = federation.umbel_run(
        initial, "--strategy", "bulyan", "--set", "num_malicious_nodes=1", "--rounds", ROUNDS,
        "--keep", "all", "--watch",
    ).result(SECONDS)  # fmt: skip
    assert done.exit_code == 0, done.output
    for model in kept_models(server, done.run_id):
        assert toy_model.digest(model) == toy_model.digest(initial)
