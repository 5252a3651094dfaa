"""`--isolation process` with a shared secret: an external SuperExec must know it.

`test_wire.py` compares every answer with the recording; here the recording itself, and our
program, are held against what the secret is for.
"""

from __future__ import annotations

import pytest

from . import runner
from .oracle import SCENARIOS

NAME = "superexec-secret"
REFUSED = {"status": 401, "code": 1008}
ALLOWED = {
    "right", "right/nothing-left", "old-but-allowed", "ahead-but-allowed", "long-nonce",
    "burn/right", "empty-message",
}  # fmt: skip


def _check(steps: dict, meant: frozenset[str] = frozenset()) -> None:
    """`meant`: steps whose answer is listed as different from Flower's."""
    assert "(scenario)" not in steps, steps["(scenario)"]
    claims = [step for step, got in steps.items() if "token" in got.get("answer", {})]
    assert claims == ["right"], "the task goes to the one who knows the secret, once"
    for step in ALLOWED - meant:
        assert steps[step]["status"] == 200, step
    for step in (
        "none", "wrong-secret", "stripped-secret", "wrong-method", "wrong-body", "wrong-body-hash",
        "wrong-time", "bad-signature", "replay", "age/310", "age/3600", "age/-8", "age/-3600",
        "burn/wrong", "burn/again", "time/words", "time/huge",
    ):  # fmt: skip
        assert steps[step] == REFUSED, step
    for step, got in steps.items():
        if step.startswith(("missing/", "empty/", "twice/")):
            assert got == REFUSED, step
    # Neither a refused call nor a replay touches the task.
    assert _status(steps["list"]) == "pending"
    assert _status(steps["list-after"]) == "starting"


def _status(answer: dict) -> str:
    (run,) = answer["answer"]["run_dict"].values()
    return run["status"]["status"]


def test_recorded_answers() -> None:
    _check(runner.load()[NAME])


def test_umbel(umbel_bin) -> None:
    listed = [full.partition("/") for full in runner.known_differences(runner.load())]
    meant = frozenset(step for name, _, step in listed if name == NAME)
    _check(runner.run(SCENARIOS[NAME], "umbel"), meant)


def test_external_superexec_starts_the_app(umbel_bin, start_server, tmp_path) -> None:
    """The stock flower-superexec with the same file claims a run's task; with another, never."""
    import subprocess
    import time

    from flwr.proto import control_pb2

    from tests.harness import servers

    from . import wire
    from .oracle import Talk
    from .steps import list_run, start_run

    secret = tmp_path / "secret"
    secret.write_bytes(b"shared\n")
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"other\n")
    server = start_server("umbel", isolation="process", secret_file=secret)

    def superexec(file) -> subprocess.Popen:
        log = open(tmp_path / f"superexec-{file.name}.log", "wb")
        with log:
            return subprocess.Popen(
                [
                    str(servers.venv_program("flower-superexec")),
                    "--runtime-api-address", server.address, "--insecure",
                    "--superexec-auth-secret-file", str(file),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=servers.child_env(tmp_path / "superexec"), start_new_session=True,
            )  # fmt: skip

    with Talk(server.base_url) as talk:
        run_id = start_run(talk, "start", wire.bundle()).message.run_id
        stranger = superexec(wrong)
        try:
            # It is told 401 and ends; the run stays where it was.
            stranger.wait(60)
        finally:
            if stranger.poll() is None:
                stranger.kill()
                stranger.wait()
        got = list_run(talk, "pending", run_id)
        assert got.message.run_dict[run_id].status.status == "pending"
        friend = superexec(secret)
        try:
            deadline = time.monotonic() + 60
            status, number = "pending", 0
            while status == "pending" and time.monotonic() < deadline:
                number += 1
                answer = talk.call(
                    f"poll-{number}", "/v1/control/list-runs",
                    control_pb2.ListRunsRequest(run_id=run_id), keep=False,
                )  # fmt: skip
                status = answer.message.run_dict[run_id].status.status
                time.sleep(0.1)
            assert status in {"starting", "running", "finished"}
        finally:
            friend.terminate()
            try:
                friend.wait(10)
            except subprocess.TimeoutExpired:
                friend.kill()
                friend.wait()
