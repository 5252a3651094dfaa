"""Repositories and data that are wrong: a sentence that says where, and a clean end.

The projects of a test are submitted at once, to one `umbel up`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness.servers import REPO, wait_until
from tests.ops.conftest import sla
from tests.ops.up import Up, make_repository

FAULTY = Path(__file__).parent / "faulty"
MODEL = (FAULTY / "model_manager.py").read_text()
UP = {"import-timeout": 20}
ENDED = {"done", "failed", "cancelled"}

# What a repository has in place of FAULTY's files, and what is then said.
REPOSITORIES = {
    "no class": (
        {"model_manager": "class Other:\n    pass\n"},
        ["builder", "model_manager.py has no class ModelManager"],
    ),
    "no file": ({"model_manager": None}, ["builder", "model_manager.py is missing"]),
    "syntax error": (
        {"model_manager": MODEL + "\ndef broken(:\n"},
        ["builder", f"model_manager.py, line {len(MODEL.splitlines()) + 2}: "],
    ),
    "syntax error in another file": (
        {"data_manager": "class DataManager\n"},
        ["builder", "data_manager.py, line 1: "],
    ),
    "no method": (
        {"model_manager": MODEL.replace("def fit_model", "def fit")},
        ["builder", "class ModelManager has no method fit_model"],
    ),
    "no conda.yaml": ({"conda": None}, ["builder", "conda.yaml"]),
    "a package that is none": (
        {"conda": "dependencies:\n  - cudatoolkit\n"},
        ["builder", "conda.yaml", "cudatoolkit"],
    ),
    "conda.yaml that is none": ({"conda": "{"}, ["builder", "conda.yaml"]),
    "endless import": (
        {"model_manager": MODEL + "\nwhile True:\n    pass\n"},
        ["builder", "importing model_manager.py takes longer than 20 s"],
    ),
    "NaN before any training": (
        {"model_manager": MODEL.replace("np.zeros(2)", "np.array([np.nan, 0])")},
        ["aggrmodel", "ModelManager.get_model_parameters", "1 of 2 values that are not finite"],
    ),
}

# What learners do, by the data tag that says so, and what is then said.
FAULTS = {
    "data-raises": ["ModelManager.set_model_data raised ValueError: no luck with data"],
    "fit-raises": ["ModelManager.fit_model raised ValueError: no luck with fit", "model_manager.py"],
    "fit-dies": ["was killed"],
    "fit-counts": ["ModelManager.fit_model gave -3 (int)"],
    "fit-nan": ["ModelManager.get_model_parameters", "1 of 2 values that are not finite"],
    "fit-shapes": ["array 0 of shape [3, 2], the global model's is [2]"],
    "evaluate-raises": ["ModelManager.evaluate_model raised ValueError: no luck with evaluate"],
    "evaluate-nan": ["ModelManager.evaluate_model gave nan (float) as accuracy"],
}

# What lies on the learner nodes under a tag.
PARQUET = """
import sys, pyarrow as pa, pyarrow.parquet as pq
folder = sys.argv[1]
some = pa.table({"label": list(range(5000))})
pq.write_table(some.slice(0, 0), f"{folder}/empty.parquet")
pq.write_table(some, f"{folder}/torn.parquet", compression="none", use_dictionary=False)
with open(f"{folder}/torn.parquet", "r+b") as file:
    file.seek(4)
    file.write(b"\\xff" * 200)
with open(f"{folder}/corrupt.parquet", "wb") as file:
    file.write(b"PAR1 not at all")
"""
DATA = {
    "nowhere": ["on node-", "[nowhere]"],
    "empty": ["on node-", "empty.parquet", "no rows"],
    "corrupt": ["on node-", "corrupt.parquet", "not a readable Parquet file"],
    "torn": ["torn.parquet"],
}


@pytest.fixture(scope="module")
def with_data(shared_up, tmp_path_factory):
    """Data servers with digits under the tag "digits", and with what is no data."""
    made = shared_up.cli("data", "mock", "--dataset", "digits", "--partitions", "2", "--tag", "digits")
    assert made.returncode == 0, made.stdout + made.stderr
    python = REPO / ".venv-data" / "bin" / "python"
    if not python.exists():
        pytest.skip("scripts/bootstrap data has not been run")
    for node in ("node-1", "node-2"):
        folder = shared_up.state / "data" / node
        subprocess.run([python, "-c", PARQUET, folder], check=True)
    return shared_up


def one_learner(repository, *tags: str) -> dict:
    configuration = {"training_rounds": 1, "data_tags": list(tags)}
    return sla(repository, training_configuration=configuration)


def check_failures(up: Up, names: dict[str, str], wanted: dict[str, list[str]]) -> None:
    """Each has failed with its words in the failure, and left nothing."""
    faults = []
    for case, name in names.items():
        project = up.wait_for(name, ENDED)
        missing = [words for words in wanted[case] if words not in project["failure"]]
        if project["stage"] != "failed" or missing:
            faults.append(f"{case}: {project['stage']}: lacks {missing}:\n{project['failure']}")
        elif len(project["failure"]) > 2000 or "Traceback" in project["failure"]:
            faults.append(f"{case}: no sentence: {project['failure']}")
    for name in names.values():
        wait_until(f"nothing of {name} is left", lambda name=name: up.gone(name), 60)
    assert not faults, "\n\n".join(faults)


def test_bad_repositories(shared_up, repository, tmp_path):
    names, wanted = {}, {}
    for case, (files, words) in REPOSITORIES.items():
        path = tmp_path / case.replace(" ", "-")
        make_repository(FAULTY, path, **files)
        names[case], wanted[case] = shared_up.submit(one_learner(path)), words
    (tmp_path / "plain").mkdir()
    for case, place, named in (
        ("nothing", tmp_path / "nothing", tmp_path / "nothing"),
        ("no git", tmp_path / "plain", tmp_path / "plain"),
        ("no branch", f"{repository}#none", "'none'"),
        ("no commit", f"{repository}#{'0' * 40}", "0" * 40),
    ):
        names[case], wanted[case] = shared_up.submit(one_learner(place)), ["ml_repo_url", str(named)]
    check_failures(shared_up, names, wanted)


def test_learners_and_data_that_are_wrong(with_data, tmp_path):
    make_repository(FAULTY, tmp_path / "faulty")
    names = {}
    for what in (*FAULTS, *DATA):
        tags = ("digits", what) if what in FAULTS else (what,)
        names[what] = with_data.submit(one_learner(tmp_path / "faulty", *tags))
    check_failures(with_data, names, FAULTS | DATA)
