"""Holds the Python requirements to peers.toml: equal versions, all hashed, no index named.

Prints each violation; exit status 1 if there is one.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")


def pins(path: Path) -> dict[str, str]:
    return dict(m.groups() for line in path.read_text().splitlines() if (m := PIN.match(line)))


def violations_in_lock(path: Path) -> list[str]:
    name = path.relative_to(ROOT)
    found = []
    # A requirement and its hashes are one line, continued by backslashes.
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not PIN.match(line):
            found.append(f"{name}: not a plain pin: {line.strip()[:60]}")
        elif "--hash=sha256:" not in line:
            found.append(f"{name}: no hash: {line.strip()[:60]}")
        if "://" in line:
            found.append(f"{name}: names an address: {line.strip()[:60]}")
    return found


def main() -> int:
    peers = tomllib.loads((ROOT / "peers.toml").read_text())
    found = []
    locks = set()
    for peer, entry in peers.items():
        if "requirements" not in entry:
            continue
        lock = ROOT / entry["requirements"]
        locks.add(lock)
        for path in (lock, lock.with_suffix(".in")):
            package, wanted = entry.get("package", peer), entry["version"]
            pinned = pins(path).get(package)
            if pinned != wanted:
                name = path.relative_to(ROOT)
                found.append(f"{name}: {package} is {pinned}, peers.toml says {wanted}")
    for lock in sorted(locks):
        found += violations_in_lock(lock)
    for line in found:
        print(line)
    if not found:
        print(f"pins: {len(peers)} peer(s) agree with the requirements")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
