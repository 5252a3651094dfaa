"""The worker process itself: loading, whether it may fork, serve, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from tests.harness.servers import wait_until
from tests.worker import peer
from tests.worker.peer import APPS, SECONDS, frames, gone

FIXED = "An exception was raised when attempting to load `ClientApp`"
HEAD = "from flwr.clientapp import ClientApp\nfrom flwr.app import *\napp = ClientApp()\n"
ECHO = "@app.train()\ndef train(msg, context):\n    return Message({}, reply_to=msg)\n"


def _app(folder: Path, name: str, code: str, head: str = HEAD) -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(head + code)
    return folder, f"{name}:app"


def test_ready_tells_who_it_is(python, sources, tmp_path):
    with contextlib.closing(peer.Worker(python, tmp_path, sources)) as worker:
        ready = worker.hear()
        assert ready["op"] == "ready" and ready["protocol"] == 2 and ready["pid"] == worker.pid
        want = subprocess.run(
            [python, "-c", "import importlib.metadata as m, platform as p;"
             "print(p.python_version(), m.version('flwr'))"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"{ready['python']} {ready['flwr']}" == want.stdout.strip()
        worker.say({"op": "stop"})
        assert worker.hear() is None
    assert worker.wait() == 0
    assert worker.log.read_text() == ""


def test_a_python_without_flower_is_unfit(sources, tmp_path):
    with contextlib.closing(peer.Worker("/usr/bin/python3", tmp_path, sources)) as worker:
        said = worker.hear()
        assert said["op"] == "unfit"
        assert "/usr/bin/python3" in said["reason"] and "flwr cannot be imported" in said["reason"]
        assert worker.hear() is None


def test_failures_of_loading(python, start, tmp_path):
    worker = start(python)

    def failure(name, code, attribute="app", head=HEAD):
        folder, ref = _app(tmp_path / name, name, code, head)
        found = worker.load(folder, ref.replace("app", attribute))
        assert found["op"] == "load_failed"
        return found["code"], found["reason"], found["traceback"]

    assert failure("absent", "", "no.such")[:2] == (1, FIXED)
    assert failure("other", "thing = 1\n", "thing")[:2] == (1, FIXED)
    assert failure("empty", "", "")[:2] == (1, FIXED)
    code, reason, trace = failure("raising", "raise ValueError('at import')\n")
    assert (code, reason) == (2, "<class 'ValueError'>:<'at import'>")
    assert "raising.py" in trace and "Traceback" in trace
    code, reason, _ = failure("missing", "import no_such_module\n")
    assert code == 2
    assert reason == "<class 'ModuleNotFoundError'>:<'No module named 'no_such_module''>"
    assert failure("leaving", "import sys\nsys.exit(4)\n")[:2] == (2, "<class 'SystemExit'>:<'4'>")
    assert failure("broken", "def\n")[0] == 2
    assert worker.load(tmp_path / "x", "no_such_module:app")["code"] == 2


USES = """
import os, sys
import extra, shadowed
assert sys.path[:2] == [os.path.dirname(__file__), os.path.dirname(extra.__file__)], sys.path
assert shadowed.of == "environment"
assert os.environ["PATH"].split(":")[0] == os.environ["VIRTUAL_ENV"] + "/bin"
@app.train()
def train(msg, context):
    content = RecordDict({"result": ConfigRecord({"seen": extra.value})})
    return Message(content, reply_to=msg)
