"""Adds up JUnit files of ctest and pytest and prints `N passed, N failed[, N skipped]`.

A file that is not there counts as nothing: its part failed before it could run a test. So that
this shows, the sum of failures is never less than --failed-parts. Exit status 1 on any failure.
"""

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def count(path: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests of one file."""
    passed = failed = skipped = 0
    for suite in ElementTree.parse(path).iter("testsuite"):
        number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        failed += number["failures"] + number["errors"]
        skipped += number["skipped"]
        passed += number["tests"] - number["failures"] - number["errors"] - number["skipped"]
    return passed, failed, skipped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--failed-parts", type=int, default=0)
    args = parser.parse_args()
    counts = [count(path) for path in args.files if path.is_file()]
    passed, failed, skipped = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    failed = max(failed, args.failed_parts)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
