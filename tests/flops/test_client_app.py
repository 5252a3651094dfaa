"""The ClientApp in our real worker: rounds, and what a repository may give that is no model."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict

from tests.flops.conftest import MODEL


def content(*arrays) -> RecordDict:
    return RecordDict(
        {"arrays": ArrayRecord({str(n): Array(np.asarray(a)) for n, a in enumerate(arrays)})}
    )


GLOBAL = (np.zeros((2, 3)), np.zeros(3))


def ask(job, kind="train", arrays=GLOBAL):
    return job.call(content(*arrays), message_type=kind)


def refusal(job, kind="train", arrays=GLOBAL) -> str:
    frame = ask(job, kind, arrays).frame
    assert frame["op"] == "error", frame
    begin = "<class 'umbel_model.ModelError'>:<'"
    assert frame["reason"].startswith(begin), frame["reason"]
    reason = frame["reason"][len(begin) : -2]
    assert "\n" not in reason
    return reason


def test_rounds_in_one_process(make_repository, unpack, learner):
    job = learner(unpack(make_repository()))
    arrays = GLOBAL
    for number in (1, 2, 3):
        trained = ask(job, "train", arrays).records()
        assert dict(trained["metrics"]) == {"num-examples": 7}
        arrays = [trained["arrays"][key].numpy() for key in ("0", "1")]
        np.testing.assert_array_equal(arrays[0], np.full((2, 3), number))
        measured = ask(job, "evaluate", arrays).records()
        assert dict(measured["metrics"]) == {"num-examples": 7, "loss": 0.5, "accuracy": 0.25}
        assert list(measured) == ["metrics"]
    assert job.log.read_text().count("DataManager number") == 1


def test_many_arrays_keep_their_order(make_repository, unpack, learner):
    job = learner(unpack(make_repository()))
    arrays = [np.full(2, n) for n in range(12)]  # "10" is not between "1" and "2"
    trained = ask(job, "train", arrays).records()["arrays"]
    for number in range(12):
        np.testing.assert_array_equal(trained[str(number)].numpy(), np.full(2, number + 1))


def test_kinds_of_numbers(make_repository, unpack, learner):
    """One-element arrays and tensors, as libraries give them, are numbers."""
    model = MODEL.replace("return len(self.data)", "return np.int32(7)").replace(
        "return 0.5, 0.25, len(self.data)", "return [np.float32(0.5), np.array(0.25), 7.0]"
    )
    job = learner(unpack(make_repository(model)))
    assert dict(ask(job).records()["metrics"]) == {"num-examples": 7}
    measured = ask(job, "evaluate").records()["metrics"]
    assert dict(measured) == {"num-examples": 7, "loss": 0.5, "accuracy": 0.25}


FIT = "return len(self.data)"
EVALUATE = "return 0.5, 0.25, len(self.data)"
HOSTILE = {
    "fit raises": (FIT, "raise ValueError('no luck')", "train",
        "ModelManager.fit_model raised ValueError: no luck (model_manager.py, line 18)"),
    "fit exits": (FIT, "raise SystemExit(3)", "train",
        "ModelManager.fit_model ended the process (exit status 3 (int))"),
    "fit gives nothing": (FIT, "return None", "train",
        "ModelManager.fit_model gave None (NoneType) as the number of training samples"),
    "fit gives NaN": (FIT, "return float('nan')", "train", "fit_model gave nan (float)"),
    "fit gives a negative": (FIT, "return -3", "train", "fit_model gave -3 (int)"),
    "fit gives 0": (FIT, "return 0", "train", "not a whole number above 0"),
    "fit gives half a sample": (FIT, "return 2.5", "train", "fit_model gave 2.5 (float)"),
    "fit gives True": (FIT, "return True", "train", "fit_model gave True (bool)"),
    "fit gives too many": (FIT, "return 10 ** 40", "train", "not a whole number above 0"),
    "fit gives text": (FIT, "return '7' * 1000", "train", "fit_model gave '77777"),
    "fit gives an array": (FIT, "return np.ones(2)", "train", "fit_model gave array([1., 1.])"),
    "parameters are no list": ("return self.weights", "return {'a': 1}", "train",
        "ModelManager.get_model_parameters gave {'a': 1} (dict), not a list of arrays"),
    "no parameters": ("return self.weights", "return []", "train", "gave no arrays"),
    "parameters of text": ("return self.weights", "return ['a', 'b']", "train", "not numbers"),
    "ragged parameters": ("return self.weights", "return [[[1], [1, 2]], 3]", "train",
        "get_model_parameters gave array 0"),
    "NaN parameters": ("return self.weights", "return [np.full((2, 3), np.nan), np.ones(3)]",
        "train", "gave array 0 with 6 of 6 values that are not finite"),
    "infinite parameters": ("return self.weights", "return [np.ones((2, 3)), np.full(3, np.inf)]",
        "train", "gave array 1 with 3 of 3 values that are not finite"),
    "wrong shape": ("return self.weights", "return [np.ones((3, 2)), np.ones(3)]", "train",
        "gave array 0 of shape [3, 2], the global model's is [2, 3]"),
    "too few arrays": ("return self.weights", "return [np.ones((2, 3))]", "train",
        "get_model_parameters gave 1 arrays, the global model has 2"),
    "set_model_parameters raises": ("self.weights = list(parameters)", "parameters.shape", "train",
        "ModelManager.set_model_parameters raised AttributeError: 'list' object"),
    "evaluate raises": (EVALUATE, "raise KeyError('x')", "evaluate",
        "ModelManager.evaluate_model raised KeyError: 'x' (model_manager.py, line 20)"),
    "evaluate gives strings": (EVALUATE, "return 'low', 'high', 7", "evaluate",
        "ModelManager.evaluate_model gave 'low' (str) as loss, not a finite number"),
    "evaluate gives digits as text": (EVALUATE, "return 0.1, '0.9', 7", "evaluate",
        "gave '0.9' (str) as accuracy"),
    "evaluate gives NaN": (EVALUATE, "return 0.1, float('nan'), 7", "evaluate",
        "gave nan (float) as accuracy"),
    "evaluate gives two": (EVALUATE, "return 0.1, 0.9", "evaluate",
        "gave 2 values, not (loss, accuracy, samples)"),
    "evaluate gives one": (EVALUATE, "return 0.1", "evaluate", "gave 0.1 (float), not (loss"),
    "evaluate gives no samples": (EVALUATE, "return 0.1, 0.9, 0", "evaluate",
        "gave 0 (int) as the number of samples"),
    "no data": ("self.data = DataManager().get_data()", "open('/nowhere/at/all')", "train",
        "ModelManager.set_model_data raised FileNotFoundError"),
    "text that cannot be made": (FIT, """
        class Odd(Exception):
            def __str__(self): raise RuntimeError
        raise Odd""", "train", "fit_model raised Odd: (its text cannot be made)"),
    "many lines": (FIT, "raise ValueError('one\\ntwo\\n' + 'x' * 10000)", "train",
        "fit_model raised ValueError: one (model_manager.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_failures_are_one_sentence(name, make_repository, unpack, learner):
    old, new, kind, expected = HOSTILE[name]
    assert old in MODEL
    job = learner(unpack(make_repository(MODEL.replace(old, new))))
    reason = refusal(job, kind)
    assert expected in reason
    assert len(reason) < 600
    # The process lives on, and says the same again.
    assert refusal(job, kind) == reason


def test_failures_at_construction(make_repository, unpack, learner):
    model = MODEL.replace("[np.zeros((2, 3)), np.zeros(3)]", "1 / 0")
    job = learner(unpack(make_repository(model)))
    assert refusal(job).startswith("ModelManager() raised ZeroDivisionError")
    assert "(model_manager.py, line 7)" in refusal(job)


def test_data_is_asked_for_again(make_repository, unpack, learner, tmp_path):
    """A data server that was down in the first round is no reason to lose the second."""
    gate = tmp_path / "gate"
    gated = f"open({str(gate)!r}) and DataManager().get_data()"
    model = MODEL.replace("DataManager().get_data()", gated)
    job = learner(unpack(make_repository(model)))
    assert "set_model_data raised FileNotFoundError" in refusal(job)
    gate.touch()
    assert dict(ask(job).records()["metrics"]) == {"num-examples": 7}


def test_quiet_environment(make_repository, unpack, learner):
    """What the user's libraries look for in the environment is set before they are imported."""
    model = "import os\n" + MODEL.replace(
        FIT,
        "return 1 if os.environ['HF_HUB_OFFLINE'] == os.environ['DO_NOT_TRACK'] == '1' else 0",
    )
    job = learner(unpack(make_repository(model)))
    assert dict(ask(job).records()["metrics"]) == {"num-examples": 1}
