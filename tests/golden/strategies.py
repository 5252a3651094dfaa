"""Writes tests/golden/strategies.json: Flower's strategies, their parameters and defaults.

Usage: .venv/bin/python tests/golden/strategies.py

src/aggregation/strategy_test.cc holds our table to the file, tests/strategies the file to the
installed Flower. Types are "int", "float", "str", "callable" (which only Python can give),
"strategy" and "accountant"; a parameter without default has no "default".
"""

import inspect
import json
from pathlib import Path
from typing import Any

from flwr.serverapp import strategy as flower

NOT_STRATEGIES = {"Result", "Strategy"}


def kind(name: str, annotation: Any) -> str:
    if name in ("strategy", "accountant"):
        return name
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if "Callable" in text:
        return "callable"
    return text.replace("| None", "").strip()


def describe(cls: type) -> list[dict[str, Any]]:
    found = []
    for name, parameter in inspect.signature(cls).parameters.items():
        entry: dict[str, Any] = {"name": name, "type": kind(name, parameter.annotation)}
        if parameter.default is not inspect.Parameter.empty:
            entry["default"] = parameter.default
        found.append(entry)
    return found


def golden() -> dict[str, list[dict[str, Any]]]:
    names = sorted(set(flower.__all__) - NOT_STRATEGIES)
    return {name: describe(getattr(flower, name)) for name in names}


if __name__ == "__main__":
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(golden(), indent=1) + "\n")
    print(f"wrote {target}")
