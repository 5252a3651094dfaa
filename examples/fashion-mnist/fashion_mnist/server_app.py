"""The server's side: FedAvg, and the global model measured on the real test set each round.

With output-dir set it writes there results.jsonl (one line per round, as they end; round 0 is the
untrained model) and model.npz (the final global model).
"""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from . import model
from .data import load_test

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    output = Path(str(config["output-dir"])) if config["output-dir"] else None
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.jsonl").write_text("")

    test = load_test(str(config["data-dir"]))
    round_began = time.monotonic()

    def measure(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        nonlocal round_began
        loss, accuracy = model.evaluate(model.from_record(arrays), test)
        now = time.monotonic()
        line = {
            "round": server_round,
            "loss": loss,
            "accuracy": accuracy,
            "seconds": round(now - round_began, 3),
        }
        round_began = now
        if output:
            with (output / "results.jsonl").open("a") as results:
                results.write(json.dumps(line) + "\n")
        return MetricRecord({"loss": loss, "accuracy": accuracy})

    nodes = int(config["min-nodes"])
    strategy = FedAvg(
        fraction_evaluate=float(config["fraction-evaluate"]),
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    weights = model.initial_weights(int(config["hidden-units"]), int(config["seed"]))
    result = strategy.start(
        grid,
        initial_arrays=model.to_record(weights),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=measure,
    )
    if output:
        np.savez(output / "model.npz", **model.from_record(result.arrays))
