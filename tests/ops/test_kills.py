"""kill -9 of the manager and of what it runs: `./run soak ops-kills`, small."""

from __future__ import annotations

import random

from tests.harness.servers import wait_until
from tests.ops.conftest import sla
from tests.soak.ops_kills import ENDED, check_whole, kill_worker, short, training


def test_the_base_case_outlives_its_parts(up, repository, say):
    """The manager is killed in three stages; tracking, aggregator and both learners in a round."""
    project = up.submit(sla(repository))
    up.wait_for(project, {"build", *ENDED})
    up.kill()
    up.start()
    with up.held(project):
        up.wait_for(project, {"train", *ENDED})
        wait_until("training is under way", lambda: training(up, project), 60, 0.05)
        victims = [f"aggr{short(up, project)}.", f"flearner{short(up, project)}.0", "tracking"]
        random.shuffle(victims)
        for victim in victims:
            say(f"killed: {up.kill_instance(victim)[:60]}")
        up.kill()
        up.start()
        kill_worker(up, project)
    up.wait_for(project, {"record", *ENDED})
    up.kill()
    up.start()
    check_whole(up, up.wait_for(project, ENDED))
    told = [entry["text"] for entry in up.get(f"projects/{project}/timeline")["entries"]]
    rounds = [text for text in told if text.startswith("round ") and " of 3: accuracy" in text]
    assert len(rounds) == 3, told
    up.stop()
    wait_until("nothing is left", lambda: not up.processes(), 30)
