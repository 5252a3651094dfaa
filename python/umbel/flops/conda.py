"""conda.yaml, translated to what pip and uv call the same packages.

Conda itself is not needed: its match specifications become PEP 440's, its names go through the
table of names.py. What cannot be told for certain is an error that names the package and the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .names import NOT_PYTHON, PIP_NAMES
from .words import Failed, one_line

FILES = ("conda.yaml", "conda.yml")
FILE_BYTES_MAX = 64 << 10
ENTRIES_MAX = 500
_IGNORED_KEYS = {"name", "channels", "prefix"}
# The platform brings these itself, in the one version that its parts agree on.
OURS = {"mlflow", "mlflow-skinny", "mlflow-tracing", "flwr", "flops-utils"}

_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?P<rest>.*)", re.S)
_CLAUSE = re.compile(r"(?P<operator>==|>=|<=|!=|~=|=|>|<)?\s*(?P<version>[^\s=<>!~]+)")


@dataclass(frozen=True)
class Requirement:
    """name: as the index has it, lower case with dashes; text: as pip wants it."""

    name: str
    text: str
    line: int


@dataclass
class Environment:
    """python: what `uv python find` is asked for, or None; notes: for the log."""

    file: str
    requirements: list[Requirement] = field(default_factory=list)
    python: str | None = None
    notes: list[str] = field(default_factory=list)


def read(source: Path) -> Environment:
    """errors  Failed, with all that was found"""
    file = next((name for name in FILES if (source / name).exists()), None)
    if file is None:
        raise Failed(
            "conda.yaml is missing: FLOps' contract wants it in the repository's root, with the "
            "packages that the model needs"
        )
    from .contract import read_text

    text = read_text(source, file)
    if len(text) > FILE_BYTES_MAX:
        raise Failed(f"{file} has {len(text)} characters; at most {FILE_BYTES_MAX} are read")
    return translate(text, file)


def translate(text: str, file: str = "conda.yaml") -> Environment:
    """errors  Failed, with all that was found"""
    return _Reader(file).read(text)


class _Fault(Exception):
    """What is wrong with one entry; its place is added by whoever knows it."""


class _Reader:
    def __init__(self, file: str):
        self._file = file
        self._faults: list[str] = []
        self._result = Environment(file)

    def read(self, text: str) -> Environment:
        for key, value in self._top(text):
            name = str(key.value)
            if name == "dependencies":
                for item in self._sequence(value, "dependencies"):
                    self._dependency(item)
            elif name not in _IGNORED_KEYS:
                self._fault(key, f"{name!r} is not supported; only dependencies count")
        if self._faults:
            raise Failed(*self._faults)
        if not self._result.requirements:
            raise Failed(f"{self._file} lists no package under dependencies")
        return self._result

    def _top(self, text: str):
        import yaml

        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            problem = one_line(error.problem or "not YAML", 200)
            raise Failed(f"{self._file}, line {line}: not YAML: {problem}") from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise Failed(f"{self._file} is not YAML: {one_line(str(error), 200)}") from None
        if not isinstance(node, yaml.MappingNode):
            raise Failed(
                f"{self._file} has no dependencies: it must say `dependencies:`, then a list"
            )
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise Failed(f"{self._file}, line {_line(key)}: {key.value!r} stands there twice")
            seen.add(str(key.value))
        return node.value

    def _sequence(self, node, what: str):
        import yaml

        if isinstance(node, yaml.SequenceNode):
            if len(node.value) <= ENTRIES_MAX:
                return node.value
            self._fault(node, f"{what} has {len(node.value)} entries; at most {ENTRIES_MAX}")
        elif getattr(node, "value", None) != "":
            self._fault(node, f"{what} is no list")
        return []

    def _dependency(self, node) -> None:
        import yaml

        if isinstance(node, yaml.ScalarNode):
            self._entry(node, _from_conda)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value != "pip":
                    self._fault(key, f"{key.value!r} is no section; only `pip:` is")
                    continue
                for item in self._sequence(value, "pip"):
                    if isinstance(item, yaml.ScalarNode):
                        self._entry(item, _from_pip)
                    else:
                        self._fault(item, "an entry of pip must be text")
        else:
            self._fault(node, "an entry must be text, such as numpy=1.26")

    def _entry(self, node, translated) -> None:
        text = str(node.value).strip()
        line = _line(node)
        try:
            name, requirement = translated(text)
        except _Fault as fault:
            self._fault(node, str(fault))
            return
        if name == "python":
            self._result.python = requirement or None
        elif name == "pip":
            pass  # uv installs
        elif name in OURS:
            self._result.notes.append(
                f"{self._file}, line {line}: {text}: Umbel brings its own {name}"
            )
        else:
            self._result.requirements.append(Requirement(name, requirement, line))

    def _fault(self, node, text: str) -> None:
        self._faults.append(f"{self._file}, line {_line(node)}: {text}")


def _line(node) -> int:
    return node.start_mark.line + 1


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _from_conda(text: str) -> tuple[str, str]:
    """The pip name, and its requirement (for python: what to look for)."""
    shown = repr(one_line(text, 80))
    if "::" in text:
        raise _Fault(
            f"{shown} names a channel, and conda's channels are not used; "
            "write the package without it, or under pip:"
        )
    found = _SPEC.fullmatch(text)
    if not found or "[" in text or text[found.end("name") :].startswith("*"):
        raise _Fault(f"{shown} is not of the form NAME, NAME=VERSION or NAME>=VERSION")
    name = found["name"].lower()
    clauses = _clauses(found["rest"].strip(), shown)
    if name == "python":
        exact = [c for c in clauses if c.startswith("==")]
        if len(clauses) == 1 and exact:
            return name, ".".join(exact[0][2:].removesuffix(".*").split(".")[:2])
        return name, ",".join(clauses)
    if name == "pip" or name in OURS:
        return name, ""
    if name in NOT_PYTHON:
        raise _Fault(f"{name} cannot be installed: {NOT_PYTHON[name]}")
    pip_name = PIP_NAMES.get(name)
    if pip_name is None:
        raise _Fault(
            f"{name} is not in the table of conda's packages; if it is a Python package, "
            "write it under pip: by its name on the Python index"
        )
    return canonical(pip_name), pip_name + ",".join(clauses)


def _clauses(rest: str, shown: str) -> list[str]:
    """PEP 440 clauses of a conda version, which may have a build after it."""
    if not rest or rest == "*":
        return []
    if "|" in rest:
        raise _Fault(f"{shown} has alternatives (|); name one version or a range")
    build = None
    if rest.startswith("=") and rest.count("=") > (2 if rest.startswith("==") else 1):
        rest, _, build = rest.rpartition("=")
    elif not re.search(r"[=<>!~,]", rest) and len(rest.split()) == 2:
        rest, build = rest.split()
    clauses = []
    for part in rest.split(","):
        found = _CLAUSE.fullmatch(part.strip())
        if not found:
            raise _Fault(f"{shown}: {part.strip()!r} is no version")
        clause = _clause(found["operator"] or "", found["version"], build is not None)
        if clause is None:
            raise _Fault(f"{shown}: {found['version']!r} is no version")
        clauses += [clause] if clause else []
    return clauses


def _clause(operator: str, version: str, has_build: bool) -> str | None:
    """One clause; "" if it says nothing, None if it is none. conda's `=1.2` is any 1.2.x."""
    from packaging.version import InvalidVersion, Version

    if version == "*":
        return ""
    starred = version.endswith("*")
    version = version.rstrip("*").rstrip(".")
    try:
        parsed = Version(version)
    except InvalidVersion:
        return None
    if operator in ("", "=", "=="):
        plain = parsed.public == parsed.base_version
        loose = starred or (operator == "=" and not has_build)
        return f"=={version}.*" if loose and plain else f"=={version}"
    if operator == "!=" and starred:
        return f"!={version}.*"
    if operator == "~=" and len(parsed.release) < 2:
        return f">={version}"
    return f"{operator}{version}"


def _from_pip(text: str) -> tuple[str, str]:
    from packaging.requirements import InvalidRequirement, Requirement

    shown = repr(one_line(text, 80))
    if text.startswith("-"):
        raise _Fault(f"{shown} is an option of pip; list packages by name")
    if "://" in text or text.startswith((".", "/", "git+")):
        raise _Fault(f"{shown} is an address or a path; only packages of the Python index are used")
    try:
        requirement = Requirement(text.split(" #")[0])
    except InvalidRequirement as error:
        raise _Fault(f"{shown} is no requirement: {one_line(str(error), 120)}") from None
    if requirement.url:
        raise _Fault(f"{shown} is an address; only packages of the Python index are used")
    return canonical(requirement.name), str(requirement)
