"""`build` without what takes long: it fails early, in words, and leaves nothing half."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from flwr.cli.config_utils import get_fab_metadata

from tests.flops.conftest import CONDA, DATA, MODEL, command
from tests.harness.servers import REPO, wait_until

from umbel.flops import build, bundle, children, conda, environment
from umbel.flops.words import Failed

OWN = environment.Python(sys.executable, "3.11.2")


def fab_of(repository: Path, flavor: str = "sklearn") -> bytes:
    return bundle.make(bundle.collect(repository), repository.name, "c0ffee", flavor)


# --- the app


def test_the_app(make_repository):
    files = {
        "README.md": "# x", "helpers/__init__.py": "", "helpers/deep.py": "x = 1",
        "table.json": "{}",
        ".gitignore": "ignored.py\n", "ignored.py": "x", "weights.npy": b"\0" * 99,
        "pyproject.toml": "[tool.flwr.app.components]\nclientapp = 'x:y'\n",
        "client_app.py": "theirs", "data_loading.py": "theirs", "test_x.py": "x",
        ".git/config": "x",
    }  # fmt: skip
    repository = make_repository(files=files)
    (repository / "link.py").symlink_to("/etc/passwd")
    (repository / "folder").symlink_to("/etc")
    fab = fab_of(repository)
    names = set(zipfile.ZipFile(io.BytesIO(fab)).namelist())
    assert names == {
        ".info/CONTENT", "README.md", "client_app.py", "conda.yaml", "data_loading.py",
        "data_manager.py", "helpers/__init__.py", "helpers/deep.py", "model_manager.py",
        "pyproject.toml", "table.json", "umbel_client_app.py", "umbel_model.py",
        "umbel_server_app.py",
    }  # fmt: skip
    archive = zipfile.ZipFile(io.BytesIO(fab))
    assert b"load_data_from_ml_data_server" in archive.read("data_loading.py")
    assert archive.read("client_app.py") == b"theirs"
    assert b'clientapp = "umbel_client_app:app"' in archive.read("pyproject.toml")
    assert get_fab_metadata(fab) == ("flops/repository", "0.0.0")
    assert fab_of(repository) == fab, "equal repositories have equal apps"


@pytest.mark.parametrize("name", ["MNIST_sklearn", "9", "ünï", "a" * 99, "a.b/c", "-", "x--y"])
def test_any_folder_has_a_name(name):
    fab = bundle.make({}, name, "../../x", "keras")
    assert get_fab_metadata(fab)[0].startswith("flops/")


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"data.json": b" " * ((1 << 20) + 1)}, "data.json has 1048577 bytes"),
        ({f"{n}.json": os.urandom(1 << 20) for n in range(11)}, "too large for an app"),
        ({f"m{n}.py": "" for n in range(1001)}, "too large for an app"),
        ({"/".join("abcdefghijkl") + "/x.py": ""}, "no app"),
    ],
    ids=["file", "bytes", "files", "depth"],
)
def test_limits_of_an_app(make_repository, files, expected):
    with pytest.raises(Failed, match=expected):
        fab_of(make_repository(files=files))


# --- choosing versions


def required(*texts: str) -> list[conda.Requirement]:
    return [
        conda.Requirement(conda.canonical(text.split("=")[0]), text, line)
        for line, text in enumerate(texts, 4)
    ]


def test_a_lock_is_pinned_and_names_no_address():
    lock = environment.compile_lock("conda.yaml", required("numpy==2.4.*"), OWN)
    assert "numpy==2.4." in lock and "flwr==1.41.0" in lock and "mlflow==3.17.2" in lock
    assert "://" not in lock
    pins = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(pins) > 100
    assert lock.count("--hash=sha256:") >= len(pins)
    direct = environment.direct(lock, required("numpy==2.4.*"))
    assert [line.split("==")[0] for line in direct] == [
        "numpy", "flwr", "flops-utils", "mlflow", "datasets", "pyarrow", "pillow"
    ]  # fmt: skip


def test_pins_of_plumbing_yield(capsys):
    """As in FLOps' own sample: pins that flwr contradicts, beside those that count."""
    listed = required("pyyaml==6.0.1", "requests==2.31.0", "numpy==1.26.4", "scikit-learn==1.4.2")
    lock = environment.compile_lock("conda.yaml", listed, OWN)
    assert "\nnumpy==1.26.4 " in lock and "\nscikit-learn==1.4.2 " in lock
    said = capsys.readouterr().out
    assert "conda.yaml, line 4: pyyaml==6.0.1 contradicts the platform's packages" in said
    assert "conda.yaml, line 5: requests==2.31.0 contradicts" in said


