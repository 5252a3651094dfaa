"""Checks a repository against FLOps' contract by reading it; none of its code is run.

model_manager.py   class ModelManager: no arguments to make it, and the six methods of METHODS
data_manager.py    class DataManager: get_data; needed if model_manager.py imports it
conda.yaml         what the two import (conda.py)
"""

from __future__ import annotations

import ast
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from . import conda
from .words import Failed

SOURCE_BYTES_MAX = 1 << 20

# Method -> arguments besides self, and how it is written.
METHODS = {
    "set_model_data": (0, "def set_model_data(self) -> None"),
    "get_model": (0, "def get_model(self)"),
    "get_model_parameters": (0, "def get_model_parameters(self) -> list"),
    "set_model_parameters": (1, "def set_model_parameters(self, parameters) -> None"),
    "fit_model": (0, "def fit_model(self) -> int"),
    "evaluate_model": (0, "def evaluate_model(self) -> tuple"),
}
DATA_METHODS = {
    "_prepare_data": (None, "def _prepare_data(self)"),
    "get_data": (None, "def get_data(self) -> tuple"),
}
_TEMPLATES = {"ModelManagerTemplate", "DataManagerTemplate", "object", "ABC"}
_NEEDED = {
    "pytorch": ({"torch"}, "pytorch"),
    "keras": ({"keras", "tensorflow", "tensorflow-cpu"}, "keras and what it runs on"),
    "tensorflow": ({"tensorflow", "tensorflow-cpu"}, "tensorflow"),
}


def check(source: Path, flavor: str | None = None) -> conda.Environment:
    """errors  Failed, with all that was found"""
    if not source.is_dir():
        raise Failed(f"{source} is no folder")
    faults: list[str] = []
    model = _parse(source, "model_manager.py", faults)
    if model is not None:
        _check_class(model, "model_manager.py", "ModelManager", METHODS, faults)
    if (source / "data_manager.py").exists() or (model and _imports(model, "data_manager")):
        data = _parse(source, "data_manager.py", faults)
        if data is not None:
            _check_class(data, "data_manager.py", "DataManager", DATA_METHODS, faults)
    environment = None
    try:
        environment = conda.read(source)
        _check_flavor(environment, flavor, faults)
    except Failed as failed:
        faults += failed.all
    if faults or environment is None:
        raise Failed(*faults)
    return environment


def read_text(source: Path, name: str) -> str:
    """errors  Failed"""
    path = source / name
    inside = os.path.realpath(source) + os.sep
    if not path.exists():
        raise Failed(f"{name} is missing: FLOps' contract wants it in the repository's root")
    if not path.is_file() or not os.path.realpath(path).startswith(inside):
        raise Failed(f"{name} is not a file of the repository")
    size = path.stat().st_size
    if size > SOURCE_BYTES_MAX:
        raise Failed(f"{name} has {size} bytes; at most {SOURCE_BYTES_MAX} are read")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Failed(f"{name}, line {line}: not UTF-8; save the file as UTF-8") from None


def _parse(source: Path, name: str, faults: list[str]) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the user's code, not ours to repeat
            return ast.parse(read_text(source, name), name)
    except Failed as failed:
        faults += failed.all
    except SyntaxError as error:
        faults.append(f"{name}, line {error.lineno or 1}: {error.msg or 'not Python'}")
    except (ValueError, RecursionError, MemoryError) as error:
        faults.append(f"{name} cannot be read as Python: {error or type(error).__name__}")
    return None


def _imports(module: ast.Module, name: str) -> bool:
    for node in ast.walk(module):
        if isinstance(node, ast.Import) and any(alias.name == name for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and node.module == name and not node.level:
            return True
    return False


@dataclass
class _Class:
    """What can be told of a class: `whole` is false where some of it comes from elsewhere."""

    line: int
    methods: dict[str, ast.AST] = field(default_factory=dict)
    whole: bool = True


def _check_class(
    module: ast.Module, file: str, name: str, wanted: dict, faults: list[str]
) -> None:
    classes, elsewhere = _top_level(module)
    if name not in classes:
        if name not in elsewhere:
            faults.append(f"{file} has no class {name}; FLOps' contract wants `class {name}`")
        return
    found = _resolve(name, classes, set())
    for method, (arguments, example) in wanted.items():
        node = found.methods.get(method)
        if node is None:
            if found.whole:
                faults.append(
                    f"{file}, line {found.line}: class {name} has no method {method}; "
                    f"add `{example}`"
                )
        elif arguments is not None:
            _check_method(node, file, name, method, arguments, faults)
    init = found.methods.get("__init__")
    if init is not None:
        _check_method(init, file, name, "__init__", 0, faults)


def _top_level(module: ast.Module) -> tuple[dict[str, ast.ClassDef], set[str]]:
    """The module's classes, and other names it binds; in branches and the like too."""
    classes: dict[str, ast.ClassDef] = {}
    others: set[str] = set()
    for node in _statements(module.body):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            others |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            others |= {target.id for target in targets if isinstance(target, ast.Name)}
    return classes, others | ({"ModelManager", "DataManager"} if "*" in others else set())


def _statements(body: list[ast.stmt]):
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from _statements(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _resolve(name: str, classes: dict[str, ast.ClassDef], seen: set[str]) -> _Class:
    node = classes[name]
    found = _Class(node.lineno, whole=not node.decorator_list and not node.keywords)
    for base in node.bases:
        last = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if last in classes and last not in seen and last != name:
            parent = _resolve(last, classes, seen | {name})
            for method, value in parent.methods.items():
                found.methods.setdefault(method, value)
            found.whole &= parent.whole
        elif last not in _TEMPLATES:
            found.whole = False
    for item in _statements(node.body):
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.methods[item.name] = item
        elif isinstance(item, (ast.Assign, ast.AnnAssign)):
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    found.methods[target.id] = item
    return found


def _check_method(
    node: ast.AST, file: str, name: str, method: str, given: int, faults: list[str]
) -> None:
    where = f"{file}, line {getattr(node, 'lineno', 1)}: {name}.{method}"
    if isinstance(node, ast.AsyncFunctionDef):
        faults.append(f"{where} is `async def`; it is called as an ordinary method")
        return
    if not isinstance(node, ast.FunctionDef):
        return
    decorators = {getattr(d, "id", None) for d in node.decorator_list}
    if decorators - {"staticmethod", "classmethod", "override"}:
        return  # whatever it becomes
    own = 0 if "staticmethod" in decorators else 1
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    least = len(positional) - len(arguments.defaults) - own
    most = None if arguments.vararg else len(positional) - own
    if len(positional) < own and not arguments.vararg:
        faults.append(f"{where} lacks the argument self")
        return
    required = [
        argument.arg
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults)
        if default is None
    ]
    if required:
        faults.append(f"{where} needs the keyword {required[0]}; it is called without")
    elif given < least or (most is not None and given > most):
        takes = least if given < least else most
        faults.append(
            f"{where} takes {takes} argument{'' if takes == 1 else 's'} besides self; "
            f"it is called with {given}"
        )


def _check_flavor(environment: conda.Environment, flavor: str | None, faults: list[str]) -> None:
    needed, example = _NEEDED.get(flavor or "", (set(), ""))
    names = {requirement.name for requirement in environment.requirements}
    if needed and not needed & names:
        faults.append(
            f"{environment.file} does not list what the flavor {flavor} needs; add {example}"
        )
