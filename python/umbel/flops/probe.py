"""Imports a repository in its own environment, in a process that may be ended; says what is wrong.

The result is a file: {} or {"error": sentence}.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path

from . import umbel_model
from .words import write_json


def run(source: Path, out: Path) -> int:
    sys.path.insert(0, str(source))
    importlib.invalidate_caches()
    error = _error(os.path.realpath(source))
    write_json(out, {"error": error} if error else {})
    return 1 if error else 0


def _error(directory: str) -> str:
    try:
        module = importlib.import_module("model_manager")
    except SystemExit as error:
        shown = umbel_model.shown(error.code)
        return _sentence(f"ends the process (exit status {shown})", error, directory)
    except ModuleNotFoundError as error:
        text = f"raises {umbel_model.described(error)}"
        if error.name and error.name != "model_manager":
            text += f"; if it is a package, list it in conda.yaml"
        return _sentence(text, error, directory)
    except BaseException as error:
        return _sentence(f"raises {umbel_model.described(error)}", error, directory)
    made = getattr(module, "ModelManager", None)
    if not inspect.isclass(made):
        return f"model_manager.py has no class ModelManager, but {umbel_model.shown(made)}"
    missing = sorted(getattr(made, "__abstractmethods__", ()))
    if missing:
        return f"class ModelManager lacks {', '.join(missing)}"
    return ""


def _sentence(what: str, error: BaseException, directory: str) -> str:
    where = umbel_model.place(error, directory)
    return f"importing model_manager.py {what}{where}"