@pytest.mark.parametrize(
    "listed, expected",
    [
        (["numpy==1.20.0"], "numpy"),
        (["numpy==2.4.4", "numpy==2.4.5"], "numpy"),
        (["numpy==99.0"], "numpy"),
        (["umbel-flops-nobody-has-this"], "umbel-flops-nobody-has-this"),
    ],
)
def test_what_does_not_go_together(listed, expected):
    with pytest.raises(Failed) as failed:
        environment.compile_lock("conda.yaml", required(*listed), OWN)
    assert "the packages of conda.yaml do not go together" in str(failed.value)
    assert expected in str(failed.value) and "\n" not in str(failed.value)
    assert "://" not in str(failed.value)


def test_peers_agree():
    import tomllib

    peers = tomllib.loads((REPO / "peers.toml").read_text())
    for name in ("flwr", "mlflow", "flops-utils"):
        assert environment.PLATFORM[name] == f"{name}=={peers[name]['version']}"


@pytest.mark.parametrize(
    "version, asked, fits",
    [("3.11.2", "3.11", True), ("3.11.2", "3.1", False), ("3.11.2", "3", True),
     ("3.11.2", ">=3.9,<3.12", True), ("3.11.2", ">=3.12", False)],
)  # fmt: skip
def test_whether_a_python_fits(version, asked, fits):
    assert environment._fits(version, asked) is fits


# --- importing


def try_import(repository: Path, seconds: float = 60.0) -> None:
    """With the Python at hand in the place of the project's."""
    with open(os.devnull) as held:
        fab = fab_of(repository)
        build.try_import(Path(sys.executable), fab, "sklearn", seconds, held.fileno())


def test_import(make_repository, capsys):
    try_import(make_repository("print('hello from the repository')\n" + MODEL))
    assert "  hello from the repository\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "model, expected",
    {
        "raise ValueError('at import')\n": "importing model_manager.py raises ValueError: "
        "at import (model_manager.py, line 1)",
        "import no_such_package\n": "raises ModuleNotFoundError: No module named "
        "'no_such_package'; if it is a package, list it in conda.yaml (model_manager.py, line 1)",
        "exit('bye')\n": "ends the process (exit status 'bye' (str)) (model_manager.py, line 1)",
        "import os; os._exit(7)\n": "importing model_manager.py ended with status 7",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n": "was ended by SIGSEGV",
        "ModelManager = 5\n": "has no class ModelManager, but 5 (int)",
    }.items(),
)
def test_imports_that_fail(make_repository, model, expected):
    with pytest.raises(Failed) as failed:
        try_import(make_repository(model + ("" if "= 5" in model else MODEL)))
    assert expected in str(failed.value)


def test_abstract_methods(make_repository):
    abstract = (
        "import abc\nclass Base(abc.ABC):\n    @abc.abstractmethod\n    def more(self): pass\n"
    )
    model = abstract + MODEL.replace("class ModelManager:", "class ModelManager(Base):")
    with pytest.raises(Failed, match="class ModelManager lacks more"):
        try_import(make_repository(model))


def test_an_endless_import_and_all_it_started_end(make_repository, tmp_path):
    mark = tmp_path / "pid"
    model = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\n"
        "while True: pass\n"
    )
    with pytest.raises(Failed, match="takes longer than 3 s"):
        try_import(make_repository(model + MODEL), seconds=3)
    pid = int(mark.read_text())
    wait_until("the end of what the import started", lambda: not alive(pid), 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] not in "ZX"
    except OSError:
        return False


