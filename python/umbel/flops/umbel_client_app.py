"""The ClientApp of a FLOps repository: its ModelManager, trained and evaluated round after round.

One ModelManager, with its data, lives as long as the process: whoever hosts this app keeps that
(`umbel supernode --clientapp-host resident`), or every round loads the data anew.
"""

from __future__ import annotations

import os
import time

# Before any of the user's libraries is imported: learners call nobody but their SuperLink.
os.environ.update(
    DO_NOT_TRACK="1",
    FLWR_TELEMETRY_ENABLED="0",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
)

import umbel_model  # noqa: E402  (the environment must be set before)
from flwr.app import (  # noqa: E402
    Array,
    ArrayRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp  # noqa: E402

app = ClientApp()

# Nodes that give no variables of theirs to apps, such as Flower's, can say it so.
_NODE_CONFIG = {"umbel-data": "UMBEL_DATA", "umbel-data-tags": "UMBEL_DATA_TAGS"}

_model: umbel_model.Model | None = None


def _say(what: str, started: float) -> None:
    print(f"{what} ({time.monotonic() - started:.1f} s)", flush=True)


def _load() -> umbel_model.Model:
    started = time.monotonic()
    model = umbel_model.Model(os.path.dirname(os.path.abspath(__file__)))
    model.take_data()
    _say("model and data are ready", started)
    return model


def _learner(context: Context) -> umbel_model.Model:
    global _model
    if _model is None:
        for key, variable in _NODE_CONFIG.items():
            if key in context.node_config:
                os.environ[variable] = str(context.node_config[key])
        if flavor := context.run_config.get("ml-model-flavor"):
            os.environ.setdefault("ML_MODEL_FLAVOR", str(flavor))  # flops_utils looks there
        _model = _load()  # what fails is tried again with the next message
    return _model


def _load_ahead() -> None:
    """A learner holds its data before it connects; what fails is tried again by its first message."""
    global _model
    try:
        _model = _load()
    except Exception as error:
        print(f"not ready yet: {error}", flush=True)


if "UMBEL_LEARNER" in os.environ:  # it is loaded for the one project it is of
    _load_ahead()


def _global_model(message: Message) -> list:
    record = message.content["arrays"]
    try:
        keys = sorted(record, key=int)
    except ValueError:
        raise umbel_model.ModelError(f"the global model's arrays are named {sorted(record)}")
    return [record[key].numpy() for key in keys]


@app.train()
def train(message: Message, context: Context) -> Message:
    model = _learner(context)
    started = time.monotonic()
    model.set_parameters(_global_model(message))
    arrays, examples = model.fit()
    record = ArrayRecord({str(number): Array(array) for number, array in enumerate(arrays)})
    _say(f"trained on {examples} samples", started)
    metrics = MetricRecord({"num-examples": examples})
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    model = _learner(context)
    started = time.monotonic()
    model.set_parameters(_global_model(message))
    loss, accuracy, examples = model.evaluate()
    _say(f"evaluated on {examples} samples: accuracy {accuracy:.4f}, loss {loss:.4f}", started)
    metrics = MetricRecord({"num-examples": examples, "loss": loss, "accuracy": accuracy})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
