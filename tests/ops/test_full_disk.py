"""The disk fills up in the middle of a round: words, or waiting; and then it goes on."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess

import pytest

from tests.harness.servers import wait_until
from tests.ops.conftest import sla
from tests.ops.up import Up

MEGABYTES = 400
FULL = re.compile("No space left on device|disk is full|disk I/O error|the store cannot keep up")
ENDED = {"done", "failed", "cancelled"}
SOAK = os.environ.get("UMBEL_SOAK", "") not in ("", "0")
pytestmark = pytest.mark.skipif(not SOAK, reason="slow: ./run soak ops-disk")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={MEGABYTES}m", "umbel-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("only root mounts a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path) -> None:
    """Until not a byte more goes in."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def test_a_full_disk_loses_nothing(small_disk, repository, tmp_path, say):
    up = Up(small_disk / "up")
    up.log = tmp_path / "up.log"
    try:
        up.start()
        project = up.submit(sla(repository))
        with up.held(project):
            up.wait_for(project, {"train", *ENDED})
            fill(small_disk / "filler")

        def trouble() -> str | None:
            log = up.log.read_text(errors="replace") if up.log.exists() else ""
            row = up.project(project)
            if row["stage"] in ENDED:
                return row["failure"] or row["stage"]
            words = [line for line in log.splitlines() if FULL.search(line)]
            return words[-1] if words else None

        say(f"while it is full: {wait_until('there is trouble', trouble, 120, 0.5)[:300]}")
        assert up.process is not None and up.process.poll() is None
        (small_disk / "filler").unlink()
        row = up.wait_for(project, ENDED)
        say(f"then: {row['stage']} {row['failure'][:300]}")
        if row["stage"] == "failed":
            assert any(word in row["failure"] for word in ("space", "full", "disk")), row["failure"]
            assert up.request("POST", f"projects/{project}/resume").status_code == 202
            up.wait_for(project, {"prepare", "build", "deploy", "train", "record", "serve", "done"})
            row = up.wait_for(project, ENDED)
        assert row["stage"] == "done", up.story(project)
        assert row["best"]["accuracy"] > 0.8
        assert len(row["rounds"]) == 3
        wait_until("nothing of it is left", lambda: up.gone(project), 60)
    finally:
        up.remove_all()
