"""The command line: `python -m umbel.flops COMMAND --help`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from .words import Failed, one_line, say, write_json

FLAVORS = ("sklearn", "pytorch", "tensorflow", "keras")
_RAW = argparse.RawDescriptionHelpFormatter
_EXAMPLES = {
    "check": "python -m umbel.flops check --source ./my-repository --flavor sklearn",
    "build": """python -m umbel.flops build --source ./my-repository --commit 7f3c2e1 \\
      --flavor sklearn --environments ~/.cache/umbel --out build.json""",
    "initial": """ENVIRONMENT/bin/python -m umbel.flops initial --source ./my-repository \\
      --flavor sklearn --model initial.npz --out initial.json""",
    "log": """ENVIRONMENT/bin/python -m umbel.flops log --source ./my-repository \\
      --flavor sklearn --model best.npz --tracking http://127.0.0.1:7027 --run-id 4f1d… \\
      --registered-name my-model --metrics '{"accuracy": 0.84, "loss": 0.46}' --out log.json""",
}


def main() -> int:
    arguments = _parser().parse_args()
    here = os.getcwd()
    sys.path[:] = [path for path in sys.path if path not in ("", here) or _ours(path)]
    if arguments.command == "probe":
        from . import probe

        return probe.run(arguments.source, arguments.out)
    try:
        result = _run(arguments)
    except Failed as failed:
        for sentence in failed.all:
            say(f"error: {sentence}")
        result = {"error": str(failed), "errors": failed.all, "passes": failed.passes}
    except OSError as error:  # of our own doing: a full disk, a folder that may not be written
        result = {"error": one_line(f"{arguments.command} failed: {error}")}
        say(f"error: {result['error']}")
    except Exception as error:  # ours, or of a library's: whoever waits for a result gets one
        traceback.print_exc(file=sys.stdout)
        text = one_line(f"{type(error).__name__}: {error}", 300)
        result = {"error": f"{arguments.command} failed in a way it should not: {text}"}
    if arguments.out is not None:
        write_json(arguments.out, result)
    return 1 if "error" in result else 0


def _ours(path: str) -> bool:
    return os.path.realpath(path) == str(Path(__file__).resolve().parents[2])


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Each command imports what it needs: not every Python that runs one has all of it."""
    if arguments.command == "check":
        from . import contract

        found = contract.check(arguments.source, arguments.flavor)
        say(f"{arguments.source} keeps the contract")
        return {
            "requirements": [r.text for r in found.requirements],
            "python": found.python,
            "notes": found.notes,
        }
    if arguments.command == "build":
        from . import build, children

        children.end_on_sigterm()
        return build.run(
            arguments.source,
            arguments.commit,
            arguments.flavor,
            arguments.environments,
            arguments.import_seconds,
        )
    if arguments.command == "initial":
        from . import initial

        return initial.run(arguments.source, arguments.flavor, arguments.model)
    from . import log

    return log.run(
        arguments.source,
        arguments.flavor,
        arguments.model,
        arguments.tracking,
        arguments.run_id,
        arguments.registered_name,
        arguments.metrics,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m umbel.flops",
        description="Checks and builds FLOps ML repositories, and handles their models.\n"
        "Progress goes to standard output; the result, or {\"error\": …}, as JSON to --out.",
        epilog="examples:\n" + "\n".join(f"  {text}" for text in _EXAMPLES.values()),
        formatter_class=_RAW,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = _command(commands, "check", "read a repository and say what breaks the contract")
    check.add_argument("--flavor", choices=FLAVORS)
    check.add_argument("--out", type=Path)
    build = _command(commands, "build", "make the environment and the app (flwr's and uv's Python)")
    build.add_argument("--commit", required=True, help="the commit that is checked out")
    build.add_argument("--environments", required=True, type=Path, help="cache, shared by projects")
    build.add_argument("--import-seconds", type=float, default=120.0, metavar="SECONDS")
    initial = _command(commands, "initial", "write the untrained model (the environment's Python)")
    log = _command(commands, "log", "log the best model with MLflow (the environment's Python)")
    for one in (initial, log):
        one.add_argument("--model", required=True, type=Path, help=".npz, its keys 0, 1, …")
    log.add_argument("--tracking", required=True, help="address of the MLflow server")
    log.add_argument("--run-id", required=True)
    log.add_argument("--registered-name", required=True)
    log.add_argument("--metrics", type=_metrics, default={}, help="as a JSON object")
    for one in (build, initial, log):
        one.add_argument("--flavor", choices=FLAVORS, required=True)
        one.add_argument("--out", required=True, type=Path)
    probe = commands.add_parser("probe", description="part of build")
    probe.add_argument("--source", required=True, type=Path)
    probe.add_argument("--out", required=True, type=Path)
    return parser


def _command(commands, name: str, what: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog=f"example:\n  {_EXAMPLES[name]}",
        formatter_class=_RAW,
    )
    command.add_argument("--source", required=True, type=Path, help="the repository, checked out")
    return command


def _metrics(text: str) -> dict[str, float]:
    try:
        found = json.loads(text)
        metrics = {str(key): float(value) for key, value in found.items()}
    except (ValueError, TypeError, AttributeError):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object of numbers") from None
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


if __name__ == "__main__":
    sys.exit(main())
