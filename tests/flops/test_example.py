"""The scikit-learn example in its real environment: built, trained, logged, loaded, served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from tests.flops.conftest import Built, build_example
from tests.flops.rig import (
    answers,
    check_tracking,
    clean_environment,
    load_and_predict,
    make_run,
    post,
    train,
    with_programs,
)
from tests.harness.servers import free_port, wait_until


def test_a_second_build_takes_what_is_there(sklearn, tmp_path):
    started = time.monotonic()
    again = build_example("fashion-mnist-sklearn", "sklearn", tmp_path)
    assert again.result == sklearn.result | {"cached": True}
    assert time.monotonic() - started < 20
    assert "scikit-learn==1.9." in " ".join(again.result["requirements"])
    lock = Path(again.result["lock"]).read_text()
    assert "://" not in lock and "--hash=sha256:" in lock


def test_trained_logged_loaded_served(
    sklearn, data, serve_data, learner, mlflow_server, tmp_path, say
):
    arrays, history, seconds = train(sklearn, data, serve_data, learner)
    accuracies = [round(float(one["accuracy"]), 3) for one in history]
    say(f"accuracy {accuracies}, round {seconds[-1]:.1f} s")
    assert accuracies == sorted(accuracies) and accuracies[-1] > 0.78  # 3200 images each
    assert history[-1]["loss"] < history[0]["loss"]

    best = tmp_path / "best.npz"
    np.savez(best, **{str(n): array for n, array in enumerate(arrays)})
    run = make_run(mlflow_server, "FLOps Project 1")
    out = tmp_path / "log.json"
    arguments = (
        *("--model", best, "--tracking", mlflow_server, "--run-id", run["info"]["run_id"]),
        *("--registered-name", "FLOps Project 1", "--metrics", json.dumps(history[-1])),
        *("--out", out),
    )
    results = []
    for _ in range(2):  # the second finds what is there
        started = time.monotonic()
        done = sklearn.run("log", *arguments)
        assert done.returncode == 0, done.stdout
        say(f"log took {time.monotonic() - started:.1f} s")
        results.append(json.loads(out.read_text()))
    assert results[0] == results[1]
    assert results[0]["version"] == 1
    check_tracking(mlflow_server, run, results[0], "model.skops")
    python = clean_environment(mlflow_server, results[0]["model_id"], tmp_path)
    rows = rows_of_pixels(500)
    predictions = load_and_predict(
        python, mlflow_server, "models:/FLOps Project 1@best", rows, tmp_path
    )
    np.testing.assert_array_equal(predictions, expected(arrays, rows))
    check_serving(sklearn, mlflow_server, results[0], arrays, tmp_path)


def expected(arrays, rows: np.ndarray) -> np.ndarray:
    return (rows @ arrays[0].T + arrays[1]).argmax(axis=1)


def rows_of_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, 784))


def check_serving(example: Built, server: str, result: dict, arrays, folder: Path) -> None:
    port = free_port()
    with open(folder / "serve.log", "wb") as log:
        model = subprocess.Popen(
            [example.programs / "mlflow", "models", "serve", "-m", result["model_uri"],
             "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
            env=with_programs(example) | {"MLFLOW_TRACKING_URI": server},
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until("the model", lambda: answers(f"{url}/ping", model, folder / "serve.log"), 180)
        rows = rows_of_pixels(3)
        wanted = {"predictions": expected(arrays, rows).tolist()}
        header = list(range(784))
        lists = rows.tolist()
        csv = "\n".join(",".join(map(str, line)) for line in [header, *lists])
        asked = {
            "csv": (csv, "text/csv"),
            "split": (json.dumps({"dataframe_split": {"columns": header, "data": lists}}),),
            "records": (json.dumps({"dataframe_records": [dict(zip(header, r)) for r in lists]}),),
            "instances": (json.dumps({"instances": lists}),),
            "inputs": (json.dumps({"inputs": lists}),),
        }
        for form, body in asked.items():
            assert post(f"{url}/invocations", *body) == (200, wanted), form
        for wrong in ([row[:-1] for row in lists], [[*row, 0.0] for row in lists], [["a"] * 784]):
            status, reply = post(f"{url}/invocations", json.dumps({"inputs": wrong}))
            assert status == 400 and reply["error_code"] == "BAD_REQUEST"
        assert "X has 785 features" in str(post(f"{url}/invocations", json.dumps(
            {"inputs": [[*row, 0.0] for row in lists]}))[1])  # fmt: skip
    finally:
        os.killpg(model.pid, 15)
        model.wait(timeout=60)


def refusal(example: Built, learner, tmp_path, **environment: str) -> str:
    app = tmp_path / "unpacked"
    shutil.unpack_archive(example.result["fab"], app, "zip")
    job = learner(app, example.python, **environment)
    content = RecordDict({"arrays": ArrayRecord({"0": Array(np.zeros(2))})})
    frame = job.call(content).frame
    assert frame["op"] == "error", frame
    return frame["reason"]


def test_data_with_another_tag(sklearn, data, serve_data, learner, tmp_path):
    location = serve_data(sklearn.python, data / "mnist.0.parquet")
    reason = refusal(sklearn, learner, tmp_path, UMBEL_DATA=location, UMBEL_DATA_TAGS="cats, dogs")
    assert "ModelManager.set_model_data raised DataError: the data server at grpc+unix" in reason
    assert "has no data with the tags cats, dogs" in reason


def test_data_that_is_broken(sklearn, data, serve_data, learner, tmp_path):
    (tmp_path / "mnist.9.parquet").write_bytes(b"PAR1 and then nothing")
    location = serve_data(sklearn.python, tmp_path / "mnist.9.parquet")
    reason = refusal(sklearn, learner, tmp_path, UMBEL_DATA=location, UMBEL_DATA_TAGS="mnist")
    assert "set_model_data raised DataError: the data server at grpc+unix" in reason
    assert "failed: " in reason


WRITE = """
import sys, pyarrow as pa, pyarrow.parquet as parquet
folder = sys.argv[1]
for tag, columns in {"empty": [{"x": pa.array([], pa.int64())}],
                     "mixed": [{"x": [1]}, {"y": ["a"]}]}.items():
    for number, data in enumerate(columns):
        parquet.write_table(pa.table(data), f"{folder}/{tag}.{number}.parquet")
