"""The parameters of the untrained model, as the aggregator needs them: without any data."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from . import umbel_model
from .words import Failed, say


class NoData(Exception):
    pass


def run(source: Path, flavor: str, target: Path) -> dict[str, Any]:
    """errors  Failed"""
    model = load(source, flavor)
    try:
        arrays = model.parameters()
    except umbel_model.ModelError as error:
        raise Failed(_explained(error)) from None
    save(target, arrays)
    say(f"the model has {len(arrays)} arrays, {sum(a.nbytes for a in arrays)} bytes")
    return {
        "arrays": [
            {"name": str(number), "shape": list(array.shape), "dtype": array.dtype.name}
            for number, array in enumerate(arrays)
        ]
    }


def load(source: Path, flavor: str) -> umbel_model.Model:
    """The repository's ModelManager; asking for data is an error here. errors  Failed"""
    import os

    os.environ["ML_MODEL_FLAVOR"] = flavor
    sys.path.insert(0, str(source.resolve()))
    sys.dont_write_bytecode = True  # the repository stays as it was checked out
    sys.modules["data_loading"] = _no_data()
    try:
        return umbel_model.Model(source)
    except umbel_model.ModelError as error:
        raise Failed(_explained(error)) from None


def save(target: Path, arrays: list[np.ndarray]) -> None:
    part = target.with_name(f"{target.name}.part")
    with open(part, "wb") as file:
        np.savez(file, **{str(number): array for number, array in enumerate(arrays)})
    part.replace(target)


def _no_data() -> types.ModuleType:
    module = types.ModuleType("data_loading")

    def load_data_from_ml_data_server() -> None:
        raise NoData("there is no data at the aggregator")

    module.load_data_from_ml_data_server = load_data_from_ml_data_server  # type: ignore
    return module


def _explained(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoData):
            return f"{error}; only set_model_data may ask for data: make the model without it"
        cause = cause.__cause__ or cause.__context__
    return str(error)
