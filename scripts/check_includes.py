"""Holds `#include "room/..."` to the table of rooms: dependencies point one way.

A new room gets a row here and in docs/architecture.md. Quotes are for our own headers and for
generated protobuf ones; third-party headers stand in angle brackets.

Usage: check_includes.py [ROOT]. Prints each violation; exit status 1 if there is one.
"""

import re
import sys
from pathlib import Path

# room -> what it may include, besides itself
ROOMS: dict[str, set[str]] = {
    "base": set(),
    "process": {"base"},
    "tensor": {"base"},
    "aggregation": {"base", "tensor"},
    "dataset": {"base", "tensor"},
    "dataserver": {"base", "tensor", "dataset"},
    "store": {"base", "tensor"},
    "http": {"base"},
    "tracking": {"base", "process", "store", "http"},
    "flower": {"base", "tensor", "http"},
    "superlink": {"base", "process", "tensor", "store", "http", "flower", "aggregation"},
    "supernode": {"base", "process", "tensor", "store", "http", "flower"},
    "rounds_client": {"base", "tensor", "http", "flower"},
    "orchestrator": {"base", "process"},
    "manager": {
        "base", "process", "tensor", "store", "http", "flower", "orchestrator", "tracking",
        "rounds_client", "dataset",
    },
    "doors": {"base", "http", "flower", "orchestrator", "tracking", "manager"},
    "cli": {
        "base", "http", "tensor", "flower", "store", "superlink", "supernode", "rounds_client",
        "orchestrator", "manager", "doors", "process", "dataset",
    },
    "clientapp": {"base", "tensor", "flower", "http", "supernode", "cli"},
}
# These folders stand above all rooms and may include any.
ABOVE = ("apps", "bench", "tests")

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
SOURCES = {".h", ".cc"}


def violation(room: str | None, path: Path, header: str) -> str | None:
    """Why this include is wrong, or None. room is None for files above all rooms."""
    if header.endswith(".pb.h"):
        return "base knows no protocol" if room == "base" else None
    if room is None and (path.parent / header).is_file():
        return None  # an app's or a test's own header, beside it
    target = header.split("/")[0]
    if target not in ROOMS:
        return f"'{target}' is not a room (third-party headers stand in <>)"
    if room is None or target == room or target in ROOMS[room]:
        return None
    allowed = ", ".join(sorted(ROOMS[room])) or "nothing"
    return f"{room} may include {allowed}"


def check(root: Path) -> tuple[int, list[str]]:
    files = 0
    found = []
    for top in ("src", *ABOVE):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SOURCES or not path.is_file():
                continue
            files += 1
            name = path.relative_to(root)
            room = name.parts[1] if top == "src" else None
            if top == "src" and room not in ROOMS:
                found.append(f"{name}: room '{room}' is not in the table of {Path(__file__).name}")
                continue
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                match = INCLUDE.match(line)
                why = match and violation(room, path, match.group(1))
                if why:
                    found.append(f'{name}:{number}: #include "{match.group(1)}": {why}')
    return files, found


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    files, found = check(root)
    for line in found:
        print(line)
    if not found:
        print(f"includes: {files} files keep to the table of {len(ROOMS)} rooms")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
