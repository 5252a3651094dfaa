"""What the tracker says, as MLflow's own client finds it in a real MLflow server."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.harness.servers import wait_until
from tests.tracking import peer

pytestmark = [
    pytest.mark.skipif(peer.program() is None, reason=f"{peer.PROGRAM} is not built"),
    pytest.mark.skipif(not peer.VENV.exists(), reason="scripts/bootstrap mlflow was not run"),
]

NOW = 1_800_000_000_000
FLUSH = {"ms": 120_000}
PARAMS = {"min_available_clients": "2", "fraction_fit": "1.0", "empty": "", "long": "v" * 7000}

RUNS = """
experiment = client.get_experiment_by_name(name)
out = [
    {"id": run.info.run_id, "name": run.info.run_name, "status": run.info.status,
     "user": run.info.user_id, "start": run.info.start_time, "end": run.info.end_time,
     "params": run.data.params, "tags": run.data.tags, "experiment": experiment.experiment_id,
     "metrics": {key: [[str(m.value), m.timestamp, m.step]
                       for m in client.get_metric_history(run.info.run_id, key)]
                 for key in run.data.metrics}}
    for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"],
                                  max_results=1000)]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[peer.Mlflow]:
    with peer.serving(tmp_path_factory.mktemp("mlflow")) as started:
        yield started


@pytest.fixture
def drive(server, tmp_path) -> Iterator[Callable[[], peer.Driver]]:
    """`drive()`: a tracker on this test's spool; the one before is killed."""
    drivers: list[peer.Driver] = []

    def start() -> peer.Driver:
        if drivers:
            drivers[-1].kill()
        drivers.append(peer.Driver(server.url, tmp_path / "spool.db"))
        return drivers[-1]

    yield start
    if drivers:
        drivers[-1].kill()


def id_of(experiment: str, number: int) -> str:
    return f"{experiment.encode().hex()}/{number}"


def begin(driver: peer.Driver, experiment: str, number: int, **more) -> str:
    run = id_of(experiment, number)
    driver.say("begin", run=run, experiment=experiment, name=f"FLOps FL round {number}",
               at=NOW + number, **more)  # fmt: skip
    return run


def test_a_project_of_three_rounds(server, drive):
    driver = drive()
    experiment = "FLOps Project 6a1f & ü%"
    for number in (1, 2, 3):
        run = begin(driver, experiment, number, params=PARAMS, tags={"umbel.project": "6a1f"})
        driver.say("log", run=run, metrics=[
            ["accuracy", number / 10, NOW, number], ["loss", 1 / number, NOW, number],
            ["system/cpu_utilization_percentage", 12.5, NOW, 0],
            ["system/cpu_utilization_percentage", 99.9, NOW + 5000, 1],
            ["nan", "nan", NOW, 1], ["up", "inf", NOW, 1], ["down", "-inf", NOW, 1],
        ])  # fmt: skip
        driver.say("tag", run=run, key="best", value="no")
        driver.say("tag", run=run, key="best", value="yes ✓")
        driver.say("end", run=run, status="FINISHED", at=NOW + 60_000)
    driver.say("flush", **FLUSH)
    assert driver.ask("state") == {"waiting": 0, "refused": 0, "trouble": ""}
    runs = server.look(RUNS, name=experiment)
    assert [run["name"] for run in runs] == [f"FLOps FL round {n}" for n in (1, 2, 3)]
    for number, run in enumerate(runs, 1):
        ids = driver.ask("ids", run=id_of(experiment, number))
        assert ids == {"run_id": run["id"], "experiment_id": run["experiment"]}
        assert (run["status"], run["user"]) == ("FINISHED", "umbel")
        assert (run["start"], run["end"]) == (NOW + number, NOW + 60_000)
        # MLflow cuts what is longer than 6000.
        assert run["params"] == {**PARAMS, "long": "v" * 6000}
        assert (run["tags"]["best"], run["tags"]["umbel.project"]) == ("yes ✓", "6a1f")
        metrics = run["metrics"]
        assert metrics["accuracy"] == [[str(number / 10), NOW, number]]
        assert metrics["loss"] == [[str(1 / number), NOW, number]]
        assert [m[2] for m in metrics["system/cpu_utilization_percentage"]] == [0, 1]
        assert math.isnan(float(metrics["nan"][0][0]))
        assert float(metrics["up"][0][0]) > 1e308 and float(metrics["down"][0][0]) < -1e308
    run = id_of(experiment, 1)
    assert driver.ask("history", run=run, key="nan")["values"] == ["nan"]


def test_refused_entries_are_set_aside(server, drive):
    driver = drive()
    run = begin(driver, "refused", 1, params={"fixed": "first"})
    driver.say("flush", **FLUSH)
    server.look("client.log_param(run, 'changed', 'theirs')\nout = 0",
                run=driver.ask("ids", run=run)["run_id"])  # fmt: skip
    # Another process, the same run begun anew: what it says of it counts no more.
    driver = drive()
    begin(driver, "refused", 1, params={"fixed": "other"})
    points = [["loss", 1.0, NOW, n] for n in range(50)]
    driver.say("log", run=run, metrics=[*points, ["bad*name", 1.0, NOW, 7], ["a" * 300, 1, NOW, 8],
                                        ["last", 1.0, NOW, 9]])  # fmt: skip
    driver.say("end", run=run, status="FAILED", at=NOW)
    driver.say("flush", **FLUSH)
    state = driver.ask("state")
    assert (state["waiting"], state["refused"]) == (0, 2)
    assert "2 entries are set aside" in state["trouble"]
    assert "400 INVALID_PARAMETER_VALUE" in state["trouble"]
    [found] = server.look(RUNS, name="refused")
    assert found["status"] == "FAILED"
    assert found["params"] == {"fixed": "first", "changed": "theirs"}
    assert len(found["metrics"]["loss"]) == 50 and "last" in found["metrics"]


