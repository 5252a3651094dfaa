"""Imports a ClientApp as upstream does, and words its failures as upstream does."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from typing import Any

from flwr.clientapp import ClientApp

try:
    from flwr.clientapp.client_app import LoadClientAppError
except ImportError:  # not part of flwr's public interface

    class LoadClientAppError(Exception):  # type: ignore[no-redef]
        """Raised by nobody but us."""


LOAD_FAILED = 1
RAISED = 2
LOAD_FAILED_REASON = "An exception was raised when attempting to load `ClientApp`"
_REASON_CHARS_MAX = 64 << 10


class LoadFailed(Exception):
    def __init__(self, code: int, reason: str, trace: str):
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.trace = trace


def load(directory: str, ref: str, environment: str = "") -> ClientApp:
    """Puts `directory` at the head of sys.path and imports "module:attribute".

    environment  of the app's dependencies, which come next; "": none.
    errors  LoadFailed
    """
    try:
        if environment:
            activate(environment)
        return _load(os.path.abspath(directory), ref)
    except BaseException as error:  # SystemExit too: an app may call exit() while it is imported
        code, reason = failure(error)
        raise LoadFailed(code, reason, trace_of(error)) from None


def _load(directory: str, ref: str) -> ClientApp:
    module_name, _, attributes = ref.partition(":")
    if not module_name or not attributes:
        raise LoadClientAppError(f"{ref!r} is not of the form module:attribute")
    if directory not in sys.path:
        sys.path.insert(0, directory)
    found: Any = importlib.import_module(module_name)
    for name in attributes.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise LoadClientAppError(f"{module_name} has no {attributes}") from error
    if not isinstance(found, ClientApp):
        raise LoadClientAppError(f"{ref} is {type(found)}, not a ClientApp")
    return found


def activate(environment: str) -> None:
    """What was not imported yet is looked for in this virtual environment first, and programs too.

    errors  FileNotFoundError
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = os.path.join(environment, "lib", version, "site-packages")
    if not os.path.isdir(packages):
        raise FileNotFoundError(f"the app's environment has no {packages}")
    sys.path[:] = [packages, *(path for path in sys.path if path != packages)]
    programs = [os.path.join(environment, "bin"), *filter(None, [os.environ.get("PATH")])]
    os.environ["PATH"] = os.pathsep.join(programs)
    os.environ["VIRTUAL_ENV"] = environment
    importlib.invalidate_caches()


def failure(error: BaseException) -> tuple[int, str]:
    """Flower's code and text for what an app raised."""
    if isinstance(error, LoadClientAppError):
        return LOAD_FAILED, LOAD_FAILED_REASON
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be made)"
    return RAISED, utf8(f"{type(error)}:<'{text[:_REASON_CHARS_MAX]}'>")


def trace_of(error: BaseException) -> str:
    try:
        return utf8("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    except Exception:
        return f"{type(error)} (its traceback cannot be made)\n"


def utf8(text: str) -> str:
    """`text` without what UTF-8 cannot hold, such as half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def declared_host(directory: str) -> str | None:
    """`host` under [tool.umbel.clientapp] of the app's pyproject.toml, if it says any."""
    try:
        import tomllib
    except ImportError:  # Python 3.10, where flwr brings this along
        import tomli as tomllib  # type: ignore[no-redef]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(os.path.join(directory, "pyproject.toml"), "rb") as file:
            return str(tomllib.load(file)["tool"]["umbel"]["clientapp"]["host"])
    return None
