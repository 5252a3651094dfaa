"""python -m tests.conformance: record, compare, write the documentation table.

--record            ask the stock SuperLink everything and rewrite golden.json
--against umbel     run the scenarios against a server and print what differs from golden.json
--against upstream  the same against the stock SuperLink (is the recording stable?)
--keep              with --against umbel: rewrite ours.json, our answers where we mean to differ
--doc               rewrite the tables of docs/compatibility.md
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from . import document, runner


def record(scenarios, arguments) -> int:
    golden = runner.load()
    for scenario in scenarios:
        begin = time.monotonic()
        steps = runner.run(scenario, "upstream", arguments.flag)
        golden[scenario.name] = steps
        print(f"{scenario.name}: {len(steps)} steps, {time.monotonic() - begin:.1f} s", flush=True)
        if "(scenario)" in steps:
            print("  broke off:", steps["(scenario)"])
            return 1
    if not arguments.only:
        known = {scenario.name for scenario in runner.chosen()}
        golden = {name: steps for name, steps in golden.items() if name in known}
    runner.save(runner.GOLDEN, golden)
    return 0


def against(scenarios, arguments) -> int:
    golden = runner.load()
    known = runner.known_differences(golden)
    kept: dict[str, runner.Steps] = runner.load(runner.OURS)
    unlisted = stale = equal = 0
    for scenario in scenarios:
        begin = time.monotonic()
        steps = runner.run(scenario, arguments.against, arguments.flag)
        differ = runner.differing(golden.get(scenario.name, {}), steps)
        equal += len(steps) - len(differ)
        print(f"== {scenario.name}: {len(steps)} steps, {len(differ)} differ,"
              f" {time.monotonic() - begin:.1f} s", flush=True)  # fmt: skip
        own: runner.Steps = {}
        for step, (theirs, ours) in differ.items():
            full = f"{scenario.name}/{step}"
            if full in known:
                own[step] = ours
                if not arguments.verbose:
                    continue
            else:
                unlisted += 1
            mark = "listed" if full in known else "DIFFERS"
            print(f"{mark} {full}: {runner.brief(theirs)} -> {runner.brief(ours)}")
            print("    theirs:", json.dumps(theirs, ensure_ascii=False)[: arguments.width])
            print("    ours:  ", json.dumps(ours, ensure_ascii=False)[: arguments.width])
        for full in known:
            name, _, step = full.partition("/")
            if arguments.against == "umbel" and name == scenario.name and step not in differ:
                stale += 1
                print(f"STALE {full}: listed, but the answers are equal")
        kept[scenario.name] = own
        if not own:
            kept.pop(scenario.name)
    print(f"{equal} equal, {unlisted} unlisted differences, {stale} stale entries")
    if arguments.keep:
        runner.save(runner.OURS, kept)
    return 1 if unlisted or stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--against", choices=("umbel", "upstream"))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--doc", action="store_true")
    parser.add_argument(
        "--slow", action="store_true", help="the scenarios that wait for timeouts too"
    )
    parser.add_argument("--verbose", action="store_true", help="print listed differences as well")
    parser.add_argument("--width", type=int, default=600)
    parser.add_argument(
        "--flag", action="append", default=[], help="one more argument of the server"
    )
    parser.add_argument("only", nargs="*", help="names of scenarios, with * for anything")
    arguments = parser.parse_args()
    scenarios = runner.chosen(arguments.only, slow=arguments.slow)
    status = 0
    if arguments.record:
        status |= record(scenarios, arguments)
    if arguments.against:
        status |= against(scenarios, arguments)
    if arguments.doc:
        document.write()
    return status


if __name__ == "__main__":
    sys.exit(main())