def test_more_params_than_a_batch_takes_and_a_run_that_ended(server, drive):
    driver = drive()
    server.kill()
    run = begin(driver, "params", 1, params={f"p{n}": str(n) for n in range(120)})
    driver.say("log", run=run, metrics=[["loss", 1.0, NOW, 1]])
    server.start()
    wait_until("the run", lambda: driver.ask("ids", run=run)["run_id"], 60)
    driver.say("flush", **FLUSH)
    [found] = server.look(RUNS, name="params")
    assert found["params"] == {f"p{n}": str(n) for n in range(120)}
    server.look("client.set_terminated(run)\nout = 0", run=found["id"])
    driver.say("log", run=run, metrics=[["loss", 1.0, NOW, 2]])
    driver.say("flush", **FLUSH)
    assert driver.ask("state")["refused"] == 0


def test_deleted_experiments_and_runs(server, drive):
    driver = drive()
    first = begin(driver, "deleted", 1)
    driver.say("flush", **FLUSH)
    ids = driver.ask("ids", run=first)
    server.look("client.delete_experiment(experiment)\nout = 0", experiment=ids["experiment_id"])
    begin(driver, "deleted", 2)
    driver.say("flush", **FLUSH)
    assert len(server.look(RUNS, name="deleted")) == 2
    server.look("client.delete_run(run)\nout = 0", run=ids["run_id"])
    driver.say("log", run=first, metrics=[["loss", 1.0, NOW, n] for n in range(2000)])
    driver.say("flush", **FLUSH)
    state = driver.ask("state")
    assert state["refused"] == 2000
    assert "it was deleted there" in state["trouble"]


def test_models_and_their_aliases(server, drive):
    driver = drive()
    run = begin(driver, "models", 1)
    driver.say("flush", **FLUSH)
    ids = driver.ask("ids", run=run)
    server.look(
        "client.create_registered_model(name)\n"
        "v = client.create_model_version(name, 'runs:/' + run + '/model', run)\n"
        "client.set_registered_model_alias(name, 'best', v.version)\n"
        "client.create_registered_model('empty')\nout = 0",
        name="flops model ü", run=ids["run_id"],
    )  # fmt: skip
    assert driver.ask("models")["models"] == {"flops model ü": {"best": 1}, "empty": {}}
    best = driver.ask("best", model="flops model ü")
    assert (best["version"], best["run_id"]) == (1, ids["run_id"])
    assert "404 RESOURCE_DOES_NOT_EXIST" in driver.ask("best", model="nobody")["error"]


def test_kills_of_both_sides(server, drive, say):
    """The tracker killed at random moments, MLflow killed, stopped and started in between."""
    seed = random.SystemRandom().randrange(1_000_000)
    say(f"seed {seed}")
    rng = random.Random(seed)
    runs, wanted = 6, {}
    driver = drive()
    for number in range(runs):
        run = begin(driver, "kills", number, params={"number": str(number)})
        wanted[run] = []
        for step in range(8):
            if rng.random() < 0.4:
                driver = drive()
            if (number, step) == (2, 3):
                server.kill()
            if (number, step) == (4, 5):
                server.start()
            count = rng.choice([1, 10, 1200])
            points = [[f"m{n % 3}", n / 7, NOW + step, step * 10_000 + n] for n in range(count)]
            driver.say("log", run=run, metrics=points)
            if rng.random() < 0.3:  # kept, but not heard: said again
                driver = drive()
                driver.say("log", run=run, metrics=points)
            wanted[run] += points
        driver.say("end", run=run, status="FINISHED", at=NOW + 1000)
    server.pause()
    driver = drive()
    begin(driver, "kills", runs)
    server.resume()
    driver.say("flush", **FLUSH)
    assert driver.ask("state") == {"waiting": 0, "refused": 0, "trouble": ""}
    found = {run["tags"]["umbel.run"]: run for run in server.look(RUNS, name="kills")}
    assert len(server.look(RUNS, name="kills")) == runs + 1
    for run, points in wanted.items():
        assert found[run]["status"] == "FINISHED"
        got = {
            (key, float(value), at, step)
            for key, history in found[run]["metrics"].items()
            for value, at, step in history
        }
        assert got == {tuple(point) for point in points}
        assert sum(map(len, found[run]["metrics"].values())) == len(points)


def test_a_long_outage_is_caught_up_quickly(server, drive, say):
    driver = drive()
    server.kill()
    for number in range(20):
        run = begin(driver, "outage", number, params={"a": "b"})
        for step in range(5):
            points = [["m", n / 3, NOW, n + step * 200] for n in range(200)]
            driver.say("log", run=run, metrics=points)
        driver.say("end", run=run, status="FINISHED", at=NOW)
    server.start()
    begun = time.monotonic()
    driver.say("flush", **FLUSH)
    say(f"20 runs, 20 000 points caught up in {time.monotonic() - begun:.1f} s")
    found = server.look(RUNS, name="outage")
    assert [len(run["metrics"]["m"]) for run in found] == [1000] * 20
    assert {run["status"] for run in found} == {"FINISHED"}
