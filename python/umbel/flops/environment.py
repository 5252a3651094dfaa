"""The Python environment of a repository: its packages, pinned with hashes, in a venv of uv's."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from . import children, conda
from .words import Failed, one_line, say

COMPILE_SECONDS = 300.0
INSTALL_SECONDS = 3600.0
IMPORT_SECONDS = 600.0
PYTHON_LEAST = (3, 10)

# The learner's host, FLOps' templates, tracking and serving. With datasets 4 columns became lazy,
# and repositories that reshape them, as FLOps' samples do, no longer run; a conda.yaml that lists
# datasets decides for itself.
PLATFORM = {
    "flwr": "flwr==1.41.0",
    "flops-utils": "flops-utils==0.6.3",
    "mlflow": "mlflow==3.17.2",
    "datasets": "datasets>=3,<4",
    "pyarrow": "pyarrow",
    "pillow": "pillow",
}
# Plumbing that MLflow writes into a conda.yaml beside what the model needs. Such a pin yields when
# the platform's packages contradict it; any other contradiction is the user's to settle.
YIELDING = {
    "astunparse", "attrs", "certifi", "cffi", "charset-normalizer", "click", "cloudpickle",
    "cryptography", "dill", "filelock", "fsspec", "idna", "importlib-metadata", "jinja2",
    "markupsafe", "multiprocess", "packaging", "pillow", "protobuf", "psutil", "pyarrow",
    "pyyaml", "requests", "rich", "setuptools", "six", "sqlalchemy", "typing-extensions",
    "tqdm", "urllib3", "wheel", "zipp",
}  # fmt: skip
_FLAVOR_IMPORTS = {
    "sklearn": "mlflow.sklearn",
    "pytorch": "mlflow.pytorch",
    "keras": "mlflow.keras",
    "tensorflow": "mlflow.tensorflow",
}
# First words of uv's lines that are progress.
_SHOWN = {
    "Downloading", "Downloaded", "Building", "Built", "Prepared", "Resolved", "Installed", "warning"
}  # fmt: skip
_NETWORK = re.compile(
    r"failed to fetch|error sending request|dns error|connect(ion)? (error|refused|reset)|"
    r"could not connect|network|timed out|offline",
    re.I,
)


@dataclass(frozen=True)
class Python:
    """path: an interpreter to make the venv of; version: "3.11.2"."""

    path: str
    version: str


def uv() -> str:
    """errors  Failed"""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise Failed(f"{sys.executable} has no uv, which builds need: install it there") from None


def find_python(asked: str | None) -> Python:
    """What conda.yaml asks for if this machine has it, else our own."""
    own = Python(sys.executable, "{}.{}.{}".format(*sys.version_info[:3]))
    if not asked or _fits(own.version, asked):
        return own
    with tempfile.TemporaryDirectory() as nowhere:
        found = children.run(
            [uv(), "python", "find", "--no-project", "--system", "--show-version", asked],
            "looking for Python",
            seconds=60,
            environment=children.tool_environment(),
            directory=nowhere,
            wanted=lambda line: False,
        )
        version = found.tail[-1] if found.well and found.tail else ""
        if re.fullmatch(r"\d+\.\d+\.\d+", version) and _numbers(version) >= PYTHON_LEAST:
            return Python(version, version)
    say(f"conda.yaml asks for Python {asked}, which is not here: taking {own.version}")
    return own


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _fits(version: str, asked: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if re.fullmatch(r"\d+(\.\d+)?", asked):
        return version == asked or version.startswith(asked + ".")
    try:
        return SpecifierSet(asked).contains(version)
    except InvalidSpecifier:
        return True


def wanted(listed: list[conda.Requirement]) -> list[conda.Requirement]:
    """What the repository lists, and what the platform adds."""
    names = {requirement.name for requirement in listed}
    added = [
        conda.Requirement(name, text, 0) for name, text in PLATFORM.items() if name not in names
    ]
    return [*listed, *added]


def compile_lock(file: str, listed: list[conda.Requirement], python: Python) -> str:
    """Every package with version and hashes, and no address. errors  Failed"""
    requirements = wanted(listed)
    while True:
        lock, problem = _compile(requirements, python)
        if lock is not None:
            return lock
        yielding = _contradicted(problem, requirements)
        if not yielding:
            raise Failed(
                f"the packages of {file} do not go together with each other or with the "
                f"platform's: {problem}"
            )
        for requirement in yielding:
            say(
                f"{file}, line {requirement.line}: {requirement.text} contradicts the platform's "
                "packages: any version of it will do"
            )
        free = {requirement.name for requirement in yielding}
        requirements = [replace(r, text=r.name) if r.name in free else r for r in requirements]


def _compile(requirements: list[conda.Requirement], python: Python) -> tuple[str | None, str]:
    with tempfile.TemporaryDirectory() as folder:
        source, lock = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        source.write_text("".join(requirement.text + "\n" for requirement in requirements))
        command = [
            *(uv(), "pip", "compile", "--generate-hashes", "--no-emit-index-url", "--no-header"),
            *("--no-annotate", "--no-config", "--python", python.path),
            *(source.name, "--output-file", lock.name),
        ]
        ended = _uv(command, "choosing versions", COMPILE_SECONDS, folder)
        if ended.well:
            return lock.read_text(), ""
        if ended.timed_out:
            raise Failed(f"choosing versions took longer than {COMPILE_SECONDS:.0f} s")
        return None, _problem(ended.tail)


def _uv(command: list, doing: str, seconds: float, folder: str | Path, *inherit: int):
    """Runs uv; once more from its cache alone if the index cannot be reached."""
    options = {"seconds": seconds, "environment": children.tool_environment()}
    options |= {"directory": folder, "inherit": inherit, "wanted": _worth_showing}
    ended = children.run(command, doing, **options)
    if not ended.well and _NETWORK.search("\n".join(ended.tail)):
        say("the package index cannot be reached: trying with what is cached")
        offline = children.run([*command, "--offline"], doing, **options)
        return offline if offline.well else ended
    return ended


def _worth_showing(line: str) -> bool:
    return line.split(maxsplit=1)[0].rstrip(":") in _SHOWN


def _problem(tail: list[str]) -> str:
    """uv's reasons, as one line."""
    begin = next((i for i, line in enumerate(tail) if line.lstrip().startswith("error")), 0)
    text = " ".join(line.strip() for line in tail[begin:])
    return one_line(re.sub(r"^error: |(^| )cause: |[×╰─▶│]+ ?", " ", text))


