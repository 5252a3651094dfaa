"""`./run demo`: the whole project in one command, and nothing left when it is interrupted."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import psutil
import pytest

from tests.harness.servers import REPO, have_umbel, wait_until

DEMO = REPO / "scripts" / "demo" / "project.py"
pytestmark = pytest.mark.skipif(not have_umbel(), reason="umbel is not built")


def start(out) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(DEMO), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def of(out) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(out) in " ".join(process.info["cmdline"] or [])
    ]


def test_from_data_to_a_prediction(tmp_path, say):
    demo = start(tmp_path)
    told, _ = demo.communicate(timeout=1200)
    say(told)
    assert demo.returncode == 0, told
    assert "nothing left running" in told and not of(tmp_path)
    assert len(re.findall(r"FLOps FL round \d ", told)) == 3
    assert told.count("logged, registered, served") == 1
    (right,) = re.findall(r"test images ([\d.]+)% are right", told)
    assert float(right) > 80


def test_an_interrupt_leaves_nothing(tmp_path):
    demo = start(tmp_path)
    told = ""
    for line in demo.stdout:
        told += line
        if re.search(r"stage (build|deploy|train)$", line):
            demo.send_signal(signal.SIGINT)
            break
    told += demo.communicate(timeout=300)[0]
    assert demo.returncode == 130, told
    assert "nothing left running" in told
    wait_until("nothing is left", lambda: not of(tmp_path), 30)
