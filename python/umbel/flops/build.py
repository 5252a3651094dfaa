"""Makes of a repository what a project needs: an environment, and the app that learners run.

<environments>/<key>/          the venv, and in its folder umbel/
    umbel/app.fab, umbel/lock.txt, umbel/requirements.txt
    umbel/result.json          written last: without it, all of the folder is rubbish
<environments>/locks/<request> the versions chosen for this request, and `.lock` for turns
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import bundle, children, conda, contract, environment
from .words import Failed, one_line, say, write_json, write_whole

FORMAT = "1"  # of what stands in <environments>; another makes all anew
IMPORT_SECONDS = 120.0


def run(
    source: Path,
    commit: str,
    flavor: str,
    environments: Path,
    import_seconds: float = IMPORT_SECONDS,
) -> dict[str, Any]:
    """The result, as `--out` has it. errors  Failed"""
    started = time.monotonic()
    say("checking the repository")
    listed = contract.check(source, flavor)
    for note in listed.notes:
        say(note)
    environments.mkdir(parents=True, exist_ok=True)
    environments = environments.resolve()
    python = environment.find_python(listed.python)
    files = bundle.collect(source)
    request = _digest(
        [FORMAT, commit, flavor, python.version, sys.platform, os.uname().machine],
        sorted(r.text for r in environment.wanted(listed.requirements)),
        [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(files.items())],
        [hashlib.sha256(p.read_bytes()).hexdigest() for p in _adapter()],
    )
    locks = environments / "locks"
    locks.mkdir(exist_ok=True)
    with _turn(locks / f"{request}.lock") as held:
        lock = _lock(locks / f"{request}.txt", listed, python)
        key = _digest([request, lock])
        folder = environments / key
        result = _finished(folder)
        if result is not None:
            say(f"the environment {key} is there already")
            return result | {"cached": True}
        return _make(
            folder, key, source, commit, flavor, listed, python, files, lock, held, import_seconds,
            started,
        )  # fmt: skip


def _make(
    folder, key, source, commit, flavor, listed, python, files, lock, held, import_seconds, started
) -> dict[str, Any]:
    if folder.exists():
        say("removing what an earlier build left unfinished")
        shutil.rmtree(folder)
    fab = bundle.make(files, source.resolve().name, commit, flavor)
    own = folder / "umbel"
    own.mkdir(parents=True)
    try:
        write_whole(own / "lock.txt", lock.encode())
        environment.install(folder, python, own / "lock.txt", flavor, held)
        interpreter = folder / "bin" / "python"
        try_import(interpreter, fab, flavor, import_seconds, held)
        requirements = environment.direct(lock, listed.requirements)
        write_whole(own / "requirements.txt", "".join(f"{r}\n" for r in requirements).encode())
        write_whole(own / "app.fab", fab)
        result = {
            "environment": str(folder),
            "python": str(interpreter),
            "fab": str(own / "app.fab"),
            "key": key,
            "cached": False,
            "lock": str(own / "lock.txt"),
            "requirements": requirements,
        }
        write_json(own / "result.json", result)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    say(f"built {key} in {time.monotonic() - started:.1f} s")
    return result


def try_import(interpreter: Path, fab: bytes, flavor: str, seconds: float, held: int) -> None:
    """Imports the app's model_manager in a process of its own. errors  Failed"""
    say("importing the repository's code")
    with tempfile.TemporaryDirectory(prefix="umbel-import-") as temporary:
        app, out = Path(temporary, "app"), Path(temporary, "result.json")
        bundle.unpack(fab, app)
        ours = str(Path(__file__).resolve().parents[2])
        variables = {"ML_MODEL_FLAVOR": flavor, "PYTHONPATH": ours}
        ended = children.run(
            [interpreter, "-m", "umbel.flops", "probe", "--source", app, "--out", out],
            "importing the repository's code",
            seconds=seconds,
            environment=children.user_environment(interpreter) | variables,
            directory=temporary,
            inherit=[held],
            group=True,
        )
        if ended.timed_out:
            raise Failed(
                f"importing model_manager.py takes longer than {seconds:.0f} s; "
                "a module must only define things, the work belongs into its methods"
            )
        try:
            error = json.loads(out.read_text()).get("error")
        except (OSError, ValueError):
            last = f": {one_line(ended.tail[-1], 200)}" if ended.tail else ""
            raise Failed(f"importing model_manager.py {ended.how}{last}") from None
        if error:
            raise Failed(error)


def _adapter() -> list[Path]:
    return [Path(__file__).with_name(name) for name in bundle.ADAPTER]


def _digest(*parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _lock(path: Path, listed: conda.Environment, python: environment.Python) -> str:
    """What was chosen once stays, so that a project's later builds have the same versions."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    say(f"choosing versions for {len(listed.requirements)} packages of {listed.file}")
    lock = environment.compile_lock(listed.file, listed.requirements, python)
    write_whole(path, lock.encode())
    return lock


def _finished(folder: Path) -> dict[str, Any] | None:
    try:
        result = json.loads((folder / "umbel" / "result.json").read_text())
        whole = os.access(result["python"], os.X_OK) and os.path.getsize(result["fab"]) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if whole else None


@contextlib.contextmanager
def _turn(path: Path):
    """One build of a request at a time. Children hold the lock too: it ends with the last."""
    with open(path, "a+b") as file:
        spoken = 0.0
        while True:
            children.heed()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - spoken > children.SILENCE_SECONDS:
                    say("waiting for another build of the same environment")
                    spoken = time.monotonic()
                time.sleep(0.1)
        yield file.fileno()
