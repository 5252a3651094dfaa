"""`umbel up` as a test has it: started, asked, killed, and nothing of it left behind.

Environments are costly, and stay from session to session: the builder knows which are still right.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.harness.servers import REPO, free_port, umbel_bin, wait_until

DIGITS = Path(__file__).parent / "digits"
ENVIRONMENTS = REPO / "build" / "environments"  # the demo's too
MLFLOW = REPO / ".venv-mlflow" / "bin" / "python"
# A commit is part of what an environment is known by.
SAME_COMMIT = {f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}


def make_repository(source: Path, target: Path, **files: str | None) -> str:
    """A git repository with the files of `source`; its only commit, which is always the same.

    files  others in their place, by the name without its end; None takes one away
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in files.items():
        path = target / f"{name}.{'yaml' if name == 'conda' else 'py'}"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
    git = ["git", "-C", str(target), "-c", "user.name=Umbel", "-c", "user.email=umbel@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "example"]):
        subprocess.run([*git, *command], check=True, env=os.environ | SAME_COMMIT)
    return subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


class Up:
    """One state folder, and the process that owns it, if there is one."""

    def __init__(self, state: Path, host: str = "127.0.0.1", **flags: Any):
        self.state = state
        self.host = host
        self.log = state.with_suffix(".log")
        self.port = free_port()
        self.flags = {
            "host": host,
            "python": sys.executable,
            "mlflow-python": MLFLOW if MLFLOW.exists() else "",
            "tracking-port": free_port(),
            "aggregator-port": free_port(),
            "serving-port": free_port(),
            "flops-port": free_port(),
            "oakestra-port": free_port(),
            "data-port": free_port(),
        } | flags
        self.process: subprocess.Popen | None = None
        state.mkdir(parents=True, exist_ok=True)
        ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
        (state / "environments").symlink_to(ENVIRONMENTS)

    def start(self) -> None:
        command = [str(umbel_bin()), "up", "--state", str(self.state), "--port", str(self.port)]
        for name, values in self.flags.items():
            for value in values if isinstance(values, list) else [values]:
                command += [f"--{name}", str(value)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until("umbel up answers", self._answers, 30)

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]
        self.process = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.request(
            method,
            f"{self.url}/api/v1/{path}",
            headers={"Authorization": f"Bearer {self.token()}"},
            timeout=90,
            **more,
        )

    def password(self) -> str:
        return (self.state / "admin.password").read_text().strip()

    def token(self, name: str = "Admin", password: str | None = None) -> str:
        """Fresh for each call: a token lives for 15 minutes."""
        words = {"name": name, "password": password or self.password()}
        answer = httpx.post(f"{self.url}/api/v1/login", json=words, timeout=30)
        answer.raise_for_status()
        return answer.json()["token"]

    def get(self, path: str) -> Any:
        answer = self.request("GET", path)
        answer.raise_for_status()
        return answer.json()

    def submit(self, sla: dict[str, Any]) -> str:
        answer = self.request("POST", "projects", json=sla)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def project(self, name: str) -> dict[str, Any]:
        return self.get(f"projects/{name}")

    def wait_for(self, name: str, stages: set[str], seconds: float = 900) -> dict[str, Any]:
        """Until the project is in one of these stages; held by the server, not polled."""
        version = 0

        def look() -> dict[str, Any] | None:
            nonlocal version
            project = self.project(name)
            if project["stage"] in stages:
                return project
            version = self.get(f"changes?since={version}&wait=10")["version"]
            return None

        try:
            return wait_until(f"{name} in {stages}", look, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.story(name)}") from None

    def story(self, name: str) -> str:
        project = self.project(name)
        entries = self.get(f"projects/{name}/timeline")["entries"]
        lines = [f"{e['at'][11:23]} {e['stage']} {e['level']} {e['text']}" for e in entries]
        return "\n".join([*lines, json.dumps(project, indent=1), self.log.read_text()[-3000:]])

    def cli(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(umbel_bin()), *words, "--state", str(self.state)],
            capture_output=True,
            text=True,
            timeout=900,
        )

    @contextlib.contextmanager
    def held(self, project: str):
        """Learners of digits that come to train wait meanwhile."""
        homes = [self.state / "projects" / project / f"learner-{i}" / "home" for i in range(2)]
        for home in homes:
            home.mkdir(parents=True, exist_ok=True)
            (home / "hold").touch()
        yield
        for home in homes:
            (home / "hold").unlink()

    def keepers(self) -> dict[str, psutil.Process]:
        """By the name of the instance that each keeps."""
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if words[1:3] == ["keeper", "--folder"] and words[3].startswith(str(self.state)):
                found[Path(words[3]).name.partition("-")[2]] = process
        return found

    def instance(self, prefix: str) -> psutil.Process | None:
        """The process of an instance, if one lives whose name begins so."""
        for name, keeper in sorted(self.keepers().items()):
            with contextlib.suppress(psutil.Error):
                if name.startswith(prefix):
                    return next(iter(keeper.children()), None)
        return None

    def kill_instance(self, prefix: str, seconds: float = 120) -> str:
        """Kills one as soon as it lives; what was killed."""

        def find() -> str | None:
            process = self.instance(prefix)
            with contextlib.suppress(psutil.Error):
                if process is not None:
                    words = " ".join(process.cmdline()[:6])
                    process.kill()
                    return words
            return None

        return wait_until(f"{prefix} lives", find, seconds, 0.02)

    def orphans(self) -> list[str]:
        """Processes of this state folder that nobody keeps, and keepers of what is no instance."""
        listed = {
            instance["name"]
            for service in self.get("services")["services"]
            for instance in service["instances"]
        }
        keepers = self.keepers()
        known = {self.process.pid} if self.process else set()
        for name, keeper in keepers.items():
            if name in listed:
                known.add(keeper.pid)
                with contextlib.suppress(psutil.Error):
                    known.update(child.pid for child in keeper.children(recursive=True))
        left = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.pid not in known and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
        return left

    def processes(self, about: str = "") -> list[psutil.Process]:
        """All that have to do with this state folder and name `about`, such as a project's id: in
        their command line, environment or folder."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            if process.pid == os.getpid():
                continue
            with contextlib.suppress(psutil.Error, OSError):
                words = [*(process.info["cmdline"] or []), process.cwd()]
                words += process.environ().values()
                known = "\n".join(words)
                if str(self.state) in known and about in known:
                    found.append(process)
        return found

    def gone(self, project: str) -> bool:
        """Nothing of the project runs any more, but what serves its model."""
        service = self.project(project)["app_name"].removeprefix("proj")
        names = [each["name"] for each in self.get("services")["services"]]
        kinds = ("aggr", "aggrmodel", "flearner")
        deployed = [f"{kind}{service}" for kind in kinds if f"{kind}{service}" in names]
        left = [p for p in self.processes(project) if "models serve" not in " ".join(p.cmdline())]
        return not deployed and not left

    def remove_all(self) -> None:
        """Ends what a failed test has left; only what names this state folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
