"""How the package gets to where a ServerApp runs."""

from __future__ import annotations

import ast
import io
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest

from tests.harness.federation import TOY
from tests.harness.servers import REPO, child_env, venv_program

SOURCES = REPO / "python" / "umbel" / "serverapp"
MODULES = {path.name for path in SOURCES.glob("*.py")}
SHOWS = "import umbel.serverapp as s; print(s.__file__, s.FedAvg().fraction_train)"


def check_imports_from(folder) -> None:
    env = child_env(folder, PYTHONPATH=str(folder))
    line = [sys.executable, "-c", SHOWS]
    done = subprocess.run(line, cwd=folder, env=env, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(folder / "umbel" / "serverapp" / "__init__.py"), "1.0"]


def test_what_is_installed_is_this_package_alone(tmp_path):
    project = shutil.copytree(REPO / "python", tmp_path / "python")
    library = tmp_path / "library"
    build = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build"]
    subprocess.run([*build, "--build-lib", library], cwd=project, check=True, capture_output=True)
    found = {str(path.relative_to(library)) for path in library.rglob("*") if path.is_file()}
    assert found == {f"umbel/serverapp/{name}" for name in MODULES}
    check_imports_from(library)


def test_a_copy_beside_an_app_s_package_goes_into_its_fab(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    app = shutil.copytree(TOY, tmp_path / "app", ignore=ignored)
    shutil.copytree(SOURCES, app / "umbel" / "serverapp", ignore=ignored)
    command = [venv_program("flwr"), "build", "--app", app]
    env = child_env(tmp_path / "home")
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    (fab,) = tmp_path.glob("*.fab")
    installed = tmp_path / "installed"
    zipfile.ZipFile(io.BytesIO(fab.read_bytes())).extractall(installed)
    assert {path.name for path in (installed / "umbel" / "serverapp").glob("*.py")} == MODULES
    check_imports_from(installed)


def test_it_names_the_flower_it_is_tested_with():
    project = tomllib.loads((REPO / "python" / "pyproject.toml").read_text())["project"]
    assert f"flwr~={metadata.version('flwr')}" in project["dependencies"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_it_uses_only_what_flower_makes_public(name):
    allowed = {"flwr.app", "flwr.serverapp", "flwr.serverapp.strategy", "numpy"}
    for node in ast.walk(ast.parse((SOURCES / name).read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in names:
            root = module.partition(".")[0]
            own = module.startswith("umbel.serverapp")
            assert own or module in allowed or root in sys.stdlib_module_names, module
