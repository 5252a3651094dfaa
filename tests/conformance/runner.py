"""Run scenarios against a server; keep, load and compare the answers."""

from __future__ import annotations

import fnmatch
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.harness import servers

from . import control, fleet, runtime, shape, superexec  # noqa: F401  (they define scenarios)
from .differences import DIFFERENCES
from .oracle import SCENARIOS, Scenario, Talk

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden.json"  # what the stock SuperLink answered
OURS = HERE / "ours.json"  # what ours answers where it means to differ
Steps = dict[str, Any]

# The stock server would look up application names on the internet; here it cannot.
NOWHERE = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}


def run(scenario: Scenario, kind: str, extra_args: Iterable[str] = (), **flags: Any) -> Steps:
    """One scenario against a fresh server of this kind; returns its answers by step."""
    with tempfile.TemporaryDirectory(prefix="umbel-conformance-") as folder:
        place = Path(folder)
        if scenario.tls:
            flags["tls"] = servers.make_certs(place / "certs")
        if scenario.secret is not None:
            flags["secret_file"] = place / "secret"
            flags["secret_file"].write_bytes(scenario.secret)
        with servers.start_server(
            kind,
            node_auth=scenario.node_auth,
            isolation="process",
            home=place / "home",
            env=NOWHERE,
            extra_args=tuple(extra_args),
            **flags,
        ) as server:
            with Talk(server.base_url, server.ssl_context(), scenario.name) as talk:
                try:
                    scenario.run(talk)
                except Exception as error:  # the steps so far still tell where it went wrong
                    talk.steps["(scenario)"] = {"broke off": f"{type(error).__name__}: {error}"}
            return talk.steps


def load(path: Path = GOLDEN) -> dict[str, Steps]:
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, recorded: dict[str, Steps]) -> None:
    """One line per step, so that a change of one answer is a change of one line."""
    blocks = []
    for name in sorted(recorded):
        lines = [
            f"  {json.dumps(step)}: {json.dumps(answer, ensure_ascii=False, sort_keys=True)}"
            for step, answer in recorded[name].items()
        ]
        blocks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    path.write_text("{\n " + ",\n ".join(blocks) + "\n}\n")


def differing(golden: Steps, steps: Steps) -> dict[str, tuple[Any, Any]]:
    """Steps whose answers are not the same, with both; None where a side lacks the step."""
    names = list(golden) + [step for step in steps if step not in golden]
    return {
        step: (golden.get(step), steps.get(step))
        for step in names
        if not same(golden.get(step), steps.get(step))
    }


def same(theirs: Any, ours: Any) -> bool:
    """Equal; or ours says in `extra` what an error is about, where theirs says nothing."""
    theirs, ours = (json.loads(json.dumps(side, sort_keys=True)) for side in (theirs, ours))
    if theirs and ours and "extra" in ours and "extra" not in theirs:
        ours = {key: value for key, value in ours.items() if key != "extra"}
    return theirs == ours


def known_differences(golden: dict[str, Steps]) -> dict[str, str]:
    """Every step that may differ, as scenario/step, with the reason it may."""
    steps = [f"{name}/{step}" for name, answers in golden.items() for step in answers]
    found: dict[str, str] = {}
    for reason, patterns in DIFFERENCES.items():
        for pattern in patterns:
            for step in steps:
                if fnmatch.fnmatchcase(step, pattern):
                    found[step] = reason
    return found


def brief(answer: Any) -> str:
    """An answer in a few words: `200`, `412/2004`, `401`."""
    if answer is None:
        return "none"
    if "status" not in answer:
        return json.dumps(answer, ensure_ascii=False)
    code = answer.get("code")
    return f"{answer['status']}/{code}" if code is not None else str(answer["status"])


def chosen(only: Iterable[str] = (), slow: bool = True) -> list[Scenario]:
    only = list(only)
    return [
        scenario
        for name, scenario in SCENARIOS.items()
        if (slow or not scenario.slow)
        and (not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only))
    ]
