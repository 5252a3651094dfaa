"""Row 11: updates that lie. Two honest nodes and a liar, all of them nodes of the wire; each lie has
its named outcome in the record of the round, the round closes by its policy, and the next model is
the exact mean of what was accepted.

`w` and `v` have the same shape, so that they may be equal; the values of nodes are no multiples of
anything.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, recorddict_pb2

from tests.conformance import wire
from tests.conformance.wire import Thing
from tests.harness.servers import child_env, start_server, umbel_bin, wait_until

pytestmark = pytest.mark.umbel_only("native rounds are ours")
SECONDS = 60.0
SHORT = 1.5  # seconds a phase waits where somebody never answers
SHAPES = {"w": (3, 4), "v": (3, 4), "b": (2,)}


@pytest.fixture(scope="module")
def server(kind, folder):
    with start_server(kind, home=folder / "server") as server:
        yield server


@pytest.fixture
def hall(server, tmp_path):
    with Hall(server, tmp_path) as hall:
        yield hall


# ---- arithmetic -----------------------------------------------------------------------------------


def honest(seed: int) -> dict[str, np.ndarray]:
    """What a node has trained."""
    rng = np.random.default_rng([11, seed])
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to it, of two the even one."""
    guess = np.float32(float(value))
    around = [np.nextafter(guess, np.float32(to)) for to in (-np.inf, np.inf)]
    odd = lambda x: int(x.view(np.uint32)) & 1  # noqa: E731
    return min([guess, *around], key=lambda x: (abs(Fraction(float(x)) - value), odd(x)))


