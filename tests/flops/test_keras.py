"""The Keras example, the second flavor: built, trained, logged, loaded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.flops.conftest import Built, build_example
from tests.flops.rig import (
    check_tracking,
    clean_environment,
    load_and_predict,
    make_run,
    train,
)


@pytest.fixture(scope="module")
def keras(tmp_path_factory) -> Built:
    return build_example("fashion-mnist-keras", "keras", tmp_path_factory.mktemp("keras"))


def test_trained_logged_loaded(keras, data, serve_data, learner, mlflow_server, tmp_path, say):
    arrays, history, seconds = train(keras, data, serve_data, learner)
    accuracies = [round(float(one["accuracy"]), 3) for one in history]
    say(f"accuracy {accuracies}, round {seconds[-1]:.1f} s")
    assert history[-1]["accuracy"] > 0.78
    assert history[-1]["loss"] < history[0]["loss"]

    best, out = tmp_path / "best.npz", tmp_path / "log.json"
    np.savez(best, **{str(n): array for n, array in enumerate(arrays)})
    run = make_run(mlflow_server, "Keras & co")
    done = keras.run(
        *("log", "--model", best, "--tracking", mlflow_server),
        *("--run-id", run["info"]["run_id"], "--registered-name", "Keras & co", "--out", out),
    )
    assert done.returncode == 0, done.stdout
    result = json.loads(out.read_text())
    check_tracking(mlflow_server, run, result, "data")
    python = clean_environment(mlflow_server, result["model_id"], tmp_path)
    images = np.random.default_rng(5).integers(0, 256, (50, 28, 28)).astype(np.float32)
    predictions = load_and_predict(python, mlflow_server, result["model_uri"], images, tmp_path)
    np.testing.assert_allclose(predictions, network(arrays, images), atol=1e-4)


def network(arrays, images: np.ndarray) -> np.ndarray:
    """What the example's model computes, by hand."""
    hidden_weight, hidden_bias, weight, bias = arrays
    flat = images.reshape(len(images), -1) / 255
    scores = np.maximum(flat @ hidden_weight + hidden_bias, 0) @ weight + bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
