"""The commands that ask a running `umbel up`, as a person and as a script have them."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from tests.harness.servers import have_umbel, umbel_bin, wait_until
from tests.ops.conftest import sla
from tests.ops.up import Up

COMMANDS = ["up", "project", "ps", "logs", "nodes", "tracking", "data", "models", "predict", "accounts"]
TALKS = "#!/bin/sh\nwhile :; do echo tick; sleep 0.1; done\n"


@pytest.fixture
def talking(tmp_path):
    """An `umbel up` whose MLflow and data servers say something all the time."""
    if not have_umbel():
        pytest.skip("umbel is not built")
    program = tmp_path / "talks"
    program.write_text(TALKS)
    program.chmod(0o755)
    one = Up(tmp_path / "up", **{"mlflow-python": program, "dataserver": program})
    one.start()
    yield one
    one.remove_all()


def follow(up, name: str, *more: str) -> subprocess.Popen:
    command = [str(umbel_bin()), "logs", name, "-f", "--state", str(up.state), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def named(up, prefix: str) -> str:
    """The service whose name begins so, once it runs."""

    def look() -> str | None:
        for each in up.get("services")["services"]:
            running = [one for one in each["instances"] if one["state"] == "running"]
            if each["name"].startswith(prefix) and running:
                return each["name"]
        return None

    return wait_until(f"{prefix}… runs", look, 60)


def test_every_command_tells_how_it_is_used(umbel_bin):
    for command in COMMANDS:
        done = subprocess.run([umbel_bin, command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "Examples:\n  umbel " in done.stdout, command
        if command != "up":
            assert "--json" in done.stdout, command
        assert f"  {command} " in subprocess.run([umbel_bin], capture_output=True, text=True).stdout


def test_scripts_get_json_and_people_words(doors, tmp_path):
    document = tmp_path / "sla.json"
    document.write_text(json.dumps(sla("/nowhere")))
    submitted = doors.cli("project", "submit", str(document), "--follow", "--json")
    assert submitted.returncode == 1, "the project failed"
    first, *entries, last = [json.loads(line) for line in submitted.stdout.splitlines()]
    assert first["id"] == last["id"] and last["stage"] == "failed"
    assert entries and all(entry["text"] for entry in entries)
    name = first["id"]
    asked = {
        ("project", "list"): list, ("project", "show", name[:12]): dict, ("ps",): list, ("ps", "--all"): list,
        ("nodes",): list, ("models",): list, ("data",): list, ("data", "mock", "list"): list,
        ("tracking", "--no-wait"): dict, ("accounts", "list"): list,
    }  # fmt: skip
    for words, kind in asked.items():
        done = doors.cli(*words, "--json")
        assert done.returncode == 0, (words, done.stderr)
        assert isinstance(json.loads(done.stdout), kind), words
        shown = doors.cli(*words)
        assert shown.returncode == 0 and shown.stdout.strip(), (words, shown.stderr)
    observer = named(doors, "observ")
    told = json.loads(doors.cli("logs", observer, "--json").stdout)
    assert told["ended"] and "Terminating" in told["text"]
    ended = doors.cli("logs", observer, "-f")
    assert ended.returncode == 0 and ended.stdout == told["text"]
    removed = doors.cli("project", "rm", name[:12], "--json")
    assert removed.returncode == 0 and json.loads(removed.stdout)["id"] == name
    assert json.loads(doors.cli("project", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("project", "show", "none"), 1, "no project is called 'none'"),
        (("project", "submit", "missing.json"), 1, "missing.json"),
        (("project", "frobnicate"), 2, "frobnicate"),
        (("logs", "none"), 1, "no service is called 'none'"),
        (("tracking", "--customer", "nobody"), 1, "umbel accounts add"),
        (("data", "mock"), 2, "--tag is missing"),
        (("data", "mock", "rm", "none"), 1, "no mock data provider is called 'none'"),
        (("data", "drop", "mnist"), 1, "no data servers to be seen"),
        (("predict", "rows.txt"), 2, "neither .csv nor .json"),
        (("accounts", "rm", "Admin"), 1, "the last admin stays"),
        (("ps", "--user", "alice", "--password-file", "none"), 1, "none"),
    ],
)
def test_errors_name_the_way_out(doors, words, status, said):
    done = doors.cli(*words)
    assert done.returncode == status and said in done.stderr, (done.returncode, done.stderr)


def test_without_umbel_up_it_says_what_to_start(tmp_path, umbel_bin):
    done = subprocess.run([umbel_bin, "ps", "--state", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and "start one" in done.stderr
    (tmp_path / "address").write_text("http://127.0.0.1:1\n")
    (tmp_path / "admin.password").write_text("x\n")
    done = subprocess.run([umbel_bin, "ps", "--state", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and "`umbel up` does not answer at http://127.0.0.1:1" in done.stderr


def test_logs_are_followed_as_they_come(talking, say):
    talking.get("tracking")
    name = named(talking, "tracking")
    with follow(talking, name, "--json") as following:
        delays = []
        for _ in range(12):
            assert json.loads(following.stdout.readline())["text"].startswith("tick")
            delays.append(time.monotonic())
        following.send_signal(signal.SIGINT)
        assert following.wait(20) in (-signal.SIGINT, 130, 0)
    gaps = sorted(after - before for before, after in zip(delays, delays[1:]))
    say(f"a line each 100 ms is shown every {1e3 * gaps[len(gaps) // 2]:.0f} ms")


def test_following_ends_with_what_is_followed(talking):
    made = talking.request("POST", "mocks", json={
        "customerID": "Admin",
        "mock_data_configuration": {"dataset_name": "digits", "data_tag": "digits"},
    })  # fmt: skip
    name = made.json()["service"]
    assert named(talking, name) == name
    with follow(talking, name) as following:
        assert following.stdout.readline() == "tick\n"
        removed = talking.cli("data", "mock", "rm", name)
        assert removed.returncode == 0 and "umbel data drop" in removed.stdout, removed.stderr
        assert following.wait(30) == 0, following.stderr.read()
