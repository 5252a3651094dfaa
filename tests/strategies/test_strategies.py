"""Our strategies against Flower's classes, on random replies.

Small every day; UMBEL_SIZE=full (or UMBEL_SOAK=1) runs more seeds on larger models. UMBEL_SEED repeats
a run: it is printed with the figures.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import flower
from .flower import Arrays, Outcome, Reply
from .select import select

FULL = os.environ.get("UMBEL_SIZE") == "full" or os.environ.get("UMBEL_SOAK", "0") not in ("", "0")
SEED = int(os.environ.get("UMBEL_SEED", "1"))
SEEDS = range(SEED, SEED + (20 if FULL else 1))
SCALE = 20 if FULL else 1

pytestmark = pytest.mark.skipif(
    flower.program() is None,
    reason=f"{flower.PROGRAM} is not built, and $UMBEL_STRATEGY_ORACLE is not set",
)

WIDTHS = {  # of what one element holds, per sum
    "float16": 1e-3,
    "float32": 1e-6,
    "float64": 1e-12,
}


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if np.dtype(dtype).kind in "iu":
        low = 0 if np.dtype(dtype).kind == "u" else -100
        return rng.integers(low, 100, shape).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def shapes() -> dict[str, tuple[int, ...]]:
    return {"conv": (3, 5, 7 * SCALE), "bias": (11,), "scalar": (), "empty": (0, 4), "one": (1,)}


def random_model(rng: np.random.Generator, dtypes: list[str]) -> Arrays:
    named = zip(shapes().items(), itertools.cycle(dtypes))
    return {name: random_array(rng, dtype, shape) for (name, shape), dtype in named}


def random_metrics(rng: np.random.Generator, weight: float | int) -> dict[str, Any]:
    return {
        "loss": float(rng.exponential()),
        "num-examples": weight,
        "hits": [int(x) for x in rng.integers(0, 1000, 3)],
        "curve": [float(x) for x in rng.standard_normal(2)],
        "train_loss": float(rng.exponential()),
    }


def random_replies(
    rng: np.random.Generator, model: Arrays, count: int, *, equal: bool = False, ties: bool = False
) -> list[Reply]:
    """Around the model; `equal` all the same, `ties` of few whole values."""
    replies = []
    for i in range(count):
        arrays: Arrays = {}
        for name, value in model.items():
            if ties:
                arrays[name] = rng.integers(0, 3, value.shape).astype(value.dtype)
            elif value.dtype.kind == "f":
                step = rng.standard_normal(value.shape) * 0.3
                arrays[name] = np.asarray(value + step).astype(value.dtype)
            else:
                arrays[name] = random_array(rng, value.dtype.name, value.shape)
            arrays[name] = np.asarray(arrays[name])
        weight = int(rng.integers(1, 5000)) if i % 2 == 0 else float(rng.random() + 0.1)
        replies.append(Reply(arrays, random_metrics(rng, weight)))
    if equal:
        replies = [Reply(replies[0].arrays, reply.metrics) for reply in replies]
    return replies


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units of the largest element of b."""
    if a.size == 0:
        return 0.0
    wide = b.astype(np.float64)
    return float(np.abs(a.astype(np.float64) - wide).max() / max(np.abs(wide).max(), 1e-300))


def close(
    ours: Outcome, theirs: Outcome, rtol: float | None = None, truth: Outcome | None = None
) -> float:
    """Same dtypes and shapes; arrays within rtol of the largest element, metrics within 1e-12.

    `truth`, if given, is Flower's result from the same replies in float64: where both roundings to
    float32 together have grown beyond rtol, ours must be within rtol of it, or nearer than Flower's.
    Returns the largest difference.
    """
    assert not ours.error, ours.error
    assert list(ours.arrays) == list(theirs.arrays)
    worst = 0.0
    for name, mine in ours.arrays.items():
        its = theirs.arrays[name]
        assert (mine.shape, mine.dtype) == (its.shape, its.dtype), name
        apart = distance(mine, its)
        allowed = rtol if rtol is not None else WIDTHS[its.dtype.name]
        if apart > allowed and truth is not None:
            true = truth.arrays[name]
            assert distance(mine, true) <= max(allowed, distance(its, true)), (name, apart)
        else:
            assert apart <= allowed, (name, apart, allowed)
        worst = max(worst, apart)
    assert set(ours.metrics) == set(theirs.metrics)
    for key, value in ours.metrics.items():
        np.testing.assert_allclose(value, theirs.metrics[key], rtol=1e-12, atol=1e-12)
    return worst


