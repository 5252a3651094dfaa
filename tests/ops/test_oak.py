"""The base case through unmodified `oak`: submits, shows, inspects, ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.harness.servers import REPO, have_umbel
from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result
from tests.ops.up import Up

OAK = REPO / ".venv-oak" / "bin" / "oak"
ROW = re.compile(r"│\s*(\S+)\s*│\s*([0-9a-f]{24})\s*│\s*(.*?)\s*│\s*(\S+)\s*│\s*([0-9a-f]{24})\s*│")


class Oak:
    """A person's home with `oak` set up as its first questions would."""

    def __init__(self, home: Path, host: str):
        self.environment = {"HOME": str(home), "COLUMNS": "130", "NO_PROXY": "*", "no_proxy": "*"}
        folder = home / "oak_cli"
        folder.mkdir(parents=True)
        (folder / ".init_flag").touch()
        (folder / ".oak_cli_config").write_text(
            "[OAK_CLI]\nconfig_version = 1\n"
            f'local_machine_purpose = ["everything"]\nsystem_manager_ip = {host}\n'
        )

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(OAK), *words], env={**os.environ, **self.environment},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def services(self) -> dict[str, tuple[str, list[str], str]]:
        """Of each service: its id, "NUMBER STATUS" of its instances, its app."""
        found: dict[str, tuple[str, list[str], str]] = {}
        # A service's name stands in the middle of its instances; a line of dashes parts services.
        for block in re.split(r"\n[^\n│]*─{9}[^\n]*", self("s", "s")):
            states = [f"{n} {name}" for n, name in re.findall(r"(\d+) ([A-Z_]{4,})", block)]
            if row := ROW.search(block):
                found[row[1]] = (row[2], states, row[4])
        return found


@pytest.fixture
def host() -> str:
    """An address of this machine that nobody else uses: `oak` knows no ports."""
    return f"127.0.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"


@pytest.fixture
def up(tmp_path, host):
    if not have_umbel() or not OAK.exists():
        pytest.skip("umbel is not built, or there is no .venv-oak")
    flags = {"flops-port": 5072, "oakestra-port": 10000, "oak-login": "127.0.0.0/8"}
    one = Up(tmp_path / "up", host, **flags)
    one.start()
    yield one
    one.remove_all()


def test_the_base_case(up, host, repository, tmp_path):
    oak = Oak(tmp_path / "home", host)
    assert "No services exist yet" in oak("s", "s")
    assert "No applications exist yet" in oak("a", "s")
    document = tmp_path / "sla.json"
    document.write_text(json.dumps(sla(repository)))
    oak("addon", "flops", "p", "--project-sla-file-name", str(document))
    (project,) = up.get("projects")["projects"]
    up.wait_for(project["id"], {"train", "record", "failed", "done"})
    services = oak.services()
    prefixes = [re.sub(r"[0-9a-f]{12}$", "", name) for name in services]
    assert prefixes[:2] == ["observ", "tracking"], services
    if {"aggr", "flearner"} <= set(prefixes):
        for name, (_, states, app) in services.items():
            assert app == ("observatory" if name.startswith(("observ", "tracking")) else project["app_name"])
            if name.startswith("flearner"):
                assert [state.split()[0] for state in states] == ["0", "1"]
    oak("addon", "flops", "t")
    check_result(up, up.wait_for(project["id"], {"done", "failed", "cancelled"}))
    services = oak.services()
    observer = next(name for name in services if name.startswith("observ"))
    assert services[observer][1] == ["0 RUNNING"]
    inspected = oak("s", "i", services[observer][0])
    assert "Project Observer started" in inspected
    assert "Aggregator tasks completed successfully." in inspected
    assert "observatory" in oak("a", "s")
    clusters = oak("cl", "ls")
    assert "cluster-0" in clusters
    assert "FLOps-learner" in oak("cl", "i", "cluster-0")


def test_who_may_log_in(up, host, tmp_path):
    """Only from the network that was named; and what is wrong ends `oak` without a table."""
    import httpx

    url = f"http://{host}:10000/api/auth/login"
    words = {"username": "Admin", "password": "Admin"}
    assert httpx.post(url, json=words).status_code == 200
    assert httpx.post(url, json=words | {"password": "admin"}).status_code == 401
    up.stop()
    up.flags["oak-login"] = "10.0.0.0/8"
    up.start()
    assert httpx.post(url, json=words).status_code == 401
    own = httpx.post(url, json={"username": "Admin", "password": up.password()})
    assert own.status_code == 200
    bearer = {"Authorization": f"Bearer {own.json()['token']}"}
    assert httpx.get(f"http://{host}:10000/api/services/", headers=bearer).json() == []
    assert httpx.get(f"http://{host}:10000/api/services/").status_code == 401
    Oak(tmp_path / "home", host)("s", "s", code=1)


def test_a_sla_that_is_wrong(up, host, tmp_path):
    oak = Oak(tmp_path / "home", host)
    document = tmp_path / "sla.json"
    document.write_text(json.dumps({"customerID": "Admin"}))
    oak("addon", "flops", "p", "--project-sla-file-name", str(document), code=1)
    assert up.get("projects") == {"projects": []}
