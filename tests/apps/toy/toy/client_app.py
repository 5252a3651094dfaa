"""The ClientApp: works as long as it is told, then answers with exact numbers."""

import os
import random
import time

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from toy import model
from toy.notes import note

app = ClientApp()


def _work(config, site, server_round):
    """Take `train-seconds`, in small steps, or less if the gate opens."""
    if config["slow-site"] not in (-1, site):
        return
    share = 1.0
    if config.get("shuffle"):
        share = random.Random(f"{config['shuffle']} {site} {server_round}").random()
    end = time.monotonic() + share * config["train-seconds"]
    while time.monotonic() < end and not (config["gate"] and os.path.exists(config["gate"])):
        time.sleep(0.02)


def _count(context, name):
    """How often this site did `name` in this run; kept in the run's own state."""
    state = context.state.setdefault("counts", ConfigRecord())
    state[name] = int(state.get(name, 0)) + 1
    return state[name]


def _begin(msg, context, what):
    config, site = context.run_config, int(context.node_config["site"])
    server_round = int(msg.content["config"]["server-round"])
    more = {"site": site, "round": server_round, "run": context.run_id}
    note(config, f"{what} begins", **more)
    if config["client-raise"] and config["client-raise-site"] in (-1, site):
        raise RuntimeError(config["client-raise"])
    return config, site, server_round, more


@app.train()
def train(msg: Message, context: Context) -> Message:
    config, site, server_round, more = _begin(msg, context, "train")
    arrays = {name: array.numpy() for name, array in msg.content["arrays"].items()}
    _work(config, site, server_round)
    arrays = model.train(arrays, config["seed"], site, server_round)
    metrics = {
        "num-examples": int(context.node_config["examples"]),
        "trained": _count(context, "train"),
        "checksum": model.checksum(arrays),
    }
    note(config, "train ends", **more)
    record = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    content = RecordDict({"arrays": record, "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    config, _, _, more = _begin(msg, context, "evaluate")
    arrays = {name: array.numpy() for name, array in msg.content["arrays"].items()}
    metrics = {
        "num-examples": int(context.node_config["examples"]),
        "evaluated": _count(context, "evaluate"),
        "checksum": model.checksum(arrays),
    }
    note(config, "evaluate ends", **more)
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
