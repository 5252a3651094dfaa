"""The ServerApp: FedAvg as it comes, or plain messages whose replies are written down."""

import json
import os
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from toy import model
from toy.notes import note

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    note(config, "server begins", run=context.run_id)
    arrays = model.initial(config["seed"], config["payload-kb"])
    initial = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    mode = {"fedavg": _fedavg, "probe": _probe}[config["mode"]]
    arrays, report = mode(grid, config, initial)
    report.update(run=context.run_id, pid=os.getpid(), sha256=model.digest(arrays))
    _leave(config["output"], arrays, report)
    note(config, "server ends", run=context.run_id)


def _raise_if_told(config, server_round):
    if config["server-raise"] and config["server-raise-round"] == server_round:
        raise RuntimeError(config["server-raise"])


def _fedavg(grid, config, initial):
    def after_round(server_round, _arrays):  # called for round 0 too, before the first
        note(config, "round closed", round=server_round)
        _raise_if_told(config, server_round)

    strategy = FedAvg(
        min_train_nodes=config["min-nodes"],
        min_evaluate_nodes=config["min-nodes"],
        min_available_nodes=config["min-nodes"],
        fraction_evaluate=1.0 if config["evaluate"] else 0.0,
    )
    result = strategy.start(
        grid,
        initial_arrays=initial,
        num_rounds=config["num-server-rounds"],
        timeout=config["timeout"],
        evaluate_fn=after_round,
    )
    report = {
        "train": {str(n): dict(m) for n, m in result.train_metrics_clientapp.items()},
        "evaluate": {str(n): dict(m) for n, m in result.evaluate_metrics_clientapp.items()},
    }
    return {name: array.numpy() for name, array in result.arrays.items()}, report


def _probe(grid, config, initial):
    rounds = []
    for server_round in range(1, config["num-server-rounds"] + 1):
        _raise_if_told(config, server_round - 1)
        while len(nodes := sorted(grid.get_node_ids())) < config["min-nodes"]:
            time.sleep(0.2)
        if config["extra-dst"]:
            nodes.append(int(config["extra-dst"]))
        content = RecordDict(
            {"arrays": initial, "config": ConfigRecord({"server-round": server_round})}
        )
        ttl = config["ttl"] or None
        messages = [Message(content, node, "train", ttl=ttl) for node in nodes]
        note(config, "probe sent", round=server_round)
        begin = time.monotonic()
        replies = list(grid.send_and_receive(messages, timeout=config["timeout"]))
        seconds = time.monotonic() - begin
        rounds.append({"seconds": seconds, "replies": [_describe(reply) for reply in replies]})
        note(config, "round closed", round=server_round)
    return model.initial(config["seed"], config["payload-kb"]), {"rounds": rounds}


def _describe(reply):
    meta = reply.metadata
    answer = {"src": meta.src_node_id, "reply_to": meta.reply_to_message_id}
    answer.update(type=meta.message_type, ttl=meta.ttl)
    if reply.has_error():
        answer.update(code=reply.error.code, reason=reply.error.reason)
    else:
        answer.update(metrics=dict(reply.content["metrics"]))
    return answer


def _leave(path, arrays, report):
    """<path>.npz, then <path>.json: whoever sees the second finds the first complete."""
    if not path:
        return
    with open(f"{path}.npz.part", "wb") as file:
        np.savez(file, **arrays)
    os.replace(f"{path}.npz.part", f"{path}.npz")
    with open(f"{path}.json.part", "w") as file:
        json.dump(report, file, indent=1)
    os.replace(f"{path}.json.part", f"{path}.json")