def _contradicted(
    problem: str, requirements: list[conda.Requirement]
) -> list[conda.Requirement]:
    """Pins of the user's that uv blames, and that may yield."""
    blamed = set(re.findall(r"you require ([A-Za-z0-9_.-]+?)(?=[=<>!~\s,])", problem))
    blamed = {conda.canonical(name) for name in blamed}
    return [
        requirement
        for requirement in requirements
        if requirement.name in blamed & YIELDING
        and requirement.text != requirement.name
        and requirement.line
    ]


def install(folder: Path, python: Python, lock: Path, flavor: str, held: int) -> None:
    """Makes the venv `folder`, with what `lock` says. errors  Failed"""
    say(f"making a Python {python.version} environment")
    command = [uv(), "venv", "--no-config", "--allow-existing", "--python", python.path, folder]
    ended = _uv(command, "making an environment", 120, folder.parent, held)
    if not ended.well:
        raise Failed(f"no environment could be made: {_problem(ended.tail)}")
    interpreter = folder / "bin" / "python"
    packages = len(re.findall(r"^[a-z0-9].*==", lock.read_text(), re.M | re.I))
    say(f"installing {packages} packages")
    command = [
        *(uv(), "pip", "install", "--no-config", "--no-deps", "--require-hashes"),
        *("--python", interpreter, "--requirements", lock),
    ]
    ended = _uv(command, "installing packages", INSTALL_SECONDS, folder, held)
    if ended.timed_out:
        raise Failed(f"installing packages took longer than {INSTALL_SECONDS / 60:.0f} minutes")
    if not ended.well:
        raise Failed(f"the packages cannot be installed: {_problem(ended.tail)}")
    _warm_up(interpreter, flavor, held)


def _warm_up(interpreter: Path, flavor: str, held: int) -> None:
    """Imports what all later processes import: it works, and its bytecode is there for them."""
    modules = ["flwr.clientapp", "datasets", "pyarrow.flight", _FLAVOR_IMPORTS[flavor]]
    code = "".join(f"import {module}; print({module!r}, flush=True)\n" for module in modules)
    say("trying the environment")
    ended = children.run(
        [interpreter, "-c", code],
        "importing packages",
        seconds=IMPORT_SECONDS,
        environment=children.user_environment(interpreter) | {"ML_MODEL_FLAVOR": flavor},
        directory=interpreter.parent,
        inherit=[held],
        group=True,
        wanted=lambda line: line in modules,
    )
    if ended.timed_out:
        raise Failed(f"importing the packages took longer than {IMPORT_SECONDS:.0f} s")
    if not ended.well:
        reached = [line for line in ended.tail if line in modules]
        last = ended.tail[-1] if ended.tail else ended.how
        raise Failed(
            f"the environment cannot import {modules[len(reached)]}: {one_line(last, 300)}; "
            "change the versions in conda.yaml"
        )


def direct(lock: str, listed: list[conda.Requirement]) -> list[str]:
    """The versions chosen for what the repository lists, and for the platform's own."""
    chosen = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock, re.M):
        chosen[conda.canonical(name)] = version
    names = dict.fromkeys(requirement.name for requirement in wanted(listed))
    return [f"{name}=={chosen[name]}" for name in names if name in chosen]


def exists(folder: Path) -> bool:
    return os.access(folder / "bin" / "python", os.X_OK)
