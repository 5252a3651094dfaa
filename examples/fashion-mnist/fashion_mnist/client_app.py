"""One site: trains the global model on its own images, and evaluates it on some it held back.

Node config: data-from and data-to, the site's share of the training set as fractions;
data-dir, if the data set stands elsewhere on this node.
"""

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from . import model
from .data import Dataset, load_site

app = ClientApp()


def _site_data(context: Context) -> tuple[Dataset, Dataset]:
    node = context.node_config
    return load_site(
        str(node.get("data-dir", context.run_config["data-dir"])),
        float(node["data-from"]),
        float(node["data-to"]),
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    config = context.run_config
    training, _ = _site_data(context)
    weights = model.from_record(message.content["arrays"])
    # Another order in each round, yet the same in every repetition of the run.
    server_round = int(message.content["config"]["server-round"])
    rng = np.random.default_rng([int(config["seed"]), server_round])
    model.train(
        weights,
        training,
        epochs=int(config["local-epochs"]),
        batch_size=int(config["batch-size"]),
        learning_rate=float(config["learning-rate"]),
        rng=rng,
    )
    loss, accuracy = model.evaluate(weights, training)
    metrics = {"train-loss": loss, "train-accuracy": accuracy, "num-examples": len(training)}
    content = RecordDict({"arrays": model.to_record(weights), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    _, validation = _site_data(context)
    loss, accuracy = model.evaluate(model.from_record(message.content["arrays"]), validation)
    metrics = {"eval-loss": loss, "eval-accuracy": accuracy, "num-examples": len(validation)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
