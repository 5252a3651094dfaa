"""The scikit-learn example in its real environment: built, trained, logged, loaded, served."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from tests.flops.conftest import HERE, STATE, Built, build_example
from tests.harness.servers import free_port, wait_until

ROWS = 8000  # of 60 000, over both learners
ROUNDS = 3
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "DO_NOT_TRACK": "1",
}


@pytest.fixture(scope="session")
def data(sklearn) -> Path:
    """Two partitions, made once."""
    folder = STATE / f"fashion-{ROWS}-2"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        part.mkdir(parents=True)
        made = [sklearn.python, HERE / "fashion.py", str(ROWS), "2", part]
        subprocess.run(made, check=True, timeout=300)
        try:
            part.rename(folder)
        except OSError:  # another session was faster
            shutil.rmtree(part)
    return folder


@pytest.fixture
def serve_data(tmp_path):
    """`serve_data(python, file) -> location`: a data server on a socket of its own."""
    servers = []

    def serve(python: str, *files: Path) -> str:
        folder = tmp_path / f"data-{len(servers)}"
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
        location = f"grpc+unix://{tmp_path}/data-{len(servers)}.sock"
        server = subprocess.Popen(
            [python, HERE / "flight_server.py", location, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        servers.append(server)
        assert server.stdout and server.stdout.readline() == "serving\n"
        return location

    yield serve
    for server in servers:
        server.communicate(timeout=60)


def train(example: Built, data: Path, serve_data, learner, rounds: int = ROUNDS):
    """Federated averaging over two learners: the model of each round, and accuracy and loss."""
    out, initial = data.parent / "initial.json", example.source.parent / "initial.npz"
    done = example.run("initial", "--model", initial, "--out", out)
    assert done.returncode == 0, done.stdout
    app = example.source.parent / "app"
    if not app.exists():
        shutil.unpack_archive(example.result["fab"], app, "zip")
    jobs = [
        learner(
            app,
            example.python,
            UMBEL_DATA=serve_data(example.python, data / f"mnist.{number}.parquet"),
            UMBEL_DATA_TAGS="other,mnist",
            ML_MODEL_FLAVOR=example.flavor,
            OMP_NUM_THREADS="1",
        )
        for number in range(2)
    ]
    with np.load(initial) as file:
        arrays = [file[key] for key in file.files]
    history, seconds = [], []
    for _ in range(rounds):
        record = ArrayRecord({str(n): Array(a) for n, a in enumerate(arrays)})
        content = RecordDict({"arrays": record})
        started = time.monotonic()
        replies = [job.call(content).records() for job in jobs]
        seconds.append(time.monotonic() - started)
        assert [reply["metrics"]["num-examples"] for reply in replies] == [ROWS * 2 // 5] * 2
        arrays = [
            np.mean([reply["arrays"][str(n)].numpy() for reply in replies], axis=0)
            for n in range(len(arrays))
        ]
        content = RecordDict(
            {"arrays": ArrayRecord({str(n): Array(a) for n, a in enumerate(arrays)})}
        )
        measured = [
            job.call(content, message_type="evaluate").records()["metrics"] for job in jobs
        ]
        assert [one["num-examples"] for one in measured] == [ROWS // 10] * 2
        history.append({k: np.mean([one[k] for one in measured]) for k in ("accuracy", "loss")})
    for job in jobs:
        assert job.log.read_text().count("data: 4000 rows") == 1, "data is loaded once"
    return arrays, history, seconds


@pytest.fixture(scope="module")
def mlflow_server(sklearn, tmp_path_factory):
    """A real MLflow server, with SQLite and its artifact proxy; its address."""
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(
            [sklearn.programs / "mlflow", "server", "--workers", "1", "--host", "127.0.0.1",
             "--port", str(port), "--backend-store-uri", f"sqlite:///{home}/mlflow.db",
             "--serve-artifacts", "--artifacts-destination", home / "artifacts"],
            cwd=home, env=with_programs(sklearn), stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until("MLflow", lambda: answers(f"{address}/health", server, home / "log"), 180)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=60)


def with_programs(example: Built) -> dict[str, str]:
    return os.environ | QUIET | {"PATH": f"{example.programs}:{os.environ['PATH']}"}


def answers(url: str, process: subprocess.Popen, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status == 200
    except OSError:
        return False


def post(url: str, data: str, content_type: str = "application/json") -> tuple[int, dict]:
    request = urllib.request.Request(url, data.encode(), {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def rest(server: str, path: str, **body) -> dict:
    status, reply = post(f"{server}/api/2.0/mlflow/{path}", json.dumps(body))
    assert status == 200, reply
    return reply


def get(server: str, path: str) -> dict:
    with urllib.request.urlopen(f"{server}/api/2.0/mlflow/{path}", timeout=60) as reply:
        return json.loads(reply.read())


def make_run(server: str, name: str) -> dict:
    """A run of a round, finished, as the manager leaves it."""
    experiment = rest(server, "experiments/create", name=name)["experiment_id"]
    run = rest(server, "runs/create", experiment_id=experiment, run_name="FLOps FL round 3")
    run_id = run["run"]["info"]["run_id"]
    metric = {"key": "accuracy", "value": 0.8, "timestamp": 1, "step": 3}
    rest(server, "runs/log-batch", run_id=run_id, metrics=[metric])
    rest(server, "runs/update", run_id=run_id, status="FINISHED", end_time=1_700_000_000_000)
    return get(server, f"runs/get?run_id={run_id}")["run"]


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
    say(f"accuracy {[round(one['accuracy'], 3) for one in history]}, round {seconds[-1]:.1f} s")
    accuracies = [one["accuracy"] for one in history]
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
    check_tracking(mlflow_server, run, results[0])
    check_loading(mlflow_server, results[0], arrays, tmp_path)
    check_serving(sklearn, mlflow_server, results[0], arrays, tmp_path)


def check_tracking(server: str, before: dict, result: dict) -> None:
    run = get(server, f"runs/get?run_id={before['info']['run_id']}")["run"]
    assert run["info"] == before["info"], "a finished run stays as it was"
    assert run["data"]["metrics"] == before["data"]["metrics"]
    (output,) = run["outputs"]["model_outputs"]
    assert output["model_id"] == result["model_id"]
    model = get(server, f"logged-models/{result['model_id']}")["model"]["info"]
    assert model["name"] == "logged_model_artifact"
    assert model["status"] == "LOGGED_MODEL_READY"
    assert model["experiment_id"] == run["info"]["experiment_id"]
    named = "name=FLOps%20Project%201&alias=best"
    version = get(server, f"registered-models/alias?{named}")["model_version"]
    assert int(version["version"]) == result["version"]
    assert version["run_id"] == run["info"]["run_id"]
    at = f"mlflow-artifacts/artifacts?path={run['info']['experiment_id']}/models/"
    files = {
        entry["path"]
        for entry in json.loads(
            urllib.request.urlopen(
                f"{server}/api/2.0/{at}{result['model_id']}/artifacts", timeout=60
            ).read()
        )["files"]
    }
    assert files >= {"MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml", "model.skops"}


LOAD = """
import sys, numpy, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
numpy.save(sys.argv[4], model.predict(numpy.load(sys.argv[3])))
"""


def expected(arrays, rows: np.ndarray) -> np.ndarray:
    return (rows @ arrays[0].T + arrays[1]).argmax(axis=1)


def rows_of_pixels(count: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, 784))


def check_loading(server: str, result: dict, arrays, folder: Path) -> None:
    """In an environment that has what the model's requirements.txt says, and nothing else."""
    python = clean_environment(server, result["model_id"], folder)
    np.save(folder / "rows.npy", rows_of_pixels(500))
    subprocess.run(
        [python, "-c", LOAD, server, "models:/FLOps Project 1@best",
         folder / "rows.npy", folder / "predictions.npy"],
        check=True, env=os.environ | QUIET, cwd=folder, timeout=300,
    )  # fmt: skip
    predictions = np.load(folder / "predictions.npy")
    np.testing.assert_array_equal(predictions, expected(arrays, rows_of_pixels(500)))


def clean_environment(server: str, model_id: str, folder: Path) -> Path:
    experiment = get(server, f"logged-models/{model_id}")["model"]["info"]["experiment_id"]
    at = f"mlflow-artifacts/artifacts/{experiment}/models/{model_id}/artifacts/requirements.txt"
    text = urllib.request.urlopen(f"{server}/api/2.0/{at}", timeout=60).read().decode()
    assert re.search(r"^scikit-learn==1\.9", text, re.M) and "flwr" not in text
    (folder / "requirements.txt").write_text(text)
    uv = Path(sys.executable).with_name("uv")
    python = folder / "clean" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder / "clean"], check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, "-r", folder / "requirements.txt"],
        check=True, timeout=600,
    )  # fmt: skip
    return python


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


def test_no_data_is_named(sklearn, learner, tmp_path):
    reason = refusal(sklearn, learner, tmp_path, UMBEL_DATA="", UMBEL_DATA_TAGS="mnist")
    assert "UMBEL_DATA does not say where this learner's data is" in reason


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
