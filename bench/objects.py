"""Row 9: push and pull of distinct 5 MiB objects, on disk, both durabilities, hashes verified.

Beside a roof of the same bytes (loopback into SHA-256 and pwrite; sendfile into SHA-256) and beside
upstream with its SQLite file, all in turn.
"""

import os
import sys

from _bench import (
    PAIRS, Recorder, at_least, cpu_seconds, fresh_server, generate, median, memory, say, workspace,
)  # fmt: skip

OBJECTS = int(os.environ.get("UMBEL_BENCH_OBJECTS", "160"))
UPSTREAM_OBJECTS = 16  # the same work for each byte; it is slow
CONNECTIONS = 4
PHASES = ("push", "pull")
DIRECTIONS = ("up", "down")


def measure(kind, folder, objects, *flags):
    """GB/s by (direction, phase), with the server's own CPU seconds for each GB."""
    found = {}
    for direction in DIRECTIONS:
        with fresh_server(kind, folder, *flags) as (server, fab):
            before = cpu_seconds(server.pid)
            done = generate(
                "objects", "--port", server.port, "--fab", fab, "--direction", direction,
                "--objects", objects, "--connections", CONNECTIONS,
            )  # fmt: skip
            spent = cpu_seconds(server.pid) - before
            gigabytes = 2 * done["push"]["bytes"] / 1e9
            say(
                f"  {kind} {' '.join(flags)} {direction}: push {done['push']['gb_per_s']:.3f}, "
                f"pull {done['pull']['gb_per_s']:.3f} GB/s, {spent / gigabytes:.2f} CPU s a GB, "
                f"peak {memory(server.pid)}"
            )
        for phase in PHASES:
            found[direction, phase] = done[phase]["gb_per_s"]
    return found


def roof(folder, *flags):
    done = generate(
        "roof", "--folder", folder, "--objects", OBJECTS, "--connections", CONNECTIONS, *flags
    )
    say(
        f"  roof {' '.join(flags)}: push {done['push']['gb_per_s']:.3f}, "
        f"pull {done['pull']['gb_per_s']:.3f} GB/s"
    )
    return {phase: done[phase]["gb_per_s"] for phase in PHASES}


def main():
    recorder = Recorder("9", "objects")
    turns = []
    with workspace() as folder:
        for turn in range(PAIRS):
            say(f"turn {turn + 1} of {PAIRS}")
            steps = {
                "roof": lambda: roof(folder),
                "process": lambda: measure("umbel", folder, OBJECTS),
                "synced": lambda: roof(folder, "--sync"),
                "power": lambda: measure("umbel", folder, OBJECTS, "--durability", "power"),
                "upstream": lambda: measure("upstream", folder, UPSTREAM_OBJECTS),
            }
            names = list(steps) if turn % 2 == 0 else list(reversed(steps))
            turns.append({name: steps[name]() for name in names})

    def over(name, direction, phase, other):
        def rate(turn, which):
            return turn[which][phase] if which in ("roof", "synced") else turn[which][
                direction, phase
            ]

        return median([rate(turn, name) / rate(turn, other) for turn in turns])

    for phase in PHASES:
        roofs = {name: median([t[name][phase] for t in turns]) for name in ("roof", "synced")}
        for name, other in (("process", "roof"), ("power", "synced")):
            rates = [median([t[name][d, phase] for t in turns]) for d in DIRECTIONS]
            shares = [over(name, d, phase, other) for d in DIRECTIONS]
            figure = (
                f"{shares[0]:.2f} up, {shares[1]:.2f} down ({rates[0]:.2f}, {rates[1]:.2f} of "
                f"{roofs[other]:.2f} GB/s)"
            )
            if name == "power" and phase == "push":
                plain = [over(name, d, phase, "roof") for d in DIRECTIONS]
                figure += f"; of a roof that does not sync: {plain[0]:.2f}, {plain[1]:.2f}"
            what = f"{phase}, durability {name}, of the roof"
            what += " that syncs each object" if other == "synced" else ""
            recorder.note(what, figure, "≥ 0.70", at_least(min(shares), 0.7))
        gains = [over("process", d, phase, "upstream") for d in DIRECTIONS]
        most = over("roof", DIRECTIONS[0], phase, "upstream")
        bar = min(5.0, 0.7 * most)
        text = "≥ 5 ×" if bar == 5.0 else f"≥ {bar:.1f} × (0.7 of the roof, {most:.1f} ×)"
        figure = f"{gains[0]:.1f} × up, {gains[1]:.1f} × down"
        recorder.note(f"{phase}, over upstream", figure, text, at_least(min(gains), bar))
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
