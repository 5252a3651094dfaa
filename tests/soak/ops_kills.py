"""Row ops-kills: the manager is killed with -9 at random moments of the base case, and each service
once; every project comes to `done` with one model logged, and nothing is left over.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.harness.servers import wait_until
from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result, mlflow
from tests.ops.up import DIGITS, Up, make_repository
from tests.soak.crash import CrashError, kill_moments

AT_ONCE = 3  # kills of one project
ENDED = {"done", "failed", "cancelled"}
SERVE = ["build_image_for_trained_model", "deploy_trained_model_image"]
DATA = "digits"  # a tag, so that there are data servers


def short(up: Up, project: str) -> str:
    """What the names of the project's services end with, but for the builder's."""
    return up.project(project)["app_name"].removeprefix("proj")


def check_whole(up: Up, project: dict) -> None:
    """Done, three rounds, one model in all of MLflow; nothing runs that should not."""
    check_result(up, project)
    url = up.get("tracking?customer=Admin")["url"]
    name = f"FLOps Project {project['id']}"
    found = httpx.get(
        f"{url}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": name}, timeout=60
    )
    experiment = found.json()["experiment"]["experiment_id"]
    models = mlflow(url, "logged-models/search", experiment_ids=[experiment]).get("models", [])
    assert len(models) == 1, models
    versions = httpx.get(
        f"{url}/api/2.0/mlflow/model-versions/search",
        params={"filter": f"name='{project['app_name']}'"},
        timeout=60,
    ).json()
    assert len(versions["model_versions"]) == 1, versions
    wait_until("nothing of it is left", lambda: up.gone(project["id"]), 60)
    wait_until("there are no orphans", lambda: not up.orphans(), 30)


def kill_worker(up: Up, project: str) -> str:
    """A learner's Python process."""

    def find() -> str | None:
        learner = up.instance(f"flearner{short(up, project)}.0")
        for child in learner.children(recursive=True) if learner else []:
            if "python" in child.name():
                child.kill()
                return child.name()
        return None

    return wait_until("a learner's worker lives", find, 60, 0.05)


def kill_keeper(up: Up, project: str) -> str:
    name = f"flearner{short(up, project)}.1"
    up.keepers()[name].kill()
    return name


def prefix_of(up: Up, project: str, kind: str) -> str:
    """How the name of its instance begins; a builder's is hashed of something else."""
    return kind if kind in ("builder", "tracking", "mldata") else f"{kind}{short(up, project)}."


def kill_in(stage: str, kind: str) -> Callable[[Up, str], str]:
    """The first instance of this kind, once the project is so far."""

    def kill(up: Up, project: str) -> str:
        if stage != "build":  # which is short
            up.wait_for(project, {stage, *ENDED})
        return up.kill_instance(prefix_of(up, project, kind))

    return kill


def training(up: Up, project: str) -> bool:
    """Whether the project's learners have been asked for a round."""
    return "for round" in up.project(project)["waiting_for"]


def kill_held(victim: Callable[[Up, str], str]) -> Callable[[Up, str], str]:
    """While a round waits for its learners."""

    def kill(up: Up, project: str) -> str:
        with up.held(project):
            up.wait_for(project, {"train", *ENDED})
            wait_until("training is under way", lambda: training(up, project), 60, 0.05)
            return victim(up, project)

    return kill


# What is killed, and when.
VICTIMS: dict[str, Callable[[Up, str], str]] = {
    "builder": kill_in("build", "builder"),
    "initial model": kill_in("build", "aggrmodel"),
    "aggregator": kill_held(kill_in("train", "aggr")),
    "learner": kill_held(kill_in("train", "flearner")),
    "learner's worker": kill_held(kill_worker),
    "learner's keeper": kill_held(kill_keeper),
    "data server": kill_held(kill_in("train", "mldata")),
    "tracking while rounds go on": kill_held(kill_in("train", "tracking")),
    "logging of the model": kill_in("record", "aggrmodel"),
    "tracking while the model is logged": kill_in("record", "tracking"),
    "served model": kill_in("serve", "trmodel"),
}


def base_case(repository: Path, serve: bool = False) -> dict:
    document = sla(repository, post_training_steps=SERVE if serve else [])
    document["training_configuration"]["data_tags"] = [DATA]
    return document


def serves(up: Up, project: str) -> bool:
    name = f"trmodel{short(up, project)}"
    for service in up.get("services")["services"]:
        if service["name"].startswith("trmodel") and service["url"]:
            try:
                return httpx.get(f"{service['url']}/ping", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False
    raise CrashError(f"there is no service {name}")


def kill_services(up: Up, repository: Path, say: Callable[[str], None]) -> int:
    """Each once, in a project of its own."""
    for what, kill in VICTIMS.items():
        project = up.submit(base_case(repository, serve=what == "served model"))
        words = kill(up, project)
        check_whole(up, up.wait_for(project, ENDED))
        if what == "served model":
            wait_until("the model is served", lambda p=project: serves(up, p), 60)
            up.kill_instance("trmodel")
            wait_until("the model is served again", lambda p=project: serves(up, p), 60)
        up.request("DELETE", f"projects/{project}")
        say(f"{what} ({words[:60]}): done")
    return len(VICTIMS)


def kill_manager(up: Up, repository: Path, moments: list[float], seconds: float) -> str:
    """A project whose manager is killed at these moments, as fractions of `seconds`."""
    begin = time.monotonic()
    project = up.submit(base_case(repository))
    seen = []
    for moment in sorted(moments):
        time.sleep(max(0.0, begin + moment * seconds - time.monotonic()))
        seen.append(f"{up.project(project)['stage']} at {moment:.2f}")
        up.kill()
        up.start()
    check_whole(up, up.wait_for(project, ENDED))
    up.request("DELETE", f"projects/{project}")
    return f"{', '.join(seen)}; done after {time.monotonic() - begin:.1f} s"


def soak(kind: str, folder: Path, count: int, seed: int, say: Callable[[str], None]) -> str:
    """`count` kills of the manager, AT_ONCE to a project, after one of each service."""
    del kind
    rng = random.Random(seed)
    up, repository = Up(folder / "up"), folder / "digits"
    make_repository(DIGITS, repository)
    up.start()
    try:
        made = up.cli("data", "mock", "--dataset", "digits", "--partitions", "2", "--tag", DATA)
        assert made.returncode == 0, made.stderr
        seconds = 0.0
        for _ in range(2):  # the second has its environment
            begin = time.monotonic()
            check_whole(up, up.wait_for(up.submit(base_case(repository)), ENDED))
            seconds = time.monotonic() - begin
        say(f"undisturbed: {seconds:.1f} s")
        services = kill_services(up, repository, say)
        killed, failures = 0, []
        while killed < count:
            many = min(AT_ONCE, count - killed)
            killed += many
            try:
                line = kill_manager(up, repository, kill_moments(rng, many), seconds)
                say(f"{killed}/{count} {line}")
            except (AssertionError, TimeoutError, httpx.HTTPError, psutil.Error) as error:
                failures.append(str(error).splitlines()[0])
                say(f"{killed}/{count} FAILED: {error}")
        if failures:
            raise CrashError(f"{len(failures)} projects failed: {failures[0]}")
        up.stop()
        wait_until("nothing is left", lambda: not up.processes(), 30)
        return f"{count} kills of the manager, {services} of services: one model each, no orphans"
    finally:
        up.remove_all()
