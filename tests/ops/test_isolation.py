"""User code of a learner reaches nobody and nothing but what it needs, and trains all the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

from tests.harness.servers import wait_until
from tests.ops.conftest import sla
from tests.ops.test_base_case import check_result

SPY = Path(__file__).with_name("spy.py")


def commit_spy(repository: Path) -> None:
    file = repository / "model_manager.py"
    file.write_text(file.read_text() + "\n\n" + SPY.read_text())
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "commit", "--quiet", "-am", "a spy"], check=True)


def give(home: Path, tries: list) -> None:
    """What a spy is to try, in the place where it looks; whole at once."""
    home.mkdir(parents=True, exist_ok=True)
    part = home / "spy.part"
    part.write_text(json.dumps(tries))
    part.rename(home / "spy.json")


def socket_of(up, node: str, project: str, learner: str) -> Path:
    """The true path of a learner's data socket, as the process of its data server has it."""
    key = hashlib.sha256(json.dumps([project, learner], separators=(",", ":")).encode())
    for process in up.processes():
        words = process.cmdline()
        if "--learner-sockets" in words:
            folder = Path(words[words.index("--learner-sockets") + 1])
            if folder.name == node:
                return next(folder.glob(f"{key.hexdigest()[:12]}/data.sock"))
    raise AssertionError(f"no data server on {node}")


def test_user_code_reaches_nobody(up, repository):
    ports = [up.port] + [
        int(up.flags[name])
        for name in ("tracking-port", "aggregator-port", "flops-port", "oakestra-port", "data-port")
    ]
    commit_spy(repository)
    mock = {"dataset_name": "digits", "number_of_partitions": 2, "data_tag": "digits"}
    document = {"customerID": "Admin", "mock_data_configuration": mock}
    assert up.request("POST", "mocks", json=document).status_code == 201
    document = sla(repository)
    document["training_configuration"]["data_tags"] = ["digits"]
    name = up.submit(document)
    up.wait_for(name, {"train", "failed"})
    learners = {
        instance["name"]: instance["node"]
        for service in up.get("services")["services"]
        if service["name"].startswith("flearner")
        for instance in service["instances"]
    }
    assert sorted(learners.values()) == ["node-1", "node-2"]
    project = up.state / "projects" / name
    homes = {learner: project / f"learner-{learner[-1]}" / "home" for learner in learners}
    sockets = {each: socket_of(up, node, name, each) for each, node in learners.items()}
    supernodes = {
        learner: next(
            process.pid
            for process in up.processes()
            if {"supernode", str(home.parent)} <= set(process.cmdline())
        )
        for learner, home in homes.items()
    }
    secrets = [
        up.state / "admin.password",
        up.state / "accounts.json",
        up.state / "manager.db",
        next((project / "aggregator").rglob("*.db")),
        next(path for path in (up.state / "repositories").rglob("HEAD")),
        up.state / "projects" / name / "steps" / "initial" / "result.json",
    ]
    for learner in learners:
        (other,) = set(learners) - {learner}
        tries = [["port", port] for port in ports]
        tries += [["socket", str(sockets[other])], ["socket", str(sockets[learner])]]
        tries += [["list", str(sockets[other].parent)], ["list", str(homes[other])]]
        tries += [["read", str(path)] for path in secrets]
        tries += [["write", str(up.state / "spy")], ["write", str(homes[other] / "spy")]]
        for pid in (up.process.pid, supernodes[learner], supernodes[other]):
            tries += [["kill", pid], ["memory", pid], ["root", pid]]
        # All of it is there, for those who may.
        assert all(os.path.exists(path) for kind, path in tries if kind in ("socket", "list", "read"))
        give(homes[learner], tries)
    check_result(up, up.wait_for(name, {"done", "failed", "cancelled"}))
    assert up.process.poll() is None
    for learner in learners:
        told = up.cli("logs", learner).stdout
        lines = re.findall(r"spy: (\w+) (\S+): (reached|away)", told)
        (other,) = set(learners) - {learner}
        # It may write below /tmp, which is a folder of its own whatever is shown there.
        reached = [(kind, what) for kind, what, end in lines if end == "reached"]
        reached = [each for each in reached if each[0] != "write" or not each[1].startswith("/tmp/")]
        assert reached == [("socket", str(sockets[learner]))], told
        assert not (up.state / "spy").exists() and not (homes[other] / "spy").exists()
        assert not list((up.state / "environments").glob("*/spy"))
        assert len(lines) == len(ports) + 4 + len(secrets) + 2 + 9 + 2, told
        assert "spy: 0 routes" in told
        seen = re.search(r"spy: learner sees (\d+) processes", told)
        assert seen and int(seen[1]) < 10, told
