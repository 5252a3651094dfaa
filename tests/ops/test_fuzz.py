"""schemathesis on both REST doors, with a token and without: answers are as the documents say.

No 5xx, statuses and bodies and content types as described, Allow where a method is wrong, what breaks
a schema refused. Projects it makes have a repository that is not there; services do nothing. Meanwhile
the server goes on answering others, and when all it made is deleted nothing is left.

`./run soak ops-doors` runs it long (UMBEL_SOAK), by another seed each time (UMBEL_SEED).
"""

from __future__ import annotations

import os
import time

import httpx
import pytest

from tests.harness.servers import wait_until
from tests.ops.fuzz.run import SCHEMATHESIS, Pulse, schemathesis

SOAK = "UMBEL_SOAK" in os.environ
SEED = os.environ.get("UMBEL_SEED", "10")
EXAMPLES = "300" if SOAK else "2"
PHASES = "examples,coverage,fuzzing,stateful" if SOAK else "fuzzing"
PAUSE_MAX = 0.5  # seconds; the machine may be busy with other tests

DOORS = {"api": ("", "/api/v1/openapi.json"), "flops": ("flops-port", "/openapi/openapi.json")}

pytestmark = pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="there is no .venv-schemathesis")


def clean(up) -> None:
    """Deletes what was made, until nothing of it is there."""
    answer = httpx.request(
        "DELETE",
        f"http://127.0.0.1:{up.flags['flops-port']}/api/flops/database",
        headers={"Authorization": f"Bearer {up.token()}"},
        timeout=300,
    )
    assert answer.status_code == 200, answer.text
    left = ("tracking", "mldata")  # a customer's, the nodes'

    def services():
        return [s["name"] for s in up.get("services")["services"] if not s["name"].startswith(left)]

    wait_until("all of it is gone", lambda: not up.get("projects")["projects"] and not services(), 300)


@pytest.mark.parametrize("door", DOORS)
def test_the_document_is_the_truth(doors, tmp_path, say, door):
    flag, document = DOORS[door]
    url = f"http://127.0.0.1:{doors.flags[flag]}" if flag else doors.url
    token = f"Authorization: Bearer {doors.token()}"
    how = ["--seed", SEED, "--max-examples", EXAMPLES, "--phases", PHASES]
    begin = time.monotonic()
    with Pulse(url if door == "api" else doors.url) as pulse:
        known = schemathesis(url, document, tmp_path / "known", "--header", token, *how)
        unknown = schemathesis(url, document, tmp_path / "unknown", *how)
    for name, report in (("with a token", known), ("without", unknown)):
        [line] = [each for each in report.splitlines() if " generated" in each][-1:]
        say(f"{door} {name}: {line.strip()}")
    say(f"{door}: {time.monotonic() - begin:.0f} s; /health p99 {1e3 * pulse.p99():.0f} ms "
        f"of {len(pulse.seconds)}")  # fmt: skip
    assert pulse.p99() < PAUSE_MAX
    clean(doors)


@pytest.mark.parametrize("door", DOORS)
def test_bodies_that_are_no_documents(doors, door):
    flag, _ = DOORS[door]
    url = f"http://127.0.0.1:{doors.flags[flag]}" if flag else doors.url
    headers = {"Authorization": f"Bearer {doors.token()}"}
    root = {"api": "/api/v1", "flops": "/api/flops"}[door]
    routes = [("POST", "projects"), ("POST", "mocks")]
    if door == "api":
        routes += [("POST", "login"), ("POST", "accounts"), ("PUT", "accounts/alice")]
    bodies = [b"", b"null", b"[]", b"{", b"[" * 60_000, b'{"a":' * 12_000, b"\xff\xfe", b"{}\x00",
              b"x" * (3 << 20)]  # fmt: skip
    for method, path in routes:
        for body in bodies:
            answer = httpx.request(
                method, f"{url}{root}/{path}", content=body, headers=headers, timeout=30
            )
            assert answer.status_code in (413, 422), (path, body[:20], answer.text[:300])
            assert answer.json()["detail" if door == "api" else "message"]
