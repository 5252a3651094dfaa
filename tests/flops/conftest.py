"""Repositories, environments, data and learners for the tests of umbel.flops."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.servers import REPO, free_port, wait_until
from tests.worker import peer

sys.path.append(str(REPO / "python"))

from umbel.flops import bundle  # noqa: E402  (needs the path above)

EXAMPLES = REPO / "examples" / "ml-repos"
# Environments are large, and stay from session to session: `build` knows which are still right.
STATE = REPO / "build" / "flops"
HERE = Path(__file__).parent
ROWS = 8000  # of Fashion-MNIST's 60 000, over both learners

MODEL = '''
import numpy as np
from data_manager import DataManager

class ModelManager:
    def __init__(self):
        self.weights = [np.zeros((2, 3)), np.zeros(3)]
    def set_model_data(self):
        self.data = DataManager().get_data()
    def get_model(self):
        return self
    def get_model_parameters(self):
        return self.weights
    def set_model_parameters(self, parameters):
        self.weights = list(parameters)
    def fit_model(self):
        self.weights = [array + 1 for array in self.weights]
        return len(self.data)
    def evaluate_model(self):
        return 0.5, 0.25, len(self.data)
'''
DATA = '''
made = 0

class DataManager:
    def __init__(self):
        global made
        made += 1
        print(f"DataManager number {made}", flush=True)
        self._prepare_data()
    def _prepare_data(self):
        self.rows = range(7)
    def get_data(self):
        return self.rows
'''
CONDA = "dependencies:\n  - numpy\n"


def command(
    *arguments: Any, python: Any = sys.executable, **environment: str
) -> subprocess.CompletedProcess:
    """`python -m umbel.flops …`, with what it said in `stdout`."""
    env = os.environ | {"PYTHONPATH": str(REPO / "python")} | environment
    return subprocess.run(
        [python, "-m", "umbel.flops", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        timeout=1800,
    )


@pytest.fixture
def make_repository(tmp_path):
    """`make_repository(model=…, data=…, conda=…, files={…})`; None: no such file."""

    def make(
        model: str | bytes | None = MODEL,
        data: str | bytes | None = DATA,
        conda: str | bytes | None = CONDA,
        files: dict[str, str | bytes] | None = None,
    ) -> Path:
        folder = tmp_path / "repository"
        folder.mkdir()
        given = {"model_manager.py": model, "data_manager.py": data, "conda.yaml": conda}
        for name, text in (given | (files or {})).items():
            if text is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode() if isinstance(text, str) else text)
        return folder

    return make


@pytest.fixture
def unpack(tmp_path):
    """`unpack(repository) -> Path`: the app of it, as a node has it."""

    def unpack(repository: Path, flavor: str = "sklearn") -> Path:
        fab = bundle.make(bundle.collect(repository), repository.name, "c0ffee", flavor)
        bundle.unpack(fab, tmp_path / "app")
        return tmp_path / "app"

    return unpack


@dataclass
class Built:
    """An example, and what `build` made of it."""

    source: Path
    flavor: str
    result: dict[str, Any]

    @property
    def python(self) -> str:
        return self.result["python"]

    @property
    def programs(self) -> Path:
        return Path(self.python).parent

    def run(self, *arguments: Any) -> subprocess.CompletedProcess:
        common = ("--source", self.source, "--flavor", self.flavor)
        return command(arguments[0], *common, *arguments[1:], python=self.python)


def build_example(name: str, flavor: str, folder: Path) -> Built:
    source = folder / name
    shutil.copytree(EXAMPLES / name, source, ignore=shutil.ignore_patterns("__pycache__"))
    out = folder / "build.json"
    done = command(
        *("build", "--source", source, "--commit", "0" * 40, "--flavor", flavor),
        *("--environments", STATE / "environments", "--out", out),
    )
    assert done.returncode == 0, done.stdout
    return Built(source, flavor, json.loads(out.read_text()))


@pytest.fixture(scope="session")
def sklearn(tmp_path_factory) -> Built:
    """The scikit-learn example in its real environment."""
    return build_example("fashion-mnist-sklearn", "sklearn", tmp_path_factory.mktemp("sklearn"))


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    return peer.install(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def learner(sources, tmp_path):
    """`learner(app, python=…, **environment)`: a resident process of our worker."""
    with contextlib.ExitStack() as stack:

        def start(app: Path, python: Any = sys.executable, **environment: str) -> peer.Job:
            home = tmp_path / f"learner-{len(list(tmp_path.glob('learner-*')))}"
            home.mkdir()
            worker = peer.Worker(python, home, sources, **environment)
            stack.callback(worker.close)
            worker.control.settimeout(300)
            worker.expect("ready")
            assert worker.load(app, "umbel_client_app:app")["op"] == "loaded"
            job = worker.job("serve")
            job.socket.settimeout(300)
            stack.callback(job.close)
            return job

        yield start


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


@pytest.fixture(scope="module")
def mlflow_server(sklearn, tmp_path_factory):
    """A real MLflow server, with SQLite and its artifact proxy; its address."""
    from tests.flops import rig

    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(
            [sklearn.programs / "mlflow", "server", "--workers", "1", "--host", "127.0.0.1",
             "--port", str(port), "--backend-store-uri", f"sqlite:///{home}/mlflow.db",
             "--serve-artifacts", "--artifacts-destination", home / "artifacts"],
            cwd=home, env=rig.with_programs(sklearn), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until("MLflow", lambda: rig.answers(f"{address}/health", server, home / "log"), 180)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=60)
