"""Apps that need more than the site's Python has: with --allow-runtime-dependency-installation each
way to host ClientApps installs it. Without any network: uv finds wheels in a folder."""

from __future__ import annotations

import hashlib
import json
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.federation import Federation, edited_fab, umbel_node
from tests.harness.servers import REPO, start_server

HOSTILE = REPO / "tests" / "apps" / "hostile"  # whose ServerApp writes down what comes back
ALLOW = "--allow-runtime-dependency-installation"
KINDS = (
    umbel_node("worker", ALLOW),
    umbel_node("resident", ALLOW),
    umbel_node("stock", ALLOW),
    umbel_node("worker"),
)
WORKER, RESIDENT, STOCK, WITHOUT = range(len(KINDS))
CLIENT = """
import shutil

import flwr
import umbel_probe
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(msg, context):
    found = {"value": umbel_probe.VALUE, "file": umbel_probe.__file__, "flwr": flwr.__file__}
    found["tool"] = shutil.which("umbel-probe") or ""
    return Message(RecordDict({"metrics": ConfigRecord(found)}), reply_to=msg)
"""
pytestmark = pytest.mark.usefixtures("umbel_bin")


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> None:
    """A wheel of pure Python."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()
    )
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(path, text)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def make_fab(hostile: bytes, *dependencies: str) -> bytes:
    project = (HOSTILE / "pyproject.toml").read_text()
    line = 'dependencies = ["flwr>=1.41.0"]'
    assert line in project
    wanted = json.dumps(["flwr>=1.41.0", *dependencies])
    project = project.replace(line, f'requires-python = ">=3.10"\ndependencies = {wanted}')
    files = {"pyproject.toml": project.encode(), "hostile/client_app.py": CLIENT.encode()}
    return edited_fab(hostile, files)


class Sites:
    """A node of each kind."""

    def __init__(self, federation: Federation):
        self.federation = federation
        self.hostile = federation.build(HOSTILE)

    def begin(self, *dependencies: str, steps: int = 1) -> tuple[int, Path]:
        output = self.federation.output().stem
        config = {"min-nodes": len(KINDS), "steps": ",".join(["x"] * steps), "output": str(output)}
        return self.federation.start(config, make_fab(self.hostile, *dependencies)), output

    def end(self, run: tuple[int, Path]) -> list[list[dict]]:
        """The answers of each node, in the order of KINDS."""
        run_id, output = run
        self.federation.wait_state(run_id, "finished:completed", 120)
        answers = json.loads(output.read_text())
        ids = [node.status()["sites"][0]["node_id"] for node in self.federation.nodes]
        return [[a for a in answers if str(a["src"]) == str(node)] for node in ids]

    def ask(self, *dependencies: str, steps: int = 1) -> list[list[dict]]:
        return self.end(self.begin(*dependencies, steps=steps))

    def builds(self, node: int) -> int:
        text = self.federation.nodes[node].child.log_text()
        return text.count("an app's dependencies are being installed")

    def environments(self, node: int) -> set[Path]:
        folder = self.federation.nodes[node].state / "environments"
        return {path for path in folder.iterdir() if path.is_dir()}


@pytest.fixture(scope="module")
def sites(folder) -> Iterator[Sites]:
    wheels = folder / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        info = f"umbel_probe-{version}.dist-info"
        files = {
            "umbel_probe.py": f"VALUE = 'installed {version}'\n\n\ndef main():\n    pass\n",
            f"{info}/entry_points.txt": "[console_scripts]\numbel-probe = umbel_probe:main\n",
        }
        make_wheel(wheels, "umbel_probe", version, files)
    # For uv to resolve, not to install: the site's own Flower stays.
    make_wheel(wheels, "flwr", "99.0", {"flwr/__init__.py": "raise ImportError('another flwr')\n"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_FIND_LINKS", str(wheels))
        patch.setenv("UV_NO_INDEX", "1")
        patch.setenv("UV_OFFLINE", "1")
        patch.setenv("UV_CACHE_DIR", str(folder / "uv-cache"))
        with start_server("umbel", home=folder / "server") as server:
            options = {"nodes": len(KINDS), "node": list(KINDS)}
            with Federation(server, folder / "federation", **options) as federation:
                yield Sites(federation)
                federation.wait_gone(federation.serverapps(), 15)


def check_found(answers: list[list[dict]], value: str) -> None:
    """Answers of the sites that may install; errors of the one that may not."""
    for node, own in enumerate(answers):
        assert own, answers
        # Flower removes its environment after a message, perhaps while the next one's is being made.
        for answer in own[:1] if node == STOCK else own:
            if node == WITHOUT:
                assert answer["code"] == 2, answer
                assert "No module named 'umbel_probe'" in answer["reason"]
                continue
            assert answer["code"] is None, answer
            found = answer["metrics"]
            assert found["value"] == value
            packages = Path(found["file"]).parent
            assert Path(found["tool"]).parents[1] == packages.parents[2]
            assert Path(found["flwr"]).parents[1] != packages


def test_each_host_installs_what_the_app_needs(sites):
    answers = sites.ask("umbel-probe<2", steps=2)
    check_found(answers, "installed 1.0")
    for node in (WORKER, RESIDENT):
        (environment,) = sites.environments(node)
        for answer in answers[node]:
            assert Path(answer["metrics"]["file"]).is_relative_to(environment / "venv")
        assert environment.with_suffix(".complete").is_file()
        assert not (environment / "app").exists()


def test_what_cannot_be_had_is_one_error_reply_and_the_node_goes_on(sites):
    assert [sites.builds(node) for node in range(len(KINDS))] == [1, 1, 0, 0]
    answers = sites.ask("umbel-no-such-package", steps=2)
    for node in (WORKER, RESIDENT, STOCK):
        assert len(answers[node]) == 2
        for answer in answers[node]:
            assert answer["code"] == 2, answer
            assert "umbel-no-such-package" in answer["reason"]
            assert len(answer["reason"]) < 3000
    for node in (WORKER, RESIDENT):
        reasons = {answer["reason"] for answer in answers[node]}
        (reason,) = reasons
        assert reason.startswith("The app's dependencies could not be installed: uv sync exited")
    # The other environment is there, and what failed was tried once for the run.
    check_found(sites.ask("umbel-probe<2"), "installed 1.0")
    assert [sites.builds(node) for node in range(len(KINDS))] == [2, 2, 0, 0]
    assert all(node.running for node in sites.federation.nodes)


def test_two_runs_at_once_have_it_made_once(sites):
    before = [sites.builds(node) for node in (WORKER, RESIDENT)]
    runs = [sites.begin("umbel-probe>=2") for _ in range(2)]
    for run in runs:
        check_found(sites.end(run), "installed 2.0")
    assert [sites.builds(node) for node in (WORKER, RESIDENT)] == [n + 1 for n in before]


def test_environments_outlive_the_node(sites):
    node = sites.federation.nodes[WORKER]
    before = sites.environments(WORKER)
    assert len(before) == sites.builds(WORKER) - 1 == 2  # one build has failed
    node.restart()
    sites.federation.wait_online(len(KINDS))
    check_found(sites.ask("umbel-probe>=2"), "installed 2.0")
    assert sites.builds(WORKER) == 0 and sites.environments(WORKER) == before
