"""What the tests of the operations plane share."""

from __future__ import annotations

import subprocess

import pytest

from tests.harness.servers import have_umbel
from tests.ops.up import DIGITS, Up, make_repository


@pytest.fixture
def repository(tmp_path):
    """A small ML repository as FLOps has them, in git; it brings its own data."""
    path = tmp_path / "digits"
    make_repository(DIGITS, path)
    return path


@pytest.fixture
def up(request, tmp_path):
    """A running `umbel up`, with the flags it is parametrized by; nothing of it is left after the test."""
    if not have_umbel():
        pytest.skip("umbel is not built")
    if subprocess.run(["git", "--version"], capture_output=True).returncode:
        pytest.skip("there is no git")
    one = Up(tmp_path / "up", **getattr(request, "param", {}))
    one.start()
    yield one
    one.remove_all()


@pytest.fixture(scope="module")
def shared_up(request, tmp_path_factory):
    """An `umbel up` for all tests of a module, with the flags in its UP."""
    if not have_umbel():
        pytest.skip("umbel is not built")
    one = Up(tmp_path_factory.mktemp("shared") / "up", **getattr(request.module, "UP", {}))
    one.start()
    yield one
    one.remove_all()


def sla(repository, **changes):
    """FLOps's base case."""
    return {
        "customerID": "Admin",
        "verbose": True,
        "ml_repo_url": str(repository),
        "ml_model_flavor": "sklearn",
        "training_configuration": {
            "mode": "classic",
            "data_tags": [],
            "training_rounds": 3,
            "min_available_clients": 2,
            "min_fit_clients": 2,
            "min_evaluate_clients": 2,
        },
        "resource_constraints": {"memory": 100, "vcpus": 1, "storage": 0},
    } | changes


def idle(folder):
    """Programs in MLflow's and the data servers' places that only stay, for tests of doors."""
    program = folder / "idle"
    program.write_text("#!/bin/sh\nexec sleep 100000\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def doors(tmp_path):
    """An `umbel up` whose services do nothing: what is asked of its doors costs nearly nothing."""
    if not have_umbel():
        pytest.skip("umbel is not built")
    program = idle(tmp_path)
    one = Up(tmp_path / "up", **{"mlflow-python": program, "dataserver": program})
    one.start()
    yield one
    one.remove_all()
