"""Logs the best model: into the user's own model, with MLflow's flavor, into the round's run.

Safe to run again: what is there already is found, and what was broken off is removed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import initial, umbel_model
from .words import Failed, one_line, say

ARTIFACT = "logged_model_artifact"
ALIAS = "best"
_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
_OF_CODE = {"flops-utils", "datasets", "pyarrow", "pillow"}  # what the repository's modules import
_FLAVOR_ARGUMENT = {
    "sklearn": "sk_model",
    "pytorch": "pytorch_model",
    "keras": "model",
    "tensorflow": "model",
}


def run(
    source: Path,
    flavor: str,
    parameters: Path,
    tracking: str,
    run_id: str,
    name: str,
    metrics: dict[str, float],
) -> dict[str, Any]:
    """errors  Failed"""
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
        MLFLOW_HTTP_REQUEST_TIMEOUT="60",
        MLFLOW_TRACKING_URI=tracking,
        MLFLOW_REGISTRY_URI=tracking,
        GIT_PYTHON_REFRESH="quiet",
    )
    arrays = read(parameters)
    say("importing MLflow")
    import mlflow
    import requests
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        return _Log(mlflow, tracking, run_id, name).run(source, flavor, arrays, metrics)
    except (MlflowException, requests.RequestException) as error:
        reason = one_line(umbel_model.described(error), 300)
        # MLflow's client says so of a server that it cannot reach, too.
        passes = getattr(error, "error_code", "INTERNAL_ERROR") in _PASSING
        raise Failed(f"logging the model at {tracking} failed: {reason}", passes=passes) from None


def read(parameters: Path) -> list[np.ndarray]:
    """The arrays 0, 1, … of an .npz. errors  Failed"""
    try:
        with np.load(parameters, allow_pickle=False) as file:
            return [file[key] for key in sorted(file.files, key=int)]
    except (OSError, ValueError, EOFError, KeyError) as error:
        text = umbel_model.described(error)
        raise Failed(f"{parameters} is no model of this project: {text}") from None


class _Log:
    def __init__(self, mlflow: Any, tracking: str, run_id: str, name: str):
        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking, tracking)
        self._run_id = run_id
        self._name = name

    def run(
        self, source: Path, flavor: str, arrays: list[np.ndarray], metrics: dict[str, float]
    ) -> dict[str, Any]:
        experiment = self._client.get_run(self._run_id).info.experiment_id
        self._mlflow.set_experiment(experiment_id=experiment)  # or the model goes to the default
        model_id = self._present(experiment)
        if model_id is None:
            model = initial.load(source, flavor)
            try:
                model.set_parameters(arrays)
                user_model = model.user_model
            except umbel_model.ModelError as error:
                raise Failed(str(error)) from None
            say(f"logging the model into run {self._run_id}")
            model_id = self._log(source, flavor, user_model, experiment)
        else:
            say(f"the run {self._run_id} has its model already")
        version = self._register(model_id)
        for key, value in metrics.items():
            self._client.set_model_version_tag(self._name, version, key, str(value))
        self._client.set_registered_model_alias(self._name, ALIAS, version)
        say(f"registered as {self._name} version {version}, alias {ALIAS}")
        return {"model_id": model_id, "model_uri": f"models:/{model_id}", "version": int(version)}

    def _present(self, experiment: str) -> str | None:
        """The run's model, if it is whole. What an earlier call left half done goes away."""
        from mlflow.entities import LoggedModelStatus

        whole = None
        for model in self._client.search_logged_models(
            [experiment], filter_string=f"source_run_id = '{self._run_id}'"
        ):
            if model.name != ARTIFACT:
                continue
            if model.status == LoggedModelStatus.READY and whole is None:
                whole = model.model_id
            elif model.status != LoggedModelStatus.READY:
                self._client.delete_logged_model(model.model_id)
        return whole

    def _log(self, source: Path, flavor: str, model: Any, experiment: str) -> str:
        """Into the run as it is: a finished one is not opened again."""
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model

        module = importlib.import_module(f"mlflow.{flavor}")
        code = _own_code(source, model)
        arguments: dict[str, Any] = {
            _FLAVOR_ARGUMENT[flavor]: model,
            "pip_requirements": requirements(module, bool(code)),
            "signature": _signature(model),
        }
        if code and flavor != "keras":  # which has no place for it
            arguments["code_paths"] = code
        if flavor == "pytorch":  # the traced form needs an example of its input, which we lack
            arguments["serialization_format"] = "pickle"
        try:
            info = Model.log(None, module, name=ARTIFACT, run_id=self._run_id, **arguments)
        except MlflowException as error:
            if flavor != "sklearn" or "skops" not in str(error):
                raise
            self._present(experiment)  # removes what was begun
            arguments["serialization_format"] = "cloudpickle"  # classes of the user's own
            info = Model.log(None, module, name=ARTIFACT, run_id=self._run_id, **arguments)
        return info.model_id

    def _register(self, model_id: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        quoted = self._name.replace("'", "")
        for version in self._client.search_model_versions(f"name = '{quoted}'"):
            if model_id in (version.model_id, version.source.rpartition("/")[2]):
                return version.version
        uri = f"models:/{model_id}"
        made = self._client.create_model_version(
            self._name, source=uri, run_id=self._run_id, model_id=model_id
        )
        return made.version


def requirements(module: Any, with_code: bool) -> list[str]:
    """What the logged model needs to be loaded: the versions of this environment."""
    listed = Path(sys.prefix, "umbel", "requirements.txt")
    lines = listed.read_text().split() if listed.is_file() else []
    chosen = {re.split(r"[=\[]", line)[0].lower(): line for line in lines}
    unwanted = {"flwr"} if with_code else {"flwr", *_OF_CODE}
    chosen = {name: line for name, line in chosen.items() if name not in unwanted}
    chosen["mlflow"] = f"mlflow=={importlib.metadata.version('mlflow')}"
    for line in module.get_default_pip_requirements():
        chosen.setdefault(re.split(r"[=<>~\[]", line)[0].lower(), line)
    for name in ("skops", "cloudpickle"):  # in which scikit-learn's models are written
        if module.__name__.endswith("sklearn"):
            chosen.setdefault(name, f"{name}=={importlib.metadata.version(name)}")
    return list(chosen.values())


def _own_code(source: Path, model: Any) -> list[str]:
    """The repository's modules, if the model has classes of them."""
    inside = os.path.realpath(source) + os.sep
    parts = [model]
    for name in ("modules", "_flatten_layers"):  # of PyTorch, of Keras
        if callable(getattr(model, name, None)):
            parts += list(getattr(model, name)())
    if callable(getattr(model, "get_params", None)):  # of scikit-learn
        parts += list(model.get_params().values())
    own = False
    for part in parts:
        module = sys.modules.get(type(part).__module__)
        own |= os.path.realpath(getattr(module, "__file__", None) or "/").startswith(inside)
        own |= callable(part) and _defined_in(part, inside)
    if not own:
        return []
    found = [path for path in sorted(source.iterdir()) if _is_code(path)]
    return [str(path) for path in found]


def _defined_in(part: Any, inside: str) -> bool:
    module = sys.modules.get(getattr(part, "__module__", None) or "")
    return os.path.realpath(getattr(module, "__file__", None) or "/").startswith(inside)


def _is_code(path: Path) -> bool:
    if path.is_symlink():
        return False
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def _signature(model: Any) -> Any:
    """Only of models that take more than rows: MLflow then checks the shape. Rows are left to the
    model, which counts its columns; MLflow's column schemas ignore what is too much, and its
    tensor schemas take no CSV.
    """
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) < 3:
        return None
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    dims = tuple(-1 if size is None else int(size) for size in shape)
    return ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), dims)]))
