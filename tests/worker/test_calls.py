"""What apps do and what comes of it, in forked children under each Flower."""

from __future__ import annotations

import contextlib
import os
import signal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from tests.harness.servers import wait_until
from tests.worker.peer import APPS, SECONDS, frames, gone


def test_train_answers_with_its_arrays(job):
    arrays = {f"w{n}": np.arange(n + 3, dtype=np.float32).reshape(1, -1) for n in range(5)}
    content = RecordDict({"arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()})})
    answer = job.call(content, out_offset=4096, do="double")
    head = answer.frame["head"]
    assert head["type"] == "train" and head["group_id"] == "7" and head["reply_to"] == "m" * 64
    assert (head["src"], head["dst"]) == ((1 << 64) - 3, 1)
    assert 3500 < head["ttl"] < 3596 and isinstance(head["created_at"], float)
    found = answer.records()
    assert list(found) == ["arrays", "metrics"]
    for name, value in arrays.items():
        got = found["arrays"][name].numpy()
        assert got.dtype == value.dtype and np.array_equal(got, value * 2)
    assert dict(found["metrics"]) == {"loss": 0.5, "n": 3, "many": [1, 2]}
    assert answer.frame["out_end"] == answer.output.stat().st_size > 4096
    assert 0 < answer.frame["runtime"] < 10


def test_the_state_goes_round(worker):
    state = RecordDict()
    for number in (1, 2, 3):
        with contextlib.closing(worker.job()) as job:
            content = RecordDict({"arrays": ArrayRecord()})
            state = job.call(content, state=state, do="double").records("state")
            assert state["counts"]["train"] == number


def test_every_record_survives_the_app(job):
    content = RecordDict(
        {"a": ArrayRecord({"w": Array(np.ones(3)), "none": Array(np.zeros(0, np.int8))})}
        | {"c": ConfigRecord({"u": (1 << 64) - 1, "b": b"\0", "l": [True], "t": "é"})}
    )
    answer = job.call(content, do="echo")
    assert answer.records() == content
    assert answer.records("state") == content


def test_the_app_sees_its_message_and_context(job):
    found = job.call(do="describe").result()
    want = {"run_id": (1 << 63) + 5, "message_id": "m" * 64, "src": 1, "dst": (1 << 64) - 3}
    want |= {"group": "7", "type": "train", "ttl": 3600.0, "own_type": "query"}
    want |= {"node_id": (1 << 64) - 3, "context_run": (1 << 63) + 5}
    want |= {"node_config": "{'partition-id': 3, 'name': 'site'}"}
    want |= {"run_config": "{'lr': 0.5, 'deep.flag': True}"}
    assert want.items() <= found.items()
    assert found["series"] in (9, -1) and found["src_task"] in (11, 0)  # -1, 0: before 1.35


def test_the_process_is_a_clean_one(worker, job):
    found = job.call(do="process").result()
    assert found["pid"] == found["sid"] == found["pgrp"] == job.pid
    assert found["stdin"] == "/dev/null"
    assert found["fds"] == [0, 1, 2, 3, 4, 5]  # 4, 5: this call's files
    assert found["path0"] == str(APPS)
    assert "sources" not in found["path"] and "''" not in found["path"]
    assert not found["umbel"] and found["argv"] == "['flwr-clientapp']"
    assert found["sigchld"] and found["sigint"]


@pytest.mark.parametrize(
    ("what", "text", "reason"),
    [
        ("value", "bad", "<class 'ValueError'>:<'bad'>"),
        ("exit", "3", "<class 'SystemExit'>:<'3'>"),
        ("interrupt", "", "<class 'KeyboardInterrupt'>:<''>"),
    ],
)
def test_what_is_raised_is_an_error_and_state_is_kept(job, what, text, reason):
    answer = job.call(do="raises", what=what, text=text)
    assert answer.frame["op"] == "error"
    assert (answer.frame["code"], answer.frame["reason"]) == (2, reason)
    assert answer.records("state")["mark"]["before"] == "the error"
    assert "Traceback" in job.log.read_text()
    assert job.call(do="counts").result()["pid"] == job.pid  # the process is good for more


def test_an_unknown_action_is_upstreams_error(job):
    answer = job.call(do="no_such_thing")
    assert (answer.frame["code"], answer.frame["op"]) == (2, "error")
    assert answer.frame["reason"] == "<class 'KeyError'>:<''no_such_thing''>"


def test_errors_that_cannot_be_worded_are_worded(job):
    assert "its text cannot be made" in job.call(do="nasty").frame["reason"]
    assert "half a pair: \\ud800" in job.call(do="surrogate").frame["reason"]


def test_an_error_message_of_the_apps_own(job):
    answer = job.call(do="own_error")
    assert answer.frame["op"] == "error"
    assert (answer.frame["code"], answer.frame["reason"]) == (77, "as I say")


def test_none_is_nothing(job):
    answer = job.call(do="nothing")
    assert answer.frame["op"] == "nothing" and answer.frame["state"] == []


@pytest.mark.parametrize(
    "what", ["text", "content", "head", "huge integer", "mixed list", "array", "surrogate"]
)
def test_garbage_is_an_error(job, what):
    answer = job.call(do="garbage", what=what)
    assert answer.frame["op"] == "error" and answer.frame["code"] == 2
    assert "Error'>:<'" in answer.frame["reason"], answer.frame


def test_a_garbage_state_leaves_the_state_as_it_was(job):
    state = RecordDict({"a": ArrayRecord({"w": Array(np.arange(3.0))})})
    answer = job.call(state=state, do="garbage", what="state")
    assert answer.frame["op"] == "reply"
    assert answer.records("state") == state


def test_os_exit_is_end_of_file(worker, job):
    job.ask(do="end", status=3)
    assert job.ended()
    assert os.waitstatus_to_exitcode(worker.end_of(job)) == 3


def test_a_crash_is_told_by_its_signal(worker, job):
    job.ask(do="segfault")
    assert job.ended()
    assert os.waitstatus_to_exitcode(worker.end_of(job)) == -signal.SIGSEGV


def test_output_goes_to_the_calls_log(job):
    assert job.call(do="prints", bytes=1 << 20).frame["op"] == "reply"
    log = job.log.read_text()
    for text in ("from Python", "to stderr", "from C", "from a subprocess", "no end of line"):
        assert text in log
    assert "x" * (1 << 20) in log


def test_what_detached_itself_is_ended(worker, job):
    pids = job.call(do="leaves_behind").result()["pids"]
    assert not any(map(gone, pids))
    job.close()
    assert worker.end_of(job) == 0
    assert all(map(gone, pids))  # `exited` is told after that


def test_an_app_that_forks_answers_once(worker, job):
    assert job.call(do="forks_and_returns").result() == {"who": "parent"}
    assert job.call(do="counts").result()["calls"] == 1


def test_unseeded_draws_differ_between_children(worker):
    found = []
    for _ in range(3):
        with contextlib.closing(worker.job()) as job:
            found.append(job.call(do="draw").result())
    for name in ("numpy", "random", "generator", "instance"):
        assert len({one[name] for one in found}) == 3, name


def test_one_child_serves_several_calls(worker, job):
    pids = set()
    for number in (1, 2, 3):
        found = job.call(do="counts").result()
        assert found["calls"] == number
        pids.add(found["pid"])
    assert pids == {job.pid}
    with contextlib.closing(worker.job()) as other:
        assert other.call(do="counts").result()["calls"] == 1


def test_children_work_side_by_side(worker):
    with contextlib.closing(worker.job()) as slow, contextlib.closing(worker.job()) as quick:
        slow.ask(do="sleeps")
        wait_until("the slow one is at work", lambda: "asleep" in slow.log.read_text(), SECONDS)
        assert quick.call(do="counts").result()["pid"] == quick.pid != slow.pid
        os.kill(slow.pid, signal.SIGKILL)  # the worker lives on, and so does the other
        assert slow.ended()
        assert os.waitstatus_to_exitcode(worker.end_of(slow)) == -signal.SIGKILL
        assert quick.call(do="counts").result()["calls"] == 2


def test_exit_handlers_run_at_the_childs_end(worker, job, tmp_path):
    job.call(do="at_exit", path=str(tmp_path / "trace"))
    assert not (tmp_path / "trace").exists()
    job.close()
    assert worker.end_of(job) == 0
    assert (tmp_path / "trace").read_text() == "thread\natexit\n"


def test_a_broken_frame_ends_the_child_with_one_line(worker, job):
    frames.send(job.socket, {"op": "dance"})
    assert job.ended()
    assert os.waitstatus_to_exitcode(worker.end_of(job)) == 70
    assert job.log.read_text().count("\n") == 1
    assert "umbel worker: child: FrameError" in job.log.read_text()


def test_limits_hold(worker, tmp_path):
    def run(what, **limits):
        with contextlib.closing(worker.job(**limits)) as job:
            frame = job.call(do="limits", what=what, path=str(tmp_path / "file")).frame
            return frame.get("reason", "none")

    assert "MemoryError" in run("memory", address_space=256 << 20)
    assert "Too many open files" in run("files", open_files=32)
    assert "File too large" in run("file", file_bytes=1 << 16)
    assert run("files") == "none"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")
def test_user_group_and_folder(worker, tmp_path_factory):
    # Beside the test's own folder, which only its owner may enter.
    with contextlib.closing(worker.job(uid=65534, gid=65534, cwd="/")) as job:
        found = job.call(do="process").result()
        assert (found["uid"], found["gid"], found["groups"]) == (65534, 65534, [])
        assert found["cwd"] == "/"


def test_a_refused_limit_keeps_the_app_from_running(worker):
    with contextlib.closing(worker.job(cwd="/no/such/folder")) as job:
        assert job.ended()
        assert os.waitstatus_to_exitcode(worker.end_of(job)) == 70
        assert "FileNotFoundError" in job.log.read_text()