"""


@pytest.mark.parametrize(
    "tag, expected",
    [
        ("empty", "the data with the tags empty has no rows"),
        ("mixed", "data set 2 has the columns y string, the first x int64"),
    ],
)
def test_data_that_is_no_data(sklearn, serve_data, learner, tmp_path, tag, expected):
    subprocess.run([sklearn.python, "-c", WRITE, tmp_path], check=True, timeout=60)
    location = serve_data(sklearn.python, *tmp_path.glob("*.parquet"))
    reason = refusal(sklearn, learner, tmp_path, UMBEL_DATA=location, UMBEL_DATA_TAGS=tag)
    assert "ModelManager.set_model_data raised DataError: " in reason
    assert expected in reason and "(data_manager.py, line 15)" in reason


def test_no_data_is_named(sklearn, learner, tmp_path):
    reason = refusal(sklearn, learner, tmp_path, UMBEL_DATA="", UMBEL_DATA_TAGS="mnist")
    assert "UMBEL_DATA does not say where this learner's data is" in reason


OWN_CLASS = """
import numpy as np
from data_manager import DataManager
from sklearn.base import BaseEstimator, ClassifierMixin

class Threshold(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        return self
    def predict(self, x):
        return (np.asarray(x).sum(axis=1) > self.at).astype(int)

class ModelManager:
    def __init__(self):
        self.model = Threshold()
        self.model.at = 0.0
    def set_model_data(self): pass
    def get_model(self): return self.model
    def get_model_parameters(self): return [np.array([self.model.at])]
    def set_model_parameters(self, parameters): self.model.at = float(parameters[0][0])
    def fit_model(self): return 1
    def evaluate_model(self): return 1, 1, 1
"""


def test_a_model_of_the_repositorys_own_class(sklearn, mlflow_server, make_repository, tmp_path):
    """Its module is logged with it, so that others can load it."""
    example = Built(make_repository(OWN_CLASS), "sklearn", sklearn.result)
    best, out = tmp_path / "best.npz", tmp_path / "log.json"
    np.savez(best, **{"0": np.array([1.5])})
    run = make_run(mlflow_server, "own")
    done = example.run(
        *("log", "--model", best, "--tracking", mlflow_server),
        *("--run-id", run["info"]["run_id"], "--registered-name", "own", "--out", out),
    )
    assert done.returncode == 0, done.stdout
    uri = json.loads(out.read_text())["model_uri"]
    shutil.rmtree(example.source)
    rows = np.array([[1.0, 1.0], [1.0, 0.0]])
    predictions = load_and_predict(Path(sklearn.python), mlflow_server, uri, rows, tmp_path)
    assert predictions.tolist() == [1, 0]


@pytest.mark.parametrize("address", ["closed port", "no such run", "bad model"])
def test_log_that_fails(sklearn, mlflow_server, tmp_path, address):
    model = tmp_path / "best.npz"
    np.savez(model, **{"0": np.zeros((10, 784)), "1": np.zeros(10)})
    if address == "bad model":
        model.write_bytes(b"no zip file")
    server = f"http://127.0.0.1:{free_port()}" if address == "closed port" else mlflow_server
    out = tmp_path / "out.json"
    done = sklearn.run(
        *("log", "--model", model, "--tracking", server, "--run-id", "0" * 32),
        *("--registered-name", "x", "--out", out),
    )
    assert done.returncode == 1, done.stdout
    error = json.loads(out.read_text())["error"]
    assert "\n" not in error and len(error) < 700
    assert {"closed port": server, "no such run": "0" * 32, "bad model": "is no model"}[
        address
    ] in error
