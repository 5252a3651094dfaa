"""The same rounds through Flower's strategy classes and through ours, from the same replies."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower

REPO = Path(__file__).resolve().parents[2]
PROGRAM = "umbel_strategy_oracle"

Arrays = dict[str, np.ndarray]

logging.getLogger("flwr").setLevel(logging.ERROR)


@dataclass
class Reply:
    arrays: Arrays
    metrics: dict[str, Any]


@dataclass
class Outcome:
    """What a round ended with; `arrays` are those of the next model."""

    arrays: Arrays
    metrics: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def program() -> Path | None:
    """$UMBEL_STRATEGY_ORACLE, else the newest that has been built."""
    if asked := os.environ.get("UMBEL_STRATEGY_ORACLE"):
        return Path(asked)
    built = [REPO / "build" / preset / "tests/strategies" / PROGRAM for preset in ("release", "dev")]
    built = [path for path in built if path.exists()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


class Grid:
    """All that strategies ask of a grid here."""

    def __init__(self, nodes: int):
        self._nodes = list(range(1, nodes + 1))

    def get_node_ids(self) -> list[int]:
        return self._nodes


def to_record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def content_of(reply: Reply) -> RecordDict:
    return RecordDict({"arrays": to_record(reply.arrays), "metrics": MetricRecord(reply.metrics)})


def message(reply: Reply) -> Any:
    """Strategies look at no more of a reply's message."""
    return SimpleNamespace(content=content_of(reply), has_error=lambda: False)


def run_flower(strategy: Any, model: Arrays, rounds: Sequence[Sequence[Reply]]) -> list[Outcome]:
    """As Strategy.start does, with given replies."""
    base = getattr(strategy, "strategy", strategy)
    base._construct_messages = lambda *_: []  # nobody is asked
    current, outcomes = to_record(model), []
    for number, replies in enumerate(rounds, 1):
        strategy.configure_train(number, current, ConfigRecord(), Grid(max(2, len(replies))))
        arrays, metrics = strategy.aggregate_train(number, [message(reply) for reply in replies])
        if arrays is not None:
            current = arrays
        more = {"clipping_norm": getattr(strategy, "clipping_norm", None)}
        found = {name: array.numpy() for name, array in current.items()}
        outcomes.append(Outcome(found, dict(metrics or {}), more))
    return outcomes


def make(name: str, params: dict[str, Any], wrapper: str = "", wrapper_params: Any = None) -> Any:
    strategy = getattr(flower, name)(**params)
    return getattr(flower, wrapper)(strategy, **wrapper_params) if wrapper else strategy


class _Bin:
    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, arrays: Arrays) -> list[dict[str, Any]]:
        out = []
        for value in arrays.values():
            out.append({"dtype": value.dtype.name, "count": value.size, "at": len(self.data)})
            self.data += np.ascontiguousarray(value).tobytes()
        return out


def _call(folder: Path, job: dict[str, Any], data: bytes = b"") -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.bin").write_bytes(data)
    (folder / "job.json").write_text(json.dumps(job))
    tool = program()
    assert tool is not None
    done = subprocess.run([tool, folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


def run_ours(
    folder: Path,
    name: str,
    params: dict[str, Any],
    model: Arrays,
    rounds: Sequence[Sequence[Reply]],
    **more: Any,
) -> list[Outcome]:
    """more  `block` (elements), `seed`, `wrapper`, `wrapper_params`."""
    bin = _Bin()
    job = {"strategy": name, "params": params, "model": bin.add(model), **more}
    job["rounds"] = [
        [{"arrays": bin.add(reply.arrays), "metrics": reply.metrics} for reply in replies]
        for replies in rounds
    ]
    result = _call(folder, job, bytes(bin.data))
    data = (folder / "result.bin").read_bytes()
    outcomes, current = [], model
    for entry in result["rounds"]:
        if "error" in entry:
            outcomes.append(Outcome(current, error=entry["error"]))
            continue
        found = {}
        for (key, old), place in zip(model.items(), entry["arrays"], strict=True):
            flat = np.frombuffer(data, place["dtype"], place["count"], place["at"])
            found[key] = flat.reshape(old.shape) if flat.size == old.size else flat
        current = found
        rest = {key: entry[key] for key in entry if key not in ("arrays", "metrics")}
        outcomes.append(Outcome(found, entry["metrics"], rest))
    return outcomes


def turns(folder: Path, rounds: list[list[int]]) -> list[int]:
    return _call(folder, {"turns": rounds})
