"""A ServerApp in place of the toy's: any strategy, of either package, with any function of its own.

`strategies` names the package. What the strategy returned is left in <output>.json and .npz.
"""

import importlib
import json

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp

from toy import model
from toy.notes import note

app = ServerApp()


class Lossy:
    """A Grid that loses the answer to the first message for each step. For native rounds only."""

    def __init__(self, grid: Grid):
        self._grid = grid
        self._sent: dict[str, Message] = {}
        self._lost: dict[int, str] = {}  # step → the message whose answer gets lost

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def push_messages(self, messages):
        messages = list(messages)
        ids = list(self._grid.push_messages(messages))
        self._sent.update(zip(ids, messages, strict=True))
        return ids

    def pull_messages(self, message_ids):
        (name,) = message_ids
        message = self._sent[name]
        replies = list(self._grid.pull_messages(message_ids))
        if message.metadata.message_type != "query.umbel_step" or not replies:
            return replies
        step = message.content["step"]["step"]
        if self._lost.setdefault(step, name) != name:  # it is another message for this step
            return replies
        return [Message(Error(3, "lost on its way"), reply_to=message)]


def aggregate(replies, weight):
    records = [next(iter(reply.metric_records.values())) for reply in replies]
    total = sum(record[weight] for record in records)
    return MetricRecord(
        {
            "replies": len(records),
            "weights": sorted(record[weight] for record in records),
            "checksum": sum(record["checksum"] * record[weight] for record in records) / total,
        }
    )


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    called = []

    def evaluate(server_round, arrays):
        called.append(server_round)
        note(config, "round closed", round=server_round)
        found = {name: array.numpy() for name, array in arrays.items()}
        return MetricRecord({"checksum": model.checksum(found)}) if server_round != 1 else None

    values = {"fraction_evaluate": 1.0 if config["evaluate"] else 0.0}
    for name in ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes"):
        values[name] = config["min-nodes"]
    values.update(json.loads(config["parameters"]))
    if "train" in config["own"]:
        values["train_metrics_aggr_fn"] = aggregate
    if "evaluate" in config["own"]:
        values["evaluate_metrics_aggr_fn"] = aggregate
    strategies = importlib.import_module(config["strategies"])
    cls = getattr(strategies, config["strategy"])
    if config["overrides"]:
        inherited = cls.aggregate_evaluate
        cls = type("Mine", (cls,), {"aggregate_evaluate": lambda *args: inherited(*args)})
    strategy = cls(**values)
    initial = model.initial(config["seed"], config["payload-kb"])
    result = strategy.start(
        Lossy(grid) if config["lossy"] else grid,
        ArrayRecord({name: Array(value) for name, value in initial.items()}),
        num_rounds=config["num-server-rounds"],
        timeout=config["timeout"],
        train_config=ConfigRecord({"lr": 0.5, "names": ["a", "b"]}),
        evaluate_fn=evaluate if config["here"] else None,
    )
    arrays = {name: array.numpy() for name, array in result.arrays.items()}
    report = {"sha256": model.digest(arrays), "called": called}
    for name in ("train_metrics_clientapp", "evaluate_metrics_clientapp",
                 "evaluate_metrics_serverapp"):  # fmt: skip
        report[name] = {str(n): dict(metrics) for n, metrics in getattr(result, name).items()}
    np.savez(f"{config['output']}.npz", **arrays)
    with open(f"{config['output']}.json", "w") as file:
        json.dump(report, file, indent=1)