def widened(arrays: Arrays) -> Arrays:
    return {name: np.asarray(value).astype(np.float64) for name, value in arrays.items()}


def between(outcome: Outcome, replies: list[Reply]) -> None:
    for name, value in outcome.arrays.items():
        stack = np.stack([reply.arrays[name] for reply in replies]).astype(np.float64)
        mine = value.astype(np.float64)
        assert (mine >= stack.min(axis=0)).all() and (mine <= stack.max(axis=0)).all(), name


def same_bytes(a: Outcome, b: Outcome) -> None:
    for name, value in a.arrays.items():
        assert value.tobytes() == b.arrays[name].tobytes(), name


OPTIMISERS: list[tuple[str, dict[str, Any]]] = [
    ("FedAvg", {}),
    ("FedProx", {"proximal_mu": 0.1}),
    ("FedAvgM", {}),
    ("FedAvgM", {"server_momentum": 0.9}),
    ("FedAvgM", {"server_momentum": 0.5, "server_learning_rate": 0.3}),
    ("FedAvgM", {"server_learning_rate": 2.0}),
    ("FedAdagrad", {}),
    ("FedAdagrad", {"eta": 0.03, "tau": 0.1}),
    ("FedAdam", {}),
    ("FedAdam", {"eta": 0.01, "beta_1": 0.5, "beta_2": 0.9, "tau": 1e-2}),
    ("FedYogi", {}),
    ("FedYogi", {"eta": 0.1, "beta_1": 0.0, "beta_2": 0.5}),
]


@pytest.mark.parametrize("clients", [1, 5], ids=["one-client", "five-clients"])
@pytest.mark.parametrize("dtypes", [["float64"], ["float32"], ["float32", "float64"]], ids="-".join)
@pytest.mark.parametrize("name,params", OPTIMISERS, ids=lambda value: str(value))
def test_optimisers_over_20_rounds(name, params, dtypes, clients, tmp_path, say) -> None:
    worst = 0.0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        model = random_model(rng, dtypes)
        rounds = [random_replies(rng, model, clients) for _ in range(20)]
        theirs = flower.run_flower(flower.make(name, params), model, rounds)
        wide = [[Reply(widened(r.arrays), r.metrics) for r in replies] for replies in rounds]
        truth = flower.run_flower(flower.make(name, params), widened(model), wide)
        ours = flower.run_ours(tmp_path / str(seed), name, params, model, rounds, block=37)
        for mine, its, true in zip(ours, theirs, truth, strict=True):
            worst = max(worst, close(mine, its, 1e-6, true))
    say(f"{name} {params} {'-'.join(dtypes)}, {clients} clients: {worst:.1e} apart (seed {SEED})")


@pytest.mark.parametrize("name", ["FedAvgM", "FedAdagrad", "FedYogi"])
def test_optimisers_round_each_operation_as_numpy(name, tmp_path) -> None:
    """The mean of one client is its reply in both; then no rounding may differ, in no type."""
    params = {"server_momentum": 0.9} if name == "FedAvgM" else {}
    for dtype in ("float16", "float32", "float64"):
        rng = np.random.default_rng(SEED)
        model = random_model(rng, [dtype])
        rounds = [random_replies(rng, model, 1) for _ in range(20)]
        theirs = flower.run_flower(flower.make(name, params), model, rounds)
        ours = flower.run_ours(tmp_path / dtype, name, params, model, rounds)
        for mine, its in zip(ours, theirs, strict=True):
            same_bytes(mine, its)


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"])
def test_integers_become_float64(name, tmp_path) -> None:
    params = {"server_momentum": 0.9} if name == "FedAvgM" else {}
    rng = np.random.default_rng(SEED)
    model = random_model(rng, ["int64", "uint8", "float32"])
    rounds = [random_replies(rng, model, 3) for _ in range(3)]
    theirs = flower.run_flower(flower.make(name, params), model, rounds)
    ours = flower.run_ours(tmp_path, name, params, model, rounds)
    for mine, its in zip(ours, theirs, strict=True):
        close(mine, its, 1e-6)


