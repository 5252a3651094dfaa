"""The app (FAB) that learners run: the repository's files, our adapter, and our pyproject.toml."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path

from .words import Failed, one_line, say

FILES_MAX = 1000  # a Flower app has no more
FILE_BYTES_MAX = 1 << 20
TOTAL_BYTES_MAX = 10 << 20
WALKED_MAX = 50_000
ADAPTER = ("umbel_client_app.py", "umbel_server_app.py", "umbel_model.py", "data_loading.py")
_SHOWN = 8


def collect(source: Path) -> dict[str, bytes]:
    """The repository's own part of the app. Says what stays behind. errors  Failed"""
    names, links = _walk(source)
    taken = _rules(source, names)
    files: dict[str, bytes] = {}
    total = 0
    for name in sorted(taken):
        path = source / name
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise Failed(
                f"{name} has {size} bytes; a file of an app has at most {FILE_BYTES_MAX}: "
                "leave it out by .gitignore, or give it as data"
            )
        total += size
        if total > TOTAL_BYTES_MAX or len(files) >= FILES_MAX:
            raise Failed(
                f"the repository is too large for an app: at most {FILES_MAX} files and "
                f"{TOTAL_BYTES_MAX >> 20} MiB; leave some out by .gitignore"
            )
        files[name] = path.read_bytes()
    left = sorted(set(names) - set(taken) - {".gitignore", "pyproject.toml"})
    _say_left("not of a kind that an app has, or ignored by .gitignore", left)
    _say_left("symbolic links are not taken along", links)
    _say_left("Umbel's own takes its place", [n for n in ADAPTER if n in files])
    return files


def _walk(source: Path) -> tuple[list[str], list[str]]:
    names, links = [], []
    for folder, folders, found in os.walk(source):
        here = Path(folder)
        folders[:] = sorted(f for f in folders if f not in (".git", "__pycache__"))
        linked = [name for name in folders if (here / name).is_symlink()]
        links += [(here / name).relative_to(source).as_posix() for name in linked]
        for name in found:
            path = here / name
            relative = path.relative_to(source).as_posix()
            if path.is_symlink():
                links.append(relative)
            elif path.is_file():
                names.append(relative)
        if len(names) > WALKED_MAX:
            raise Failed(f"the repository has more than {WALKED_MAX} files")
    return names, links


def _rules(source: Path, names: list[str]) -> list[str]:
    """Flower's own choice of an app's files, .gitignore among it."""
    from flwr.cli.build import get_filtered_fab_paths
    from flwr.cli.utils import AppPathDepthError, filter_paths_for_publish

    listed: dict[str, bytes | Path] = {name: source / name for name in names}
    try:
        chosen = filter_paths_for_publish(listed)
    except (AppPathDepthError, ValueError) as error:
        raise Failed(f"the repository is no app: {one_line(str(error), 300)}") from None
    return [name for name in get_filtered_fab_paths(dict(chosen), {}) if name != "pyproject.toml"]


def _say_left(why: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        say(f"left out ({why}): {', '.join(names[:_SHOWN])}{more}")


def make(files: dict[str, bytes], name: str, commit: str, flavor: str) -> bytes:
    """The FAB: equal for equal arguments. errors  Failed"""
    from flwr.cli.build import build_fab_from_files

    own = Path(__file__).parent
    adapter = {name: (own / name).read_bytes() for name in ADAPTER}
    project = {"pyproject.toml": _project(name, commit, flavor).encode()}
    try:
        return build_fab_from_files({**files, **adapter, **project})[0]
    except ValueError as error:
        raise Failed(f"no app can be made of the repository: {one_line(str(error), 300)}") from None


def _project(name: str, commit: str, flavor: str) -> str:
    return f"""[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{_app_name(name)}"
version = "0.0.0"
description = "FLOps ML repository at commit {re.sub(r"[^0-9A-Za-z]", "", commit)[:64]}"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "flops"

[tool.flwr.app.components]
serverapp = "umbel_server_app:app"
clientapp = "umbel_client_app:app"

[tool.flwr.app.config]
ml-model-flavor = "{flavor}"

[tool.umbel.clientapp]
host = "spawn"
"""


def _app_name(name: str) -> str:
    """Flower's rules: at most 32 letters, digits and dashes, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    name = name if name[:1].isalpha() else f"ml-{name}"
    return name[:32].rstrip("-") or "ml-repository"


def unpack(fab: bytes, folder: Path) -> None:
    """As a node does."""
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        archive.extractall(folder)
