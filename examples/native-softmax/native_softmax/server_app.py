"""The server's side: FedAvg, and the global model measured on the real test set each round.

With output-dir set it writes there results.jsonl (one line per round, at the end of the run;
round 0 is the untrained model) and model.npz (the final global model).
"""

import gzip
import json
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

INPUTS, CLASSES = 784, 10

app = ServerApp()


def read_idx(path: Path, header: int) -> np.ndarray:
    """The unsigned bytes after the header of a gzip IDX file."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    folder = Path(str(config["data-dir"]))
    pixels = read_idx(folder / "t10k-images-idx3-ubyte.gz", 16)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", 8)
    images = pixels.reshape(len(labels), INPUTS).astype(np.float32) / 255

    def measure(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        scores = images @ arrays["weight"].numpy() + arrays["bias"].numpy()
        scores -= scores.max(axis=1, keepdims=True)
        losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
        accuracy = (scores.argmax(axis=1) == labels).mean()
        return MetricRecord({"loss": float(losses.mean()), "accuracy": float(accuracy)})

    nodes = int(config["min-nodes"])
    strategy = FedAvg(
        fraction_evaluate=float(config["fraction-evaluate"]),
        min_train_nodes=nodes,
        min_evaluate_nodes=nodes,
        min_available_nodes=nodes,
    )
    initial = {
        "weight": Array(np.zeros((INPUTS, CLASSES), np.float32)),
        "bias": Array(np.zeros(CLASSES, np.float32)),
    }
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord(initial),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=measure,
    )
    if not config["output-dir"]:
        return
    output = Path(str(config["output-dir"]))
    output.mkdir(parents=True, exist_ok=True)
    with (output / "results.jsonl").open("w") as results:
        for number, measured in result.evaluate_metrics_serverapp.items():
            line = {"round": number, **measured}
            line |= result.train_metrics_clientapp.get(number, {})
            line |= result.evaluate_metrics_clientapp.get(number, {})
            results.write(json.dumps(line) + "\n")
    np.savez(output / "model.npz", **{name: array.numpy() for name, array in result.arrays.items()})
