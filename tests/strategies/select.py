"""Flower's selections of replies, where NumPy sorts stably: python -m tests.strategies.select FILE

NumPy's argsort leaves the order of equals open, and with wide vectors it is not that of the input.
The caller starts this with NPY_DISABLE_CPU_FEATURES, so that up to 16 values are sorted by insertion.
FILE holds [{"rows", "malicious", "select"}]; the selections go to standard output, as JSON.
"""

import json
import sys

import numpy as np
from flwr.serverapp.strategy.multikrum import select_multikrum

from .flower import Reply, content_of


def select(rows: np.ndarray, malicious: int, number: int) -> list[int]:
    contents = [content_of(Reply({"w": row}, {"num-examples": 1})) for row in rows]
    chosen = select_multikrum(contents, malicious, number)
    return [next(i for i, c in enumerate(contents) if c is content) for content in chosen]


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        cases = json.load(file)
    found = [
        select(np.array(case["rows"], np.float32), case["malicious"], case["select"])
        for case in cases
    ]
    print(json.dumps(found))
