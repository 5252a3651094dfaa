"""What the tests of examples do with real learners and a real MLflow server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from tests.flops.conftest import ROWS, Built

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "DO_NOT_TRACK": "1",
}


def train(example: Built, data: Path, serve_data, learner, rounds: int = 3):
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
            np.asarray(np.mean([reply["arrays"][str(n)].numpy() for reply in replies], axis=0))
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
    return get(server, f"runs/get?run_id={run_id}")["run"] | {"name": name}


def check_tracking(server: str, before: dict, result: dict, file: str) -> None:
    """The model is in the finished run, whole and registered, and the run else as it was."""
    run = get(server, f"runs/get?run_id={before['info']['run_id']}")["run"]
    assert run["info"] == before["info"], "a finished run stays as it was"
    assert run["data"]["metrics"] == before["data"]["metrics"]
    (output,) = run["outputs"]["model_outputs"]
    assert output["model_id"] == result["model_id"]
    model = get(server, f"logged-models/{result['model_id']}")["model"]["info"]
    assert model["name"] == "logged_model_artifact"
    assert model["status"] == "LOGGED_MODEL_READY"
    assert model["experiment_id"] == run["info"]["experiment_id"]
    named = f"name={quote(before['name'])}&alias=best"
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
    assert files >= {"MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml", file}


LOAD = """
import sys, numpy, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
numpy.save(sys.argv[4], model.predict(numpy.load(sys.argv[3])))
"""


def load_and_predict(
    python: Path, server: str, model: str, rows: np.ndarray, folder: Path
) -> np.ndarray:
    """As any user of the model does, in a process of `python`."""
    np.save(folder / "rows.npy", rows)
    subprocess.run(
        [python, "-c", LOAD, server, model, folder / "rows.npy", folder / "predictions.npy"],
        check=True, env=os.environ | QUIET, cwd=folder, timeout=300,
    )  # fmt: skip
    return np.load(folder / "predictions.npy")


def clean_environment(server: str, model_id: str, folder: Path) -> Path:
    """One that has what the model's requirements.txt says, and nothing else."""
    experiment = get(server, f"logged-models/{model_id}")["model"]["info"]["experiment_id"]
    at = f"mlflow-artifacts/artifacts/{experiment}/models/{model_id}/artifacts/requirements.txt"
    text = urllib.request.urlopen(f"{server}/api/2.0/{at}", timeout=60).read().decode()
    assert "flwr" not in text and "mlflow==" in text
    (folder / "requirements.txt").write_text(text)
    uv = Path(sys.executable).with_name("uv")
    python = folder / "clean" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder / "clean"], check=True)
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", python, "-r", folder / "requirements.txt"],
        check=True, timeout=600,
    )  # fmt: skip
    return python
