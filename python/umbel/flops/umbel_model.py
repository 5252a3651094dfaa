"""A FLOps repository's ModelManager: each call is checked, and every failure is one sentence.

Travels in the app built of the repository, and is used at its other ends too; needs NumPy alone.
"""

from __future__ import annotations

import importlib
import math
import numbers
import os
import sys
import traceback
from typing import Any

import numpy as np

TEXT_CHARS_MAX = 300
VALUE_CHARS_MAX = 60
_ADAPTER = ("umbel_client_app.py", "umbel_model.py", "data_loading.py")  # the rest is the user's
_COUNT_MAX = 2**53  # what a weight can be without loss


class ModelError(Exception):
    """What the repository's code did wrong: one sentence, naming the method and what it gave."""


class Model:
    """One ModelManager. Not for several threads.

    directory  of the repository's files; told apart from libraries in the places of failures.
    errors     ModelError, from every method
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self._directory = os.path.realpath(directory)
        module = self._guarded("model_manager.py", importlib.import_module, "model_manager")
        made = getattr(module, "ModelManager", None)
        if made is None:
            raise ModelError("model_manager.py has no class ModelManager")
        self._manager = self._guarded("ModelManager()", made)
        self._shapes: list[tuple[int, ...]] | None = None
        silence_autologging()

    @property
    def user_model(self) -> Any:
        """What get_model() gives: the model of scikit-learn, Keras, PyTorch."""
        given = self._call("get_model")
        if given is None:
            raise ModelError("ModelManager.get_model gave None, not a model")
        return given

    def take_data(self) -> None:
        self._call("set_model_data")

    def parameters(self) -> list[np.ndarray]:
        """Finite arrays; of the shapes set before, if any were."""
        arrays = _arrays(self._call("get_model_parameters"))
        if self._shapes is not None:
            _check_shapes(arrays, self._shapes)
        return arrays

    def set_parameters(self, arrays: list[np.ndarray]) -> None:
        self._shapes = [array.shape for array in arrays]
        self._call("set_model_parameters", arrays)

    def fit(self) -> tuple[list[np.ndarray], int]:
        """The parameters after one fit_model, and the number of samples it trained on."""
        given = self._call("fit_model")
        examples = _count(given, "fit_model", "the number of training samples")
        return self.parameters(), examples

    def evaluate(self) -> tuple[float, float, int]:
        """Loss, accuracy, and the number of samples they were measured on."""
        given = self._call("evaluate_model")
        method = "ModelManager.evaluate_model"
        if not isinstance(given, (tuple, list)):
            raise ModelError(f"{method} gave {shown(given)}, not (loss, accuracy, samples)")
        if len(given) != 3:
            raise ModelError(f"{method} gave {len(given)} values, not (loss, accuracy, samples)")
        loss, accuracy = _real(given[0], "loss"), _real(given[1], "accuracy")
        return loss, accuracy, _count(given[2], "evaluate_model", "the number of samples")

    def _call(self, name: str, *arguments: Any) -> Any:
        what = f"ModelManager.{name}"
        method = getattr(self._manager, name, None)
        if not callable(method):
            raise ModelError(f"{what} does not exist; it is part of FLOps' contract")
        return self._guarded(what, method, *arguments)

    def _guarded(self, what: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except SystemExit as error:
            text = f"{what} ended the process (exit status {shown(error.code)})"
            raise ModelError(text + self._place(error)) from error
        except Exception as error:
            raise ModelError(f"{what} raised {described(error)}{self._place(error)}") from error

    def _place(self, error: BaseException) -> str:
        return place(error, self._directory)


def silence_autologging() -> None:
    """A learner never logs, and the best model is logged once, by whoever asks for it."""
    for flavor in ("sklearn", "pytorch", "tensorflow", "keras", "xgboost", "lightgbm"):
        module = sys.modules.get(f"mlflow.{flavor}")
        autolog = getattr(module, "autolog", None)
        if callable(autolog):
            autolog(disable=True, silent=True)


def described(error: BaseException) -> str:
    """Its type and the first line of its text."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = ["(its text cannot be made)"]
    text = lines[0][:TEXT_CHARS_MAX] if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException, directory: str) -> str:
    """" (file, line N)" of the innermost frame in the repository; "" if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        frames = [(error.filename, error.lineno)]
    else:
        frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    for file, line in reversed(frames):
        path = os.path.realpath(file)
        name = os.path.basename(path)
        if path.startswith(directory + os.sep) and name not in _ADAPTER:
            return f" ({os.path.relpath(path, directory)}, line {line})"
    return ""


def shown(value: Any) -> str:
    """The value, briefly, and its type."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = "(a value that cannot be shown)"
    if len(text) > VALUE_CHARS_MAX:
        text = text[: VALUE_CHARS_MAX - 1] + "…"
    return f"{text} ({type(value).__name__})"


def _arrays(given: Any) -> list[np.ndarray]:
    method = "ModelManager.get_model_parameters"
    if not isinstance(given, (list, tuple)):
        raise ModelError(f"{method} gave {shown(given)}, not a list of arrays")
    if not given:
        raise ModelError(f"{method} gave no arrays")
    return [_array(item, f"{method} gave array {number}") for number, item in enumerate(given)]


def _array(item: Any, which: str) -> np.ndarray:
    try:
        array = np.asarray(item)
    except Exception as error:
        raise ModelError(f"{which} as {shown(item)}: {described(error)}") from error
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16 or array.dtype.char in "gG":
        raise ModelError(f"{which} as {shown(item)} of dtype {array.dtype}, not numbers")
    if array.dtype.kind in "fc":
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong:
            raise ModelError(f"{which} with {wrong} of {array.size} values that are not finite")
    return array


def _check_shapes(arrays: list[np.ndarray], wanted: list[tuple[int, ...]]) -> None:
    method = "ModelManager.get_model_parameters"
    if len(arrays) != len(wanted):
        raise ModelError(f"{method} gave {len(arrays)} arrays, the global model has {len(wanted)}")
    for number, (array, shape) in enumerate(zip(arrays, wanted)):
        if array.shape != shape:
            raise ModelError(
                f"{method} gave array {number} of shape {list(array.shape)}, "
                f"the global model's is {list(shape)}"
            )


def _scalar(value: Any) -> Any:
    """What one-element arrays and tensors hold, or None where there is no real number."""
    if not isinstance(value, numbers.Number) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except Exception:
            return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return None
    return value


def _count(value: Any, method: str, what: str) -> int:
    number = _scalar(value)
    fits = number is not None and math.isfinite(number) and number == int(number)
    if not fits or not 0 < number <= _COUNT_MAX:
        raise ModelError(
            f"ModelManager.{method} gave {shown(value)} as {what}, not a whole number above 0"
        )
    return int(number)


def _real(value: Any, what: str) -> float:
    number = _scalar(value)
    if number is None or not math.isfinite(number):
        raise ModelError(
            f"ModelManager.evaluate_model gave {shown(value)} as {what}, not a finite number"
        )
    return float(number)
