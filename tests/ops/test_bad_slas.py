"""Every field of an SLA: missing, of a wrong type, out of range, hostile; at both doors.

Each answer names the field, and none is the server's own fault.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx

from tests.ops.conftest import sla

MISSING = object()
NOT_TEXT = (3, 1.5, True, [], {}, ["x"])
NOT_A_NUMBER = ("3", True, [], {}, [1])
NOT_A_LIST = ("x", 3, True, {})
NOT_AN_OBJECT = ("x", 3, True, [])
HOSTILE_TEXT = ("", "x\x00y", "a\nb", "\x1b[2J", "\x7f", "x" * 3000)
HOSTILE_NUMBER = (-1, 1.5, 1e300, 2**63, 2**64 - 1, -(2**63), 10**30, float("nan"), float("inf"))

# Field -> what it is not to be. A field that is wrong within, as an entry of a list, begins so.
CASES: dict[str, tuple[Any, ...]] = {
    "customerID": (MISSING, None, *NOT_TEXT, *HOSTILE_TEXT),
    "verbose": ("yes", 1, [], {}),
    "ml_repo_url": (
        MISSING, None, *NOT_TEXT, *HOSTILE_TEXT,
        "relative/path", "-oProxyCommand=x", "--upload-pack=touch /tmp/x", "ext::sh -c id",
        "fd::17", "https://", "file://host/x", "https://user:secret@example.org/x.git",
        "/repo#", "/repo#-x", "/repo#a..b", "/repo#$(id)", "/repo#a b", "javascript:alert(1)",
    ),
    "ml_repo_token": (*NOT_TEXT, "a\r\nX-Injected: 1", "x" * 3000),
    "ml_model_flavor": (MISSING, None, *NOT_TEXT, *HOSTILE_TEXT, "caffe", "SKLEARN", "sklearn "),
    "use_devel_base_images": ("yes", 1, [], {}),
    "supported_platforms": (
        *NOT_A_LIST, [], [3], [None], ["linux/riscv64"], ["linux/amd64; id"], ["x" * 100],
        ["linux/amd64"] * 101,
    ),
    "training_configuration": NOT_AN_OBJECT,
    "training_configuration.mode": (*NOT_TEXT, *HOSTILE_TEXT, "hierarchical", "Classic"),
    "training_configuration.data_tags": (
        *NOT_A_LIST, [3], [None], [""], ["x\n"], ["x" * 200], [["a"]], ["a"] * 101,
        ["../x"], ["a/b"], [".hidden"], ["a,b"],
    ),
    "training_configuration.training_cycles": (*NOT_A_NUMBER, 0, 10_001, *HOSTILE_NUMBER),
    "training_configuration.training_rounds": (*NOT_A_NUMBER, 0, 10_001, *HOSTILE_NUMBER),
    "training_configuration.min_available_clients": (*NOT_A_NUMBER, 0, 10_001, *HOSTILE_NUMBER),
    "training_configuration.min_fit_clients": (*NOT_A_NUMBER, 0, 3, *HOSTILE_NUMBER),
    "training_configuration.min_evaluate_clients": (*NOT_A_NUMBER, 0, 3, *HOSTILE_NUMBER),
    "post_training_steps": (*NOT_A_LIST, [3], [""], ["deploy"], ["x" * 100], ["x\x00"]),
    "resource_constraints": NOT_AN_OBJECT,
    "resource_constraints.memory": (*NOT_A_NUMBER, 0, 16_000_001, *HOSTILE_NUMBER),
    "resource_constraints.vcpus": (*NOT_A_NUMBER, 0, 4097, *HOSTILE_NUMBER),
    "resource_constraints.storage": (*NOT_A_NUMBER, 16_000_001, *HOSTILE_NUMBER),
}  # fmt: skip

# Documents that are no SLA at all, and a word of what is said of them.
NO_SLA = {
    "empty": (b"", "not JSON"),
    "half": (b'{"customerID": "Admin"', "not JSON"),
    "text": (b'"Admin"', "not an object"),
    "list": (b"[]", "not an object"),
    "null": (b"null", "not an object"),
    "not UTF-8": (b'{"customerID": "\xff\xfe"}', "not JSON"),
    "a lone surrogate": (b'{"customerID": "\\ud800"}', "not JSON"),
    "UTF-16": ('{"customerID": "Admin"}'.encode("utf-16"), "not JSON"),
    "a number nobody can hold": (b'{"customerID": 1e999}', "not JSON"),
    "deep": (b'{"customerID": ' + b"[" * 50 + b"]" * 50 + b"}", "nested too deeply"),
    "very deep": (b"[" * 200_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "a megabyte of spaces": (b" " * ((1 << 20) + 1), "at most 1048576"),
}


def with_field(document: dict, path: str, value: Any) -> dict:
    changed = copy.deepcopy(document)
    *way, last = path.split(".")
    place = changed
    for step in way:
        place = place[step]
    if value is MISSING:
        place.pop(last, None)
    else:
        place[last] = value
    return changed


class Doors:
    """Both that take a project: what each answers to the same body."""

    def __init__(self, up):
        headers = {"Authorization": f"Bearer {up.token()}", "Content-Type": "application/json"}
        self._client = httpx.Client(headers=headers, timeout=60)
        self.urls = {
            "api": f"{up.url}/api/v1/projects",
            "flops": f"http://127.0.0.1:{up.flags['flops-port']}/api/flops/projects",
        }

    def ask(self, body: bytes) -> dict[str, httpx.Response]:
        return {name: self._client.post(url, content=body) for name, url in self.urls.items()}


def test_every_field_is_refused_by_its_name(shared_up, repository, say):
    doors = Doors(shared_up)
    good = sla(repository)
    wrong, asked = [], 0
    for field, values in CASES.items():
        for value in values:
            body = json.dumps(with_field(good, field, value)).encode()
            for door, answer in doors.ask(body).items():
                asked += 1
                what = f"{door} {field} {'missing' if value is MISSING else repr(value)[:60]}"
                told = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code != 422:
                    wrong.append(f"{what}: {told}")
                    continue
                if b"NaN" in body or b"Infinity" in body:  # no JSON, and so no field
                    if "not JSON" not in answer.text:
                        wrong.append(f"{what}: {told}")
                    continue
                named = answer.json().get("errors", [{}])[0].get("field", "")
                if named != field and not named.startswith((f"{field}[", f"{field}.")):
                    wrong.append(f"{what}: names {named!r}: {told}")
                if any(ord(c) < 32 for c in answer.text.rstrip("\n")):
                    wrong.append(f"{what}: control characters: {told!r}")
    say(f"{asked} answers")
    assert not wrong, "\n".join(wrong)
    assert shared_up.get("projects") == {"projects": []}


def test_what_is_no_sla_is_said_to_be_none(shared_up):
    doors = Doors(shared_up)
    for case, (body, words) in NO_SLA.items():
        for door, answer in doors.ask(body).items():
            told = (case, door, answer.status_code, answer.text[:300])
            assert answer.status_code in (400, 413, 422), told
            assert words in answer.text, told