"""


def test_the_environment_of_an_app_comes_first(start, tmp_path):
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "env" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "extra.py").write_text("value = 'x'\n")
    other = tmp_path / "other"
    other.mkdir()
    for folder, of in ((packages, "environment"), (other, "other")):
        (folder / "shadowed.py").write_text(f"of = {of!r}\n")
    worker = start(PYTHONPATH=str(other))
    app = _app(tmp_path / "app", "uses", USES)
    missing = worker.load(*app, environment=tmp_path / "none")
    assert missing["code"] == 2 and f"{tmp_path / 'none'}" in missing["reason"]
    assert worker.load(*app, environment=tmp_path / "env")["op"] == "loaded"
    with contextlib.closing(worker.job()) as job:
        assert job.call().result() == {"seen": "x"}


def test_the_legacy_kind_of_app(python, start):
    worker = start(python)
    assert worker.load(ref="legacy:app")["fork"]
    content = peer.records.decode(
        [
            ["fitins.parameters", "a", []],
            ["fitins.config", "c", [["round", 5]]],
        ],
        None,
    )
    content["fitins.parameters"] = ArrayRecord({"0": Array(np.ones(2, np.float32))})
    with contextlib.closing(worker.job()) as job:
        found = job.call(content).records()
        assert dict(found["fitres.num_examples"]) == {"num_examples": 7}
        assert dict(found["fitres.metrics"]) == {"seen": 5, "mod": True}
        assert np.array_equal(found["fitres.parameters"]["0"].numpy(), [2, 2])


OBSTACLES = {
    "thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(600,), "
               "daemon=True, name='pump').start()\n", "thread 'pump' is running"),
    "listener": ("import socket\ns = socket.create_server(('127.0.0.1', 0))\n", "socket:["),
    "file": ("f = open(__file__)\n", "obstacle_file.py"),
    "process": ("import subprocess\np = subprocess.Popen(['sleep', '600'])\n", "was started"),
    "folder": ("import tempfile\nd = tempfile.TemporaryDirectory()\n", "temporary directory"),
}  # fmt: skip
OPENMP = """
import ctypes, ctypes.util
omp = ctypes.CDLL("libgomp.so.1")
omp.omp_set_num_threads(2)
work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
omp.GOMP_parallel(work, None, 2, 0)
"""


@pytest.mark.parametrize("what", [*OBSTACLES])
def test_what_forbids_forking_is_told(start, tmp_path, what):
    code, why = OBSTACLES[what]
    worker = start()
    found = worker.load(*_app(tmp_path / "app", f"obstacle_{what}", code))
    assert found["op"] == "loaded" and not found["fork"]
    assert why in found["why"] and ";" not in found["why"], found
    left = psutil.Process(worker.pid).children()
    assert bool(left) == (what == "process")
    worker.close()
    assert all(gone(process.pid) for process in left)


def _has_gomp() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_gomp(), reason="no libgomp here")
def test_a_pool_of_openmp_forbids_forking(start, tmp_path):
    worker = start()
    found = worker.load(*_app(tmp_path / "app", "pool", OPENMP))
    assert not found["fork"] and "OpenMP" in found["why"], found


def test_linear_algebra_at_import_does_not_forbid_forking(start, tmp_path):
    code = "import numpy as np\na = np.ones((512, 512)); b = float((a @ a).sum())\n" + ECHO.replace(
        "Message({}", "Message(RecordDict({'m': MetricRecord({'b': float((a @ a).sum())})})"
    )
    worker = start()
    assert worker.load(*_app(tmp_path / "app", "algebra", code))["fork"]
    with contextlib.closing(worker.job()) as job:
        assert job.call().records()["m"]["b"] == 512.0**3


@pytest.mark.parametrize(("host", "fork"), [("fork", True), ("spawn", False)])
def test_the_apps_own_word_counts(start, tmp_path, host, fork):
    code = OBSTACLES["thread"][0] if fork else ""
    folder, ref = _app(tmp_path / "app", "declared", code)
    (folder / "pyproject.toml").write_text(f'[tool.umbel.clientapp]\nhost = "{host}"\n')
    found = start().load(folder, ref)
    assert found["fork"] is fork and host in found["why"]


SEEDS = """
import random, numpy as np
random.seed(1); np.random.seed(2); np.random.rand()
legacy, generator, instance = np.random.RandomState(3), np.random.default_rng(4), random.Random(5)
seeded_big = np.random.default_rng(1 << 127)
free_legacy, free_bits = np.random.RandomState(), np.random.Generator(np.random.Philox())
child_of_free = np.random.default_rng(np.random.SeedSequence().spawn(1)[0])
@app.train()
def train(msg, context):
    seeded = [random.random(), np.random.rand(), legacy.rand(), generator.random(),
              instance.random(), seeded_big.random()]
    free = [free_legacy.rand(), free_bits.random(), child_of_free.random()]
    record = MetricRecord({"seeded": list(map(float, seeded)), "free": list(map(float, free))})
    return Message(RecordDict({"m": record}), reply_to=msg)
