"""Sends the model to every node, waits for all replies, and writes down how long that took."""

import json
import os
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    while len(nodes := sorted(grid.get_node_ids())) < config["min-nodes"]:
        time.sleep(0.1)
    rng, rounds = np.random.default_rng(1), []
    for number in range(config["num-server-rounds"]):
        model = {
            f"tensor-{i}": Array(rng.standard_normal(config["tensor-bytes"] // 4, np.float32))
            for i in range(config["tensors"])
        }
        record, settings = ArrayRecord(model), ConfigRecord({"round": number})
        content = RecordDict({"arrays": record, "config": settings})
        begin = time.monotonic()
        replies = list(grid.send_and_receive([Message(content, n, "train") for n in nodes]))
        seconds = time.monotonic() - begin
        errors = [str(reply.error) for reply in replies if reply.has_error()]
        heads = {
            reply.content["arrays"]["tensor-0"].data[:4096]
            for reply in replies
            if not reply.has_error()
        }
        rounds.append({"seconds": seconds, "errors": errors, "distinct": len(heads)})
    with open(f"{config['output']}.part", "w") as file:
        json.dump(rounds, file)
    os.replace(f"{config['output']}.part", config["output"])