def mean(updates: Sequence[tuple[float, dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """The weighted mean, by rational numbers."""
    total = sum(Fraction(weight) for weight, _ in updates)
    out = {}
    for name, shape in SHAPES.items():
        sums = [Fraction(0)] * int(np.prod(shape))
        for weight, arrays in updates:
            for i, value in enumerate(np.ascontiguousarray(arrays[name]).ravel()):
                sums[i] += Fraction(weight) * Fraction(float(value))
        out[name] = np.array([nearest(s / total) for s in sums], np.float32).reshape(shape)
    return out


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


# ---- objects --------------------------------------------------------------------------------------


def npy(value: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, value)
    return out.getvalue()


def array(value: np.ndarray, **about: object) -> Thing:
    return array_of(npy(value), value, **about)


def array_of(content: bytes, value: np.ndarray, **about: object) -> Thing:
    """An Array of one chunk."""
    body = {
        "dtype": str(value.dtype), "shape": list(value.shape), "stype": "numpy.ndarray",
        "arraychunk_ids": [0], **about,
    }  # fmt: skip
    return Thing("Array", json.dumps(body).encode(), [Thing("ArrayChunk", content)])


def array_record(things: dict[str, Thing]) -> Thing:
    names = {name: thing.id for name, thing in things.items()}
    return Thing("ArrayRecord", json.dumps(names).encode(), list(things.values()))


def metrics(values: dict[str, object]) -> Thing:
    proto = recorddict_pb2.MetricRecord()
    for name, value in values.items():
        item = proto.items.add(key=name).value
        if isinstance(value, list):
            item.double_list.vals.extend(value)
        elif isinstance(value, float):
            item.double = value
        elif value >= 1 << 63:
            item.uint64 = value
        else:
            item.sint64 = value
    return Thing("MetricRecord", proto.SerializeToString(deterministic=True))


def records(**things: Thing) -> Thing:
    names = {name: thing.id for name, thing in things.items()}
    return Thing("RecordDict", json.dumps(names).encode(), list(things.values()))


def update(arrays: dict[str, np.ndarray], weight: object = 3, **more: object) -> Thing:
    """A reply as it should be; `more` are metrics."""
    things = {name: array(value) for name, value in arrays.items()}
    return records(
        arrays=array_record(things), metrics=metrics({"num-examples": weight, **more})
    )


# ---- nodes ----------------------------------------------------------------------------------------


class WireNode:
    """A node that says what it is told to."""

    def __init__(self, server):
        self.key = wire.NodeKey("p256")
        self.client = server.client()
        self.call("register-node", fleet_pb2.RegisterNodeFleetRequest(public_key=self.key.pem))
        request = fleet_pb2.ActivateNodeRequest(public_key=self.key.pem, heartbeat_interval=600)
        reply = self.call("activate-node", request)
        self.id = fleet_pb2.ActivateNodeResponse.FromString(reply.content).node_id
        self.instruction: wire.Parcel | None = None

    def close(self) -> None:
        self.leave()
        self.client.close()

    def leave(self) -> None:
        self.post("deactivate-node", fleet_pb2.DeactivateNodeRequest(node_id=self.id))

    def post(self, name: str, message):
        headers = [("content-type", wire.PROTOBUF), *self.key.headers()]
        content = message.SerializeToString()
        return self.client.post(f"/v1/fleet/{name}", content=content, headers=headers)

    def call(self, name: str, message):
        reply = self.post(name, message)
        reply.raise_for_status()
        return reply

    def beat(self) -> None:
        self.call(
            "send-node-heartbeat",
            heartbeat_pb2.SendNodeHeartbeatRequest(node=wire.node(self.id), heartbeat_interval=600),
        )

    def pull(self, seconds: float = SECONDS) -> wire.Parcel:
        """Waits for the next instruction, and takes it."""

        def asked():
            reply = self.call("pull-messages", fleet_pb2.PullMessagesRequest(node=wire.node(self.id)))
            return fleet_pb2.PullMessagesResponse.FromString(reply.content).messages_list

        message = wait_until(f"node {self.id} is asked", asked, seconds)[0]
        self.instruction = wire.Parcel(message, Thing("Message", b""))
        self.call(
            "confirm-message-received",
            message_pb2.ConfirmMessageReceivedRequest(
                node=wire.node(self.id), run_id=message.metadata.run_id,
                message_object_id=message.metadata.message_id,
            ),
        )  # fmt: skip
        return self.instruction

    def reply(self, content: Thing | None = None, **changes) -> wire.Parcel:
        return wire.reply_to(
            self.instruction, created_at=time.time(), records=content, **changes
        )

    def push(self, parcel: wire.Parcel, tree=None):
        """Announces a reply: what is to be sent, and in which session; or the refusal."""
        request = fleet_pb2.PushMessagesRequest(
            node=wire.node(self.id),
            messages_list=[parcel.message],
            message_object_trees=[parcel.tree if tree is None else tree],
        )
        reply = self.post("push-messages", request)
        if reply.status_code != 200:
            return None
        return fleet_pb2.PushMessagesResponse.FromString(reply.content)

    def send(self, parcel: wire.Parcel, pushed, skip: Sequence[str] = ()) -> None:
        """Sends the objects that are wanted and are there."""
        objects = parcel.objects()
        for object_id in pushed.objects_to_push:
            if object_id in objects and object_id not in skip:
                self.send_object(parcel, pushed, object_id, objects[object_id])

    def send_object(self, parcel: wire.Parcel, pushed, object_id: str, content: bytes) -> bool:
        request = message_pb2.PushObjectRequest(
            node=wire.node(self.id), run_id=parcel.message.metadata.run_id, object_id=object_id,
            object_content=content, session_id=pushed.session_id,
        )  # fmt: skip
        reply = self.post("push-object", request)
        return reply.status_code == 200 and message_pb2.PushObjectResponse.FromString(
            reply.content
        ).stored

    def answer(self, content: Thing | None = None, tree=None, **changes) -> None:
        parcel = self.reply(content, **changes)
        pushed = self.push(parcel, tree)
        if pushed is not None:
            self.send(parcel, pushed)


@dataclass
class Told:
    """What `umbel run --watch` has shown."""

    exit_code: int
    output: str
    model: dict[str, np.ndarray] | None

    def outcome(self, node: WireNode, number: int = 1) -> str:
        """"outcome: detail" of a node that was not accepted, else "accepted"."""
        part = re.search(rf"^round {number}/\d+ +train .*\n((?:    .*\n)*)", self.output, re.M)
        assert part, self.output
        found = re.search(rf"^    node {node.id}: (.*)$", part[1], re.M)
        return found[1] if found else "accepted"


class Hall:
    """A run, two honest nodes, and those who are not."""

    WEIGHTS = (2, 5)

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.nodes: list[WireNode] = []
        self.child: subprocess.Popen | None = None

    def __enter__(self) -> Hall:
        self.honest = [self.node() for _ in self.WEIGHTS]
        self.liar = self.node()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.close()
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def node(self) -> WireNode:
        self.nodes.append(WireNode(self.server))
        return self.nodes[-1]

    def start(self, *flags: object, rounds: int = 1) -> None:
        """Starts a run in which all nodes train; all have taken their instructions."""
        (self.folder / "app.fab").write_bytes(wire.bundle())
        np.savez(self.folder / "initial.npz", **honest(0))
        command = [umbel_bin(), "run", self.folder / "app.fab", "--insecure"]
        command += ["--superlink", self.server.address, "--initial", self.folder / "initial.npz"]
        command += ["--out", self.folder / "out.npz", "--watch", "--rounds", rounds]
        command += ["--set", "fraction_evaluate=0"]
        command += ["--set", f"min_available_nodes={len(self.nodes)}", *flags]
        self.child = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=child_env(self.folder), text=True,
        )  # fmt: skip
        for node in self.nodes:
            node.pull()

    def honest_updates(self) -> list[tuple[float, dict[str, np.ndarray]]]:
        return [(weight, honest(n + 1)) for n, weight in enumerate(self.WEIGHTS)]

    def answer_honestly(self) -> None:
        for node, (weight, arrays) in zip(self.honest, self.honest_updates(), strict=True):
            node.answer(update(arrays, weight))

    def end(self) -> Told:
        output, _ = self.child.communicate(timeout=SECONDS)
        model = None
        if self.child.returncode == 0:
            with np.load(self.folder / "out.npz") as file:
                model = {name: file[name] for name in file.files}
        return Told(self.child.returncode, output, model)

    def check(self, wanted: str, counted: Sequence = (), liar: WireNode | None = None) -> Told:
        """The run completes; the liar's outcome is `wanted`, and besides the honest updates only
        those in `counted` are in the mean."""
        told = self.end()
        assert told.exit_code == 0, told.output
        assert told.outcome(liar or self.liar).startswith(wanted), told.output
        for node in self.honest:
            assert told.outcome(node) == "accepted", told.output
        assert same(told.model, mean([*self.honest_updates(), *counted])), told.output
        return told


# ---- lies in the content --------------------------------------------------------------------------


def with_value(value: float, name: str = "b") -> Thing:
    arrays = honest(9)
    arrays[name].flat[-1] = value
    return update(arrays)


def changed(**more: np.ndarray) -> Thing:
    return update({**honest(9), **more})


def without(name: str) -> Thing:
    return update({key: value for key, value in honest(9).items() if key != name})


def one_array(thing: Callable[[np.ndarray], Thing]) -> Thing:
    """`w` is made by `thing`, the rest is as it should be."""
    arrays = honest(9)
    things = {name: array(value) for name, value in arrays.items()}
    things["w"] = thing(arrays["w"])
    return records(arrays=array_record(things), metrics=metrics({"num-examples": 3}))


def only(**things: Thing) -> Thing:
    return records(**things)


def arrays_of(seed: int = 9) -> Thing:
    return array_record({name: array(value) for name, value in honest(seed).items()})


def raw_npy(head: str, data: bytes) -> bytes:
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data


NPY_OF_HALF_THE_WORLD = raw_npy(
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 31}, {1 << 20}), }}", b"\0" * 48
)