"""


def test_seeds_of_the_import_hold_in_every_child(start, tmp_path):
    worker = start()
    assert worker.load(*_app(tmp_path / "app", "seeds", SEEDS))["fork"]
    found = []
    for _ in range(2):
        with contextlib.closing(worker.job()) as job:
            found.append(dict(job.call().records()["m"]))
    # As in a new process, which imports the app anew.
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'app')!r})\n" + (
        "from seeds import *\n"
        "print(*map(float, [random.random(), np.random.rand(), legacy.rand(),"
        " generator.random(), instance.random(), seeded_big.random()]))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    want = [float(text) for text in fresh.stdout.split()]
    assert found[0]["seeded"] == found[1]["seeded"] == want
    assert not set(found[0]["free"]) & set(found[1]["free"])


def test_serve_is_this_very_process(python, start):
    worker = start(python)
    worker.load()
    job = worker.job("serve")
    assert job.pid == worker.pid
    found = job.call(do="process").result()
    assert found["pid"] == worker.pid and found["stdin"] == "/dev/null"
    assert job.call(do="counts").result()["calls"] == 1
    pids = job.call(do="leaves_behind").result()["pids"]
    job.close()
    assert worker.wait() == 0
    assert all(map(gone, pids))
    assert worker.hear() is None


@pytest.mark.parametrize("how", ["stop", "end"])
def test_serve_ends_with_the_node(start, how):
    worker = start()
    worker.load()
    job = worker.job("serve")
    job.ask(do="sleeps")
    wait_until("it is at work", lambda: "asleep" in job.log.read_text(), SECONDS)
    if how == "stop":
        worker.say({"op": "stop"})
    else:
        worker.control.close()
    assert os.waitstatus_to_exitcode(worker.wait()) == -signal.SIGKILL


@pytest.mark.parametrize("how", ["stop", "end", "kill"])
def test_children_end_with_the_worker(start, how):
    worker = start()
    worker.load()
    jobs = [worker.job(), worker.job()]
    for job in jobs:
        job.ask(do="sleeps")
        wait_until("it is at work", lambda: "asleep" in job.log.read_text(), SECONDS)
    if how == "stop":
        worker.say({"op": "stop"})
        for job in jobs:
            assert os.waitstatus_to_exitcode(worker.end_of(job)) == -signal.SIGTERM
        assert worker.hear() is None
    elif how == "end":
        worker.control.close()
    else:
        os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_until("the children's end", lambda: all(gone(job.pid) for job in jobs), SECONDS)


def test_a_child_that_lingers_is_ended(sources, tmp_path):
    home = peer.install(tmp_path / "short")
    server = home / "_umbel_worker" / "server.py"
    text = server.read_text().replace("LINGER_SECONDS = 10.0", "LINGER_SECONDS = 0.1")
    server.write_text(text.replace("LOOK_MILLISECONDS = 1000", "LOOK_MILLISECONDS = 50"))
    with contextlib.closing(peer.Worker(sys.executable, tmp_path, home)) as worker:
        worker.expect("ready")
        worker.load()
        job = worker.job()
        job.ask(do="lingers")
        assert job.ended()
        assert os.waitstatus_to_exitcode(worker.end_of(job)) == -signal.SIGKILL


@pytest.mark.parametrize(
    "frame",
    [{"op": "dance"}, {"no": "op"}, {"op": "fork", "id": 1, "limits": {}}, {"op": 1}, 5],
)
def test_a_broken_control_frame_ends_it_with_one_line(start, frame):
    worker = start()
    worker.say(frame)
    assert worker.hear() is None
    assert os.waitstatus_to_exitcode(worker.wait()) == 1
    log = worker.log.read_text()
    assert log.startswith("umbel worker: FrameError: ") and log.count("\n") == 1


def test_the_users_own_umbel_is_theirs(start, tmp_path):
    """A package of that name in the user's environment, and files in the folder it runs in."""
    own = tmp_path / "own"
    (own / "umbel").mkdir(parents=True)
    (own / "umbel" / "__init__.py").write_text("whose = 'the user'\n")
    code = "import umbel, sys\nassert umbel.whose == 'the user'\nassert '' not in sys.path\n"
    worker = start(PYTHONPATH=str(own))
    found = worker.load(*_app(tmp_path / "app", "user", code))
    assert found["op"] == "loaded", found


def test_sources_work_under_their_own_name(repo):
    code = "import umbel.worker.server, umbel.worker.main"
    env = os.environ | {"PYTHONPATH": str(repo / "python")}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