def test_an_import_sees_no_secrets(make_repository, monkeypatch):
    monkeypatch.setenv("UMBEL_TOKEN", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    model = "import os\nassert 'secret' not in str(os.environ), 'seen'\n" + MODEL
    try_import(make_repository(model))


def test_an_endless_output_is_cut(make_repository, capsys):
    try_import(make_repository("print('x' * 10**6)\nfor n in range(5000): print(n)\n" + MODEL))
    said = capsys.readouterr().out
    assert "(further output is not shown)" in said
    assert len(said) < 10_000


def test_silence_is_broken(capsys):
    ended = children.run(
        [sys.executable, "-c", "import time; time.sleep(5)"], "sleeping",
        seconds=30, environment=os.environ, directory="/",
    )  # fmt: skip
    assert ended.well
    assert "sleeping (2 s)" in capsys.readouterr().out


# --- the command, up to its first heavy step


def start_build(repository: Path, folder: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "umbel.flops", "build", "--source", str(repository),
         "--commit", "c0ffee", "--flavor", "sklearn", "--environments", str(folder),
         "--out", str(folder.parent / "out.json"), *more],
        env=os.environ | {"PYTHONPATH": str(REPO / "python")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_broken_repository_builds_nothing(make_repository, tmp_path):
    folder = tmp_path / "environments"
    builder = start_build(make_repository(MODEL.replace("fit_model", "fit")), folder)
    said, _ = builder.communicate(timeout=60)
    assert builder.returncode == 1
    error = json.loads((tmp_path / "out.json").read_text())["error"]
    assert "has no method fit_model" in error and error in said
    assert not folder.exists()


def test_two_builds_take_turns(make_repository, tmp_path):
    repository = make_repository()
    folder = tmp_path / "environments"
    (folder / "locks").mkdir(parents=True)
    lock = folder / "locks" / f"{request_of(repository)}.lock"
    with open(lock, "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        builder = start_build(repository, folder)
        try:
            assert builder.stdout
            lines = iter(builder.stdout.readline, "")
            assert any("waiting for another build of the same environment" in l for l in lines)
        finally:
            builder.terminate()
            builder.communicate(timeout=60)
    assert builder.returncode == 143


def request_of(repository: Path) -> str:
    """What `build` would look for: found by letting it look in vain."""
    listed = conda.read(repository)
    seen = []

    class Stop(Exception):
        pass

    def turn(path):
        seen.append(path.stem)
        raise Stop

    original, build._turn = build._turn, turn
    try:
        with pytest.raises(Stop):
            build.run(repository, "c0ffee", "sklearn", repository.parent / "scratch")
    finally:
        build._turn = original
    assert listed
    return seen[0]


def test_the_key(make_repository):
    """Each of commit, flavor, packages and files makes another request; nothing else does."""
    repository = make_repository()
    first = request_of(repository)
    assert request_of(repository) == first
    (repository / "conda.yaml").write_text(CONDA + "  - scipy\n")
    assert request_of(repository) != first
    (repository / "conda.yaml").write_text(CONDA)
    assert request_of(repository) == first
    (repository / "data_manager.py").write_text(DATA + "# more\n")
    assert request_of(repository) != first


def test_a_folder_without_its_result_is_not_taken(tmp_path):
    own = tmp_path / "key" / "umbel"
    own.mkdir(parents=True)
    (own / "app.fab").write_bytes(b"x")
    assert build._finished(tmp_path / "key") is None
    (own / "result.json").write_text('{"python": ')
    assert build._finished(tmp_path / "key") is None
    result = {"python": sys.executable, "fab": str(own / "app.fab")}
    (own / "result.json").write_text(json.dumps(result))
    assert build._finished(tmp_path / "key") == result
    (own / "app.fab").unlink()
    assert build._finished(tmp_path / "key") is None


def test_initial_without_what_it_needs(make_repository, tmp_path):
    out = tmp_path / "out.json"

    def failure(model: str) -> str:
        (repository / "model_manager.py").write_text(model)
        done = command(
            *("initial", "--source", repository, "--flavor", "sklearn"),
            *("--model", tmp_path / "m.npz", "--out", out),
        )
        assert done.returncode == 1, done.stdout
        return json.loads(out.read_text())["error"]

    repository = make_repository(
        data=DATA.replace(
            "self.rows =", "import data_loading; data_loading.load_data_from_ml_data_server()#"
        )
    )
    asks = MODEL.replace("[np.zeros((2, 3)), np.zeros(3)]", "DataManager()")
    assert "only set_model_data may ask for data" in failure(asks)
    late = MODEL.replace("return self.weights", "return self.data.weights")
    assert "get_model_parameters raised AttributeError" in failure(late)
    assert not (tmp_path / "m.npz").exists()


def test_initial(make_repository, tmp_path):
    import numpy as np

    out, model = tmp_path / "out.json", tmp_path / "m.npz"
    done = command(
        *("initial", "--source", make_repository(), "--flavor", "sklearn"),
        *("--model", model, "--out", out),
    )
    assert done.returncode == 0, done.stdout
    assert json.loads(out.read_text()) == {
        "arrays": [
            {"name": "0", "shape": [2, 3], "dtype": "float64"},
            {"name": "1", "shape": [3], "dtype": "float64"},
        ]
    }
    with np.load(model) as file:
        assert file.files == ["0", "1"] and file["0"].shape == (2, 3)


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(make_repository, tmp_path):
    repository = make_repository()
    folder = tmp_path / "environments"
    killed = start_build(repository, folder)
    assert killed.stdout
    assert any(line.startswith("installing") for line in iter(killed.stdout.readline, ""))
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    (left,) = [path for path in folder.iterdir() if path.name != "locks"]
    assert build._finished(left) is None

    # Its children hold the lock, and end with it: the next build's turn comes.
    after = start_build(repository, folder)
    try:
        assert after.stdout
        lines = iter(after.stdout.readline, "")
        assert any("removing what an earlier build left unfinished" in line for line in lines)
        assert any(line.startswith("installing") for line in lines)
    finally:
        after.terminate()
        after.communicate(timeout=60)
    assert after.returncode == 143
    assert not left.exists()