ROBUST: list[tuple[str, dict[str, Any]]] = [
    ("FedMedian", {}),
    ("FedTrimmedAvg", {}),
    ("FedTrimmedAvg", {"beta": 0.0}),
    ("FedTrimmedAvg", {"beta": 0.49}),
    ("Bulyan", {}),
    ("Bulyan", {"num_malicious_nodes": 1}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("name,params", ROBUST, ids=lambda value: str(value))
def test_robust_rules(name, params, dtype, tmp_path) -> None:
    if name == "Bulyan" and dtype == "bool":
        pytest.skip("Flower subtracts booleans there, which NumPy refuses")
    for seed, clients in itertools.product(SEEDS, [1, 2, 3, 8, 9, 16] + [60] * FULL):
        if name == "Bulyan" and clients < 4 * params.get("num_malicious_nodes", 0) + 3:
            continue
        rng = np.random.default_rng(seed)
        model = random_model(rng, [dtype])
        replies = random_replies(rng, model, clients)
        (theirs,) = flower.run_flower(flower.make(name, params), model, [replies])
        folder = tmp_path / f"{seed}-{clients}"
        (ours,) = flower.run_ours(folder, name, params, model, [replies], block=64)
        if name == "Bulyan" and np.dtype(dtype).kind in "iu" or dtype == "float16":
            # Distances to the median tie; then Flower's choice depends on the order of replies.
            check_bulyan(ours, replies, params) if name == "Bulyan" else close(ours, theirs)
        else:
            close(ours, theirs)
        if name == "FedMedian":
            same_bytes(ours, theirs)
        between(ours, replies)
        (whole,) = flower.run_ours(folder, name, params, model, [replies], block=1 << 20)
        same_bytes(ours, whole)


def check_bulyan(ours: Outcome, replies: list[Reply], params: dict[str, Any]) -> None:
    """Each element is the mean of some set of the closest, whichever way ties go."""
    malicious = params.get("num_malicious_nodes", 0)
    kept = [replies[i] for i in ours.more["selected"]]
    closest = len(kept) - 2 * malicious
    for name, value in ours.arrays.items():
        stack = np.stack([reply.arrays[name] for reply in kept]).astype(np.float64)
        flat = stack.reshape(len(kept), -1)
        medians = np.median(np.stack([r.arrays[name] for r in kept]), axis=0).reshape(-1)
        for column, median, mine in zip(flat.T, medians, value.reshape(-1), strict=True):
            distance = np.abs(column - float(median))
            limit = np.sort(distance)[closest - 1]
            sure = np.sort(column[distance < limit])
            open_ = np.sort(column[distance == limit])
            missing = closest - len(sure)
            low = (sure.sum() + open_[:missing].sum()) / closest
            high = (sure.sum() + open_[len(open_) - missing :].sum()) / closest
            slack = {"float16": 1e-2, "float32": 1e-6}.get(value.dtype.name, 1e-12)
            assert low - slack <= float(mine) <= high + slack, (name, low, mine, high)


@pytest.mark.parametrize("name,params", ROBUST, ids=lambda value: str(value))
def test_robust_rules_with_ties_and_equal_clients(name, params, tmp_path) -> None:
    for seed, kind in itertools.product(SEEDS, ["ties", "equal"]):
        rng = np.random.default_rng(seed)
        model = random_model(rng, ["float32", "float64"])
        replies = random_replies(rng, model, 11, **{kind: True})
        (ours,) = flower.run_ours(tmp_path / f"{seed}-{kind}", name, params, model, [replies])
        if name == "Bulyan" and kind == "ties":
            check_bulyan(ours, replies, params)
            continue
        (theirs,) = flower.run_flower(flower.make(name, params), model, [replies])
        if name == "Bulyan":
            # All scores tie, and NumPy's argsort breaks ties by the CPU's vector width: of the
            # metrics only those of the replies we kept can be held against Flower's.
            kept = [replies[i] for i in ours.more["selected"]]
            (of_kept,) = flower.run_flower(flower.make("FedAvg", {}), model, [kept])
            theirs = Outcome(theirs.arrays, of_kept.metrics)
        close(ours, theirs)


def test_bulyan_keeps_the_model_when_replies_are_few(tmp_path) -> None:
    rng = np.random.default_rng(SEED)
    model = random_model(rng, ["float32"])
    params = {"num_malicious_nodes": 2}
    replies = random_replies(rng, model, 10)
    (theirs,) = flower.run_flower(flower.make("Bulyan", params), model, [replies])
    (ours,) = flower.run_ours(tmp_path, "Bulyan", params, model, [replies])
    assert ours.error == "10 updates are fewer than 4 * num_malicious_nodes 2 + 3"
    same_bytes(theirs, Outcome(model))


def scores_of(rows: np.ndarray, malicious: int) -> np.ndarray:
    wide = rows.astype(np.float64)
    distances = ((wide[:, None, :] - wide[None, :, :]) ** 2).sum(axis=2)
    closest = max(1, len(rows) - malicious - 2)
    return np.sort(distances, axis=1)[:, 1 : closest + 1].sum(axis=1)


def test_selections_are_identical(tmp_path, say) -> None:
    """Krum and MultiKrum; where scores are nearer than a float32 sum can tell, order is open."""
    compared = close_calls = 0
    clients = [1, 5, 8, 16, 33] + [100] * FULL
    for seed, n, dtype in itertools.product(SEEDS, clients, ["float32", "float64"]):
        rng = np.random.default_rng(seed)
        width = int(rng.integers(1, 400 * SCALE))
        rows = rng.standard_normal((n, width)).astype(dtype)
        rows[: n // 4] *= 5  # some far off
        malicious, number = int(rng.integers(0, n // 3 + 1)), int(rng.integers(1, n + 2))
        replies = [Reply({"w": row}, {"num-examples": 1}) for row in rows]
        params = {"num_malicious_nodes": malicious, "num_nodes_to_select": number}
        folder = tmp_path / f"{seed}-{n}-{dtype}"
        (ours,) = flower.run_ours(folder, "MultiKrum", params, {"w": rows[0]}, [replies])
        theirs = select(rows, malicious, number)
        scores = scores_of(rows, malicious)
        margin = np.diff(np.sort(scores)).min(initial=np.inf) / max(scores.max(), 1e-300)
        if margin > (1e-5 if dtype == "float32" else 1e-12):
            assert ours.more["selected"] == theirs, (seed, n, dtype)
            compared += 1
        else:
            np.testing.assert_allclose(
                scores[ours.more["selected"]], scores[theirs], rtol=1e-5, atol=1e-5
            )
            close_calls += 1
    assert compared > close_calls
    say(f"{compared} selections identical, {close_calls} too close to call (seed {SEED})")


def test_ties_are_selected_in_order_as_by_a_stable_argsort(tmp_path, say) -> None:
    """Small whole numbers: Flower's float32 does not round, and equal scores are equal."""
    rng = np.random.default_rng(SEED)
    cases, ours, tied = [], [], 0
    for i in range(400 if FULL else 60):
        n = int(rng.integers(1, 17))
        rows = rng.integers(0, 3, (n, int(rng.integers(1, 5)))).astype(np.float32)
        malicious, number = int(rng.integers(0, n)), int(rng.integers(1, n + 1))
        cases.append({"rows": rows.tolist(), "malicious": malicious, "select": number})
        replies = [Reply({"w": row}, {"num-examples": 1}) for row in rows]
        params = {"num_malicious_nodes": malicious, "num_nodes_to_select": number}
        (mine,) = flower.run_ours(tmp_path / str(i), "MultiKrum", params, {"w": rows[0]}, [replies])
        ours.append(mine.more["selected"])
        tied += len(set(scores_of(rows, malicious))) < n
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    dispatch = np._core._multiarray_umath.__cpu_dispatch__
    done = subprocess.run(
        [sys.executable, "-m", "tests.strategies.select", tmp_path / "cases.json"],
        cwd=flower.REPO,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": ",".join(dispatch)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ours == json.loads(done.stdout)
    assert tied > len(cases) / 2
    say(f"{len(cases)} selections identical, {tied} of them with equal scores (seed {SEED})")


@pytest.mark.parametrize(
    "name,params",
    [
        ("Krum", {"num_malicious_nodes": 2}),
        ("MultiKrum", {"num_malicious_nodes": 2, "num_nodes_to_select": 4}),
    ],
)
@pytest.mark.parametrize("dtypes", [["float32"], ["float64"], ["float32", "int64"]], ids="-".join)
def test_krum_averages_what_it_selects(name, params, dtypes, tmp_path) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        model = random_model(rng, dtypes)
        replies = random_replies(rng, model, 9)
        (theirs,) = flower.run_flower(flower.make(name, params), model, [replies])
        (ours,) = flower.run_ours(tmp_path / str(seed), name, params, model, [replies])
        close(ours, theirs)
        between(ours, replies)


@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 2.5])
@pytest.mark.parametrize("dtypes", [["float32"], ["float64"], ["float64", "float32"]], ids="-".join)
def test_qfedavg(q, dtypes, tmp_path) -> None:
    params = {"client_learning_rate": 0.1, "q": q}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        model = random_model(rng, dtypes)
        rounds = [random_replies(rng, model, n) for n in (5, 1, 8)]
        theirs = flower.run_flower(flower.make("QFedAvg", params), model, rounds)
        ours = flower.run_ours(tmp_path / str(seed), "QFedAvg", params, model, rounds, block=50)
        whole = flower.run_ours(tmp_path / str(seed), "QFedAvg", params, model, rounds)
        for mine, its, all_ in zip(ours, theirs, whole, strict=True):
            close(mine, its, 1e-6 if "float32" in dtypes else 1e-12)
            same_bytes(mine, all_)


@pytest.mark.parametrize("inner", ["FedAvg", "FedMedian", "FedAdam"])
@pytest.mark.parametrize("wrapper", ["Fixed", "Adaptive"])
@pytest.mark.parametrize("dtypes", [["float32"], ["float64"], ["float64", "float32"]], ids="-".join)
def test_clipping_without_noise(inner, wrapper, dtypes, tmp_path) -> None:
    name = f"DifferentialPrivacyServerSide{wrapper}Clipping"
    extra: dict[str, Any] = {"noise_multiplier": 0.0, "num_sampled_clients": 6}
    extra |= {"clipping_norm": 1.5} if wrapper == "Fixed" else {"initial_clipping_norm": 3.0}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        model = random_model(rng, dtypes)
        # Flower scales arrays in place, which leaves those without dimensions as they are. Ours not.
        del model["scalar"]
        # Replies at distances around the norm: some are clipped, some are not.
        rounds = []
        for _ in range(5):
            replies = random_replies(rng, model, 6)
            for i, reply in enumerate(replies):
                for key, value in reply.arrays.items():
                    shrunk = model[key] + (value - model[key]) * 0.1 * (i + 1) ** 2
                    reply.arrays[key] = np.asarray(shrunk).astype(value.dtype)
            rounds.append(replies)
        strategy = flower.make(inner, {}, name, extra)
        theirs = flower.run_flower(strategy, model, rounds)
        ours = flower.run_ours(
            tmp_path / str(seed), inner, {}, model, rounds, wrapper=name, wrapper_params=extra
        )
        for mine, its in zip(ours, theirs, strict=True):
            close(mine, its, 2e-6)
            assert mine.more["clipping_norm"] == pytest.approx(its.more["clipping_norm"], rel=1e-9)


def test_noise_has_flowers_deviation_and_comes_again(tmp_path) -> None:
    name = "DifferentialPrivacyServerSideFixedClipping"
    extra = {"noise_multiplier": 2.0, "clipping_norm": 3.0, "num_sampled_clients": 4}
    model = {"w": np.zeros(20_000, np.float32)}
    replies = [Reply(model, {"num-examples": 1}) for _ in range(4)]

    def run(seed: int) -> np.ndarray:
        more = {"wrapper": name, "wrapper_params": extra, "seed": seed}
        (ours,) = flower.run_ours(tmp_path, "FedAvg", {}, model, [replies], **more)
        return ours.arrays["w"]

    assert run(5).std() == pytest.approx(2.0 * 3.0 / 4, rel=0.03)
    assert run(5).tobytes() == run(5).tobytes()
    assert not (run(5) == run(6)).any()


def xgb_model(rng: np.random.Generator, trees: int, parallel: int = 1) -> bytes:
    """What matters of XGBoost's JSON, with numbers of many kinds."""
    model = {
        "gbtree_model_param": {"num_parallel_tree": str(parallel), "num_trees": str(trees)},
        "iteration_indptr": list(range(0, trees + 1, parallel)),
        "tree_info": [0] * trees,
        "trees": [
            {
                "base_weights": [float(x) for x in rng.standard_normal(7).astype(np.float32)],
                "categories": [],
                "default_left": [0, 1],
                "id": i,
                "split_conditions": [1e-30, -2.5e17, 0.1, float(rng.random())],
                "tree_param": {"num_nodes": "7", "num_feature": "3"},
            }
            for i in range(trees)
        ],
    }
    learner = {
        "attributes": {"best": "é\u20ac"},
        "feature_names": [],
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {"base_score": "[5E-1]"},
    }
    return json.dumps({"learner": learner, "version": [2, 1, 1]}).encode()


@pytest.mark.parametrize("parallel", [1, 3])
def test_xgb_bagging(parallel, tmp_path) -> None:
    rng = np.random.default_rng(SEED)

    def arrays(data: bytes) -> Arrays:
        return {"0": np.frombuffer(data, np.uint8)}

    for start in (b"", xgb_model(rng, 2 * parallel, parallel)):
        rounds = [
            [
                Reply(arrays(xgb_model(rng, parallel, parallel)), random_metrics(rng, 10 + i))
                for i in range(3)
            ]
            for _ in range(3)
        ]
        theirs = flower.run_flower(flower.make("FedXgbBagging", {}), arrays(start), rounds)
        ours = flower.run_ours(tmp_path, "FedXgbBagging", {}, arrays(start), rounds)
        for mine, its in zip(ours, theirs, strict=True):
            assert not mine.error, mine.error
            assert json.loads(mine.arrays["0"].tobytes()) == json.loads(its.arrays["0"].tobytes())


def test_xgb_cyclic_takes_the_same_turns(tmp_path) -> None:
    rng = np.random.default_rng(SEED)
    strategy = flower.make("FedXgbCyclic", {})
    rounds, theirs = [], []
    for number in range(1, 60):
        known = rng.integers(1, 2**63, 4).tolist() if number % 10 == 1 else known  # noqa: F821
        nodes = [int(x) for x in rng.permutation(known)[: int(rng.integers(1, 5))]]
        rounds.append(nodes)
        ordered = strategy._reorder_nodes(nodes)
        theirs.append(ordered[(number - 1) % len(ordered)])
    assert flower.turns(tmp_path, rounds) == theirs


def test_metrics_are_the_exact_mean_correctly_rounded(tmp_path, say) -> None:
    """Sums from hostile exponents and cancelling pairs against Python's fractions."""
    count = 0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        replies = []
        for _ in range(int(rng.integers(1, 40))):
            bits = rng.integers(0, 2**63, 50, dtype=np.uint64) * 2 + rng.integers(0, 2, 50).astype("u8")
            wild = bits.view(np.float64)
            wild = np.where(np.isfinite(wild), wild, 1.0)
            tame = rng.standard_normal(50) * 2.0 ** rng.integers(-60, 5, 50)
            tiny = rng.integers(1, 2**20, 20, dtype=np.uint64).view(np.float64)
            values = [*wild.tolist(), *tame.tolist(), *tiny.tolist()]
            weight = int(rng.integers(1, 2**62)) if rng.random() < 0.5 else float(rng.exponential())
            replies.append((values, weight))
        replies += [([-v for v in values], weight) for values, weight in replies[1:3]]
        messages = [Reply({"w": np.zeros(1)}, {"x": v, "num-examples": w}) for v, w in replies]
        model = {"w": np.zeros(1)}
        (ours,) = flower.run_ours(tmp_path / str(seed), "FedMedian", {}, model, [messages])
        total = sum(Fraction(weight) for _, weight in replies)
        for place, mine in enumerate(ours.metrics["x"]):
            mean = sum(Fraction(v[place]) * Fraction(w) for v, w in replies) / total
            assert mine == float(mean), (seed, place)
            count += 1
    say(f"{count} means equal the exact rational, correctly rounded (seed {SEED})")


def test_the_table_of_strategies_is_the_installed_flowers() -> None:
    from tests.golden import strategies

    written = json.loads(Path(strategies.__file__).with_suffix(".json").read_text())
    assert written == json.loads(json.dumps(strategies.golden())), "run tests/golden/strategies.py"
