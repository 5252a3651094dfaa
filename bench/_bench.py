"""What the benches share: servers, the load generator, memory, pairs, and the table of results.

A bench measures the other side, or a roof, in the same run: `pairs` takes turns, and every figure
is a median over pairs. `record` puts a result into docs/performance.md.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from tests.conformance import wire  # noqa: E402  (needs the path above)
from tests.harness import servers  # noqa: E402
from tests.harness.servers import Server  # noqa: E402

PAIRS = int(os.environ.get("UMBEL_BENCH_PAIRS", "3"))
TABLE = Path(os.environ.get("UMBEL_BENCH_TABLE", REPO / "docs" / "performance.md"))
BEGIN = "<!-- begin: written by ./run bench -->"
END = "<!-- end -->"
HEADER = ["row", "what", "bench", "figure", "bar", "met", "load", "date (UTC)", "commit"]


def say(text: str) -> None:
    print(text, flush=True)


def load_average() -> float:
    return os.getloadavg()[0]


# ---------------------------------------------------------------------------------------------
# Servers and the generator


def umbel_load() -> Path:
    return Path(os.environ.get("UMBEL_LOAD", REPO / "build/release/bench/umbel_load"))


def generate(*arguments: object, seconds: float = 600.0) -> dict:
    """Run umbel_load to its end; its last line of JSON."""
    command = [str(umbel_load()), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A folder on the file system of the checkout, which must be a disk. Removed at the end."""
    root = Path(os.environ.get("UMBEL_BENCH_FOLDER", REPO / "build"))
    root.mkdir(exist_ok=True)
    if file_system(root) == "tmpfs":
        raise RuntimeError(f"{root} is in memory; name a folder on a disk in UMBEL_BENCH_FOLDER")
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def fresh_server(kind: str, folder: Path, *flags: str) -> Iterator[tuple[Server, Path]]:
    """A SuperLink in process isolation with its state on disk, and a bundle it takes."""
    home = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=folder))
    fab = home / "toy.fab"
    fab.write_bytes(wire.bundle())
    options: dict = {"home": home / "home", "isolation": "process", "extra_args": flags}
    if kind == "upstream":
        options["database"] = home / "state.db"
    with servers.start_server(kind, **options) as server:
        yield server, fab
    shutil.rmtree(home, ignore_errors=True)


# ---------------------------------------------------------------------------------------------
# A process from outside


def file_system(path: Path | str) -> str:
    """The type of the file system that holds a path."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "unknown"


@dataclass(frozen=True)
class Memory:
    """Bytes: the peak resident size, and what the process holds in memory under file names."""

    peak: int
    resident: int
    files: int

    @property
    def total(self) -> int:
        return self.peak + self.files

    def __str__(self) -> str:
        more = f" + {self.files / 1e6:.1f} MB tmpfs and memfd" if self.files else ""
        return f"{self.peak / 1e6:.1f} MB{more}"


def memory(pid: int) -> Memory:
    """VmHWM, plus every tmpfs file and memfd the process has open, each once."""
    status = Path(f"/proc/{pid}/status").read_text()

    def kilobytes(name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    tmpfs = {
        line.split()[2]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - tmpfs " in line
    }
    seen: dict[tuple[int, int], int] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target, info = os.readlink(link), os.stat(link)
            place = f"{os.major(info.st_dev)}:{os.minor(info.st_dev)}"
            if target.startswith("/memfd:") or (place in tmpfs and target.startswith("/")):
                seen[info.st_dev, info.st_ino] = info.st_blocks * 512
    return Memory(kilobytes("VmHWM"), kilobytes("VmRSS"), sum(seen.values()))


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------------------------------
# Figures


def pairs(first: Callable[[], float], second: Callable[[], float]) -> list[tuple[float, float]]:
    """Both, PAIRS times in turn; which one goes first changes from pair to pair."""
    found = []
    for turn in range(PAIRS):
        if turn % 2 == 0:
            a = first()
            b = second()
        else:
            b = second()
            a = first()
        found.append((a, b))
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(found: Sequence[tuple[float, float]]) -> float:
    """Median over pairs of first/second."""
    return median([a / b for a, b in found])


# ---------------------------------------------------------------------------------------------
# The table


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", text)
    sha = "with" if re.search(r"\bsha_ni\b", text) else "without"
    name = model[1].strip() if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {sha} SHA instructions, Linux {platform.release()}"


def commit() -> str:
    """The checked-out commit, with a + if files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=10", "HEAD")
    return (head or "none") + ("+" if git("status", "--porcelain", "--", "src", "bench") else "")


def at_least(value: float, bar: float) -> str:
    return "met" if value >= bar else f"missed: {value / bar:.2f} of it"


def at_most(value: float, bar: float) -> str:
    return "met" if value <= bar else f"missed: {value / bar:.2f} × it"


def _place(line: str) -> tuple[str, int, str]:
    """The SuperLink's rows stand first, then the SuperNode's (n), then those of rounds (r)."""
    number, what, *_ = line.strip("| ").split(" | ")
    plain = number.lstrip("nr")
    return number.removesuffix(plain), int(plain), what


def note_start_and_idle(recorder, measure, names, bars):
    """Rows of two programs' start and idle memory, side by side.

    measure  (kind, folder) -> seconds to be ready, bytes when idle
    names    what the two rows are called
    bars     the share of upstream's time, and megabytes
    """
    with workspace() as folder:
        measure("umbel", folder)  # once each for the page cache
        measure("upstream", folder)
        found = pairs(lambda: measure("umbel", folder), lambda: measure("upstream", folder))
    share = ratio([(ours[0], theirs[0]) for ours, theirs in found])
    ours, theirs = (median([pair[side][0] for pair in found]) for side in (0, 1))
    figure = f"1/{1 / share:.0f} ({1e3 * ours:.0f} of {1e3 * theirs:.0f} ms)"
    bar = f"≤ 1/{1 / bars[0]:.0f}"
    recorder.note(names[0], figure, bar, at_most(share, bars[0]))
    ours, theirs = (median([pair[side][1] for pair in found]) for side in (0, 1))
    figure = f"{ours / 1e6:.1f} MB (upstream {theirs / 1e6:.0f} MB)"
    recorder.note(names[1], figure, f"≤ {bars[1]} MB", at_most(ours, bars[1] * 1e6))


@dataclass
class Recorder:
    """Writes rows into the table; a row with the same number and subject is replaced."""

    row: str
    bench: str
    load: float = 0.0
    failed: bool = False

    def __post_init__(self) -> None:
        self.load = load_average()

    def note(self, what: str, figure: str, bar: str, met: str) -> None:
        loads = f"{self.load:.1f} → {load_average():.1f}"
        date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
        cells = [self.row, what, self.bench, figure, bar, met, loads, date, commit()]
        cells = [" ".join(str(cell).split()).replace("|", "/") for cell in cells]
        say(f"  row {self.row} {what}: {figure}  [bar {bar}: {met}]  load {loads}")
        self.failed |= met.startswith("missed")
        text = TABLE.read_text()
        head, _, rest = text.partition(BEGIN)
        body, _, tail = rest.partition(END)
        lines = [line for line in body.splitlines() if line.startswith("| ")][1:]
        kept = [line for line in lines if line.split(" | ")[:2] != [f"| {cells[0]}", cells[1]]]
        kept.append("| " + " | ".join(cells) + " |")
        kept.sort(key=_place)
        table = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|", *kept]
        block = f"{BEGIN}\nMachine: {machine()}.\n\n" + "\n".join(table) + f"\n{END}"
        TABLE.write_text(head + block + tail)
