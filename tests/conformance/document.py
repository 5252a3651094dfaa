"""The tables of docs/compatibility.md, written from the recordings."""

from __future__ import annotations

import re

from tests.harness import servers

from . import runner

DOC = servers.REPO / "docs" / "compatibility.md"
BEGIN, END = "<!-- begin: written by `python -m tests.conformance --doc` -->", "<!-- end -->"


def tables() -> str:
    golden, ours = runner.load(), runner.load(runner.OURS)
    known = runner.known_differences(golden)
    count = sum(len(steps) for steps in golden.values())
    lines = [
        f"{count} answers in {len(golden)} conversations are compared: {count - len(known)} are"
        f" equal, {len(known)} differ for one of the reasons below.",
        "",
    ]
    by_reason: dict[str, list[str]] = {}
    for step, reason in known.items():
        by_reason.setdefault(reason, []).append(step)
    for number, (reason, steps) in enumerate(by_reason.items(), 1):
        lines += [f"### {number}. {reason}", "", "| step | Flower | Umbel |", "|---|---|---|"]
        for (scenario, group), (first, total, theirs, mine) in _grouped(
            steps, golden, ours
        ).items():
            more = f" (and {total - 1} more of `{scenario}`)" if total > 1 else ""
            lines.append(f"| `{first}`{more} | {theirs} | {mine} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _grouped(steps: list[str], golden: dict, ours: dict) -> dict:
    """Steps of one scenario with the same pair of answers share a row."""
    rows: dict = {}
    for full in steps:
        scenario, _, step = full.partition("/")
        theirs = runner.brief(golden[scenario].get(step))
        mine = (
            runner.brief(ours[scenario][step]) if step in ours.get(scenario, {}) else "as described"
        )
        if theirs == mine:
            theirs, mine = f"{theirs}, other content", f"{mine}, other content"
        key = (scenario, (theirs, mine))
        first, total, _, _ = rows.get(key, (full, 0, "", ""))
        rows[key] = (first, total + 1, _cell(theirs), _cell(mine))
    return rows


def _cell(text: str) -> str:
    return re.sub(r"([|])", r"\\\1", text)


def render(text: str) -> str:
    """The document with fresh tables between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}{END}{after}"


def write() -> None:
    DOC.write_text(render(DOC.read_text()))