LIES: dict[str, tuple[Callable[[], Thing], str]] = {
    "nan": (lambda: with_value(np.nan), "non_finite"),
    "infinity": (lambda: with_value(np.inf), "non_finite"),
    "minus infinity, in the first array": (lambda: with_value(-np.inf, "w"), "non_finite"),
    "nan in a wider type": (lambda: changed(w=np.full((3, 4), np.nan)), "non_finite"),
    "nan in a wider type, late": (lambda: changed(w=honest(9)["w"].astype(np.float64),
                                                  b=np.full(2, np.nan, np.float32)),
                                  "non_finite"),
    "nan in a metric": (lambda: update(honest(9), loss=float("nan")), "non_finite"),
    "infinity in a list": (lambda: update(honest(9), losses=[1.0, float("inf")]), "non_finite"),
    "wrong shape": (lambda: changed(w=np.zeros((3, 5), np.float32)), "wrong_shape"),
    "transposed shape": (lambda: changed(w=np.zeros((4, 3), np.float32)), "wrong_shape"),
    "one dimension less": (lambda: changed(w=np.zeros(12, np.float32)), "wrong_shape"),
    "a scalar": (lambda: changed(b=np.float32(1).reshape(())), "wrong_shape"),
    "empty": (lambda: changed(b=np.zeros(0, np.float32)), "wrong_shape"),
    "complex": (lambda: changed(w=np.zeros((3, 4), np.complex64)), "wrong_dtype"),
    "text": (lambda: changed(w=np.full((3, 4), "one")), "wrong_dtype"),
    "times": (lambda: changed(w=np.zeros((3, 4), "datetime64[s]")), "malformed"),
    "an extra array": (lambda: changed(x=np.zeros(1, np.float32)), "wrong_keys"),
    "an array missing": (lambda: without("v"), "wrong_keys"),
    "another name": (lambda: update({**dict(list(honest(9).items())[:2]), "B": honest(9)["b"]}),
                     "wrong_keys"),
    "no arrays at all": (lambda: update({}), "wrong_keys"),
    "no num-examples": (lambda: only(arrays=arrays_of(), metrics=metrics({"loss": 1.0})),
                        "no_weight"),
    "no metrics": (lambda: only(arrays=arrays_of()), "wrong_records"),
    "no ArrayRecord": (lambda: only(metrics=metrics({"num-examples": 3})), "wrong_records"),
    "two ArrayRecords": (lambda: only(arrays=arrays_of(), more=arrays_of(8),
                                      metrics=metrics({"num-examples": 3})), "wrong_records"),
    "two MetricRecords": (lambda: only(arrays=arrays_of(), metrics=metrics({"num-examples": 3}),
                                       more=metrics({"num-examples": 4})), "wrong_records"),
    "weight 0": (lambda: update(honest(9), 0), "bad_weight"),
    "weight -1": (lambda: update(honest(9), -1), "bad_weight"),
    "weight -0.0": (lambda: update(honest(9), -0.0), "bad_weight"),
    "weight nan": (lambda: update(honest(9), float("nan")), "bad_weight"),
    "weight infinite": (lambda: update(honest(9), float("inf")), "bad_weight"),
    "weight a list": (lambda: update(honest(9), [3.0]), "bad_weight"),
    "data too short": (lambda: one_array(lambda w: array_of(npy(w)[:-1], w)), "malformed"),
    "data too long": (lambda: one_array(lambda w: array_of(npy(w) + b"\0", w)), "malformed"),
    "no NPY": (lambda: one_array(lambda w: array_of(b"PK\3\4" + npy(w)[4:], w)), "malformed"),
    "an NPY head without end": (lambda: one_array(lambda w: array_of(npy(w)[:40], w)), "malformed"),
    "a shape of half the world": (lambda: one_array(lambda w: array_of(NPY_OF_HALF_THE_WORLD, w)),
                                  "malformed"),
    "a chunk there is not": (lambda: one_array(lambda w: array(w, arraychunk_ids=[1])),
                             "malformed"),
    "a negative chunk": (lambda: one_array(lambda w: array(w, arraychunk_ids=[-1])), "malformed"),
    "no chunk": (lambda: one_array(lambda w: array(w, arraychunk_ids=[])), "malformed"),
    "the chunk twice": (lambda: one_array(lambda w: array(w, arraychunk_ids=[0, 0])), "malformed"),
    "another stype": (lambda: one_array(lambda w: array(w, stype="pickle")), "malformed"),
    "an Array that is no JSON": (lambda: one_array(lambda w: Thing("Array", b"{")), "malformed"),
    "a record for an Array": (lambda: one_array(lambda w: metrics({"x": 1})), "malformed"),
    "a dictionary that is no JSON": (lambda: Thing("RecordDict", b"["), "malformed"),
}  # fmt: skip


@pytest.mark.soak  # every day they are told all at once
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_has_its_name_and_no_effect(hall, lie):
    make, outcome = LIES[lie]
    hall.start()
    hall.liar.answer(make())
    hall.answer_honestly()
    hall.check(outcome)


def test_all_lies_at_once(hall):
    """In one round, among each other and between those of the honest nodes."""
    liars = {lie: hall.liar if n == 0 else hall.node() for n, lie in enumerate(LIES)}
    hall.start()
    middle = list(LIES)[len(LIES) // 2]
    for lie, node in liars.items():
        if lie == middle:
            hall.answer_honestly()
        node.answer(LIES[lie][0]())
    told = hall.end()
    assert told.exit_code == 0, told.output
    outcomes = {lie: told.outcome(node).split(":")[0] for lie, node in liars.items()}
    assert outcomes == {lie: outcome for lie, (_, outcome) in LIES.items()}
    assert same(told.model, mean(hall.honest_updates()))


# ---- what looks like a lie and is none ------------------------------------------------------------


def test_the_largest_numbers_of_examples_are_weights(hall):
    hall.start()
    hall.answer_honestly()
    hall.liar.answer(update(honest(9), 1 << 63))
    hall.check("accepted", [(1 << 63, honest(9))])


def test_equal_tensors_count_as_two(hall):
    arrays = honest(9)
    arrays["v"] = arrays["w"]
    hall.start()
    hall.liar.answer(update(arrays))
    hall.answer_honestly()
    hall.check("accepted", [(3, arrays)])


def test_a_reply_equal_to_another_nodes_counts_too(hall):
    weight, arrays = hall.honest_updates()[0]
    hall.start()
    hall.liar.answer(update(arrays, weight))
    hall.answer_honestly()
    hall.check("accepted", [(weight, arrays)])


def test_other_layouts_of_the_same_numbers_count(hall):
    arrays = honest(9)
    strange = {
        "w": np.asfortranarray(arrays["w"]), "v": arrays["v"].astype(">f4"), "b": arrays["b"],
    }  # fmt: skip
    hall.start()
    hall.liar.answer(update(strange))
    hall.answer_honestly()
    hall.check("accepted", [(3, arrays)])


def test_one_wider_type_is_summed_and_widens_nothing(hall):
    """The mean has the type that most replies have; it is still exact."""
    arrays = honest(9)
    hall.start()
    hall.liar.answer(update({**arrays, "w": arrays["w"].astype(np.float64)}))
    hall.answer_honestly()
    told = hall.end()
    assert told.exit_code == 0, told.output
    assert told.outcome(hall.liar) == "accepted", told.output
    wanted = mean([*hall.honest_updates(), (3, arrays)])
    assert same(told.model, wanted)


# ---- lies about what is sent ----------------------------------------------------------------------


def test_a_client_that_sends_half_is_late(hall):
    hall.start("--timeout", SHORT)
    parcel = hall.liar.reply(update(honest(9)))
    pushed = hall.liar.push(parcel)
    hall.liar.send(parcel, pushed, skip=pushed.objects_to_push[::2])
    hall.answer_honestly()
    hall.check("late")


def test_a_client_that_sends_half_and_goes_has_failed(hall):
    hall.start()
    parcel = hall.liar.reply(update(honest(9)))
    pushed = hall.liar.push(parcel)
    hall.liar.send(parcel, pushed, skip=pushed.objects_to_push[::2])
    hall.answer_honestly()
    hall.liar.leave()
    hall.check("failed: error 5")


def test_an_error_is_named(hall):
    hall.start()
    hall.liar.answer(error=(4, "no more room on my disk"))
    hall.answer_honestly()
    assert "no more room on my disk" in hall.check("failed: error 4").output


def test_bytes_that_are_not_the_objects_are_refused(hall):
    """Each object under the name of its neighbour."""
    hall.start("--timeout", SHORT)
    parcel = hall.liar.reply(update(honest(9)))
    pushed = hall.liar.push(parcel)
    ids = pushed.objects_to_push
    for object_id, other in zip(ids, [*ids[1:], ids[0]], strict=True):
        assert not hall.liar.send_object(parcel, pushed, object_id, parcel.objects()[other])
    hall.answer_honestly()
    hall.check("late")


def test_a_tree_of_more_than_there_is_is_late(hall):
    """It names an object that nobody can have."""
    hall.start("--timeout", SHORT)
    parcel = hall.liar.reply(update(honest(9)))
    tree = parcel.tree
    tree.children.add(object_id="0" * 64)
    hall.liar.send(parcel, hall.liar.push(parcel, tree))
    hall.answer_honestly()
    hall.check("late")


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_tree_of_less_than_there_is_is_malformed(hall, depth):
    """It ends `depth` levels below the message: what is missing is never asked for."""

    def cut(tree, left):
        if left == 0:
            del tree.children[:]
        for child in tree.children:
            cut(child, left - 1)

    hall.start()
    parcel = hall.liar.reply(update(honest(9)))
    tree = parcel.tree
    cut(tree, depth - 1)
    hall.liar.send(parcel, hall.liar.push(parcel, tree))
    hall.answer_honestly()
    hall.check("malformed")


@pytest.mark.parametrize("what", ["record", "array", "chunk"])
def test_nobody_counts_with_objects_that_only_another_has_sent(hall, what):
    """The tree leaves out what an honest node has sent: whoever knows a hash has no bytes yet."""
    weight, arrays = hall.honest_updates()[0]
    hall.start()
    hall.answer_honestly()
    parcel = hall.liar.reply(update(arrays, weight))
    tree = parcel.tree
    (content,) = tree.children
    record = next(child for child in content.children if child.children)
    if what == "record":
        content.children.remove(record)
    elif what == "array":
        del record.children[:]
    else:
        for child in record.children:
            del child.children[:]
    hall.liar.send(parcel, hall.liar.push(parcel, tree))
    hall.check("malformed")


def test_a_stranger_cannot_answer_for_another(hall):
    hall.start("--timeout", SHORT)
    victim = hall.honest[0]
    hall.liar.instruction = victim.instruction
    for changes in ({}, {"src": hall.liar.id}):
        parcel = hall.liar.reply(update(honest(9)), **changes)
        pushed = hall.liar.push(parcel)
        if pushed is not None:
            hall.liar.send(parcel, pushed)
    hall.answer_honestly()
    hall.check("late")


def test_only_the_first_of_two_answers_counts(hall):
    hall.start()
    hall.liar.answer(update(honest(9)))
    hall.liar.answer(update(honest(8)))
    hall.liar.answer(update(honest(9)))
    hall.answer_honestly()
    hall.check("accepted", [(3, honest(9))])


def test_a_reply_that_comes_after_the_round_changes_nothing(hall):
    hall.start("--timeout", SHORT, "--close-train-at", 2, rounds=2)
    late = hall.liar.reply(update(honest(9)))
    hall.answer_honestly()
    for node in hall.honest:
        node.pull()
    pushed = hall.liar.push(late)  # to the round that is over
    if pushed is not None:
        hall.liar.send(late, pushed)
    hall.answer_honestly()
    assert hall.check("late").outcome(hall.liar, 2).startswith("late")


# ---- policies -------------------------------------------------------------------------------------


def test_too_few_honest_replies_fail_the_run_and_name_the_liar(hall):
    hall.start("--min-train-replies", 3)
    hall.liar.answer(with_value(np.nan))
    hall.answer_honestly()
    told = hall.end()
    assert told.exit_code == 1, told.output
    assert "2 of 3 replies can be used, 3 are needed" in told.output
    assert f"node {hall.liar.id}: non_finite" in told.output


def test_with_liars_alone_the_model_stays(hall):
    for node in hall.honest:
        node.close()
        hall.nodes.remove(node)
    hall.honest = []
    hall.start("--set", "min_train_nodes=1")
    hall.liar.answer(with_value(np.nan))
    told = hall.end()
    assert told.exit_code == 0, told.output
    assert told.outcome(hall.liar).startswith("non_finite")
    assert same(told.model, honest(0)), told.output


@pytest.mark.parametrize("lie", ["nan", "wrong shape", "no NPY", "weight 0"])
def test_the_liar_may_be_honest_in_the_next_round(hall, lie):
    hall.start(rounds=2)
    hall.liar.answer(LIES[lie][0]())
    hall.answer_honestly()
    for node in hall.nodes:
        node.pull()
    hall.liar.answer(update(honest(9)))
    hall.answer_honestly()
    told = hall.end()
    assert told.exit_code == 0, told.output
    assert told.outcome(hall.liar, 1).startswith(LIES[lie][1])
    assert told.outcome(hall.liar, 2) == "accepted"
    assert same(told.model, mean([*hall.honest_updates(), (3, honest(9))]))
