"""Row 3 of native rounds: Fashion-MNIST by both ways in, beside the same app on Flower's SuperLink with
the same seeds. The means differ in their last bits (Flower rounds after each reply), so what is compared
is what training makes of them."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.harness.federation import Federation, umbel_node
from tests.harness.servers import REPO, start_server

FASHION = REPO / "examples" / "fashion-mnist"
SOAK = os.environ.get("UMBEL_SOAK", "") not in ("", "0")
ROUNDS = 10 if SOAK else 2
ENDS = (0.0, 0.7, 1.0) if SOAK else (0.0, 0.03, 0.05)
SHARES = [{"data-from": a, "data-to": b} for a, b in itertools.pairwise(ENDS)]
SECONDS = 900.0
pytestmark = pytest.mark.umbel_only("it runs both")

sys.path.insert(0, str(FASHION))  # so that a test can measure a model as the app does
from fashion_mnist import data as fashion_data  # noqa: E402
from fashion_mnist import model as fashion_model  # noqa: E402


@pytest.fixture(scope="module")
def changed(folder) -> Path:
    """The example with one import changed."""
    app = shutil.copytree(FASHION, folder / "changed", ignore=shutil.ignore_patterns("__pycache__"))
    server_app = app / "fashion_mnist" / "server_app.py"
    flowers, ours = "from flwr.serverapp.strategy import", "from umbel.serverapp import"
    assert flowers in (text := server_app.read_text())
    server_app.write_text(text.replace(flowers, ours))
    return app


def curve_of_app(federation: Federation, app: Path, native: bool) -> list[float]:
    """Test accuracy after each round, as the ServerApp measures it."""
    out = federation.folder / "out"
    config = {"num-server-rounds": ROUNDS, "output-dir": str(out)}
    run_id = federation.start(config, federation.build(app))
    federation.wait_status(run_id, "finished:completed", SECONDS)
    federation.wait_gone(federation.serverapps(), 15)
    in_python = "Rounds run in Python" in federation.log(run_id, show=True).output
    assert not (native and in_python), "the rounds were not native"
    lines = (out / "results.jsonl").read_text().splitlines()
    return [json.loads(line)["accuracy"] for line in lines][1:]


def curve_of_run(federation: Federation) -> list[float]:
    """The same of the models that `umbel run` keeps."""
    initial = fashion_model.initial_weights(128, 1)
    done = federation.umbel_run(
        initial, "--rounds", ROUNDS, "--keep", "all", "--watch", app=FASHION
    ).result(SECONDS)
    assert done.exit_code == 0, done.output
    (folder,) = federation.server.home.rglob(f"models/{done.run_id}")
    test = fashion_data.load_test("/usr/share/datasets/fashion-mnist")
    curve = []
    for number in range(1, ROUNDS + 1):
        with np.load(folder / f"round-{number}.npz") as file:
            weights = {name: file[name] for name in file.files}
        curve.append(fashion_model.evaluate(weights, test)[1])
    return curve


@pytest.fixture(scope="module")
def curves(folder, changed) -> dict[str, list[float]]:
    found = {}
    for kind in ("upstream", "umbel"):
        with start_server(kind, home=folder / f"{kind}-server") as server:
            options = {"node_configs": SHARES, "node": umbel_node("worker")}
            with Federation(server, folder / kind, **options) as federation:
                app = changed if kind == "umbel" else FASHION
                found[kind] = curve_of_app(federation, app, native=kind == "umbel")
                if kind == "umbel":
                    found["run"] = curve_of_run(federation)
    return found


def test_both_ways_in_learn_as_flower_does(curves, say):
    say(f"accuracy after {ROUNDS} rounds: {curves['upstream'][-1]:.4f}")
    np.testing.assert_allclose(curves["umbel"], curves["upstream"], rtol=1e-5)
    np.testing.assert_allclose(curves["run"], curves["upstream"], rtol=1e-5)


@pytest.mark.soak
def test_flower_itself_depends_on_the_order_of_replies(say):
    """The yardstick for the above: three sites, Flower's own mean, replies in node order and in reverse."""
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    sites = [
        fashion_data.load_site("/usr/share/datasets/fashion-mnist", a, b)[0]
        for a, b in itertools.pairwise((0.0, 0.5, 0.8, 1.0))
    ]
    test = fashion_data.load_test("/usr/share/datasets/fashion-mnist")

    def curve(step: int) -> list[float]:
        weights, found = fashion_model.initial_weights(128, 1), []
        for number in range(1, ROUNDS + 1):
            replies = []
            for site in sites:
                own = {name: array.copy() for name, array in weights.items()}
                rng = np.random.default_rng([1, number])
                fashion_model.train(
                    own, site, epochs=2, batch_size=64, learning_rate=0.02, rng=rng
                )
                metrics = MetricRecord({"num-examples": len(site)})
                replies.append(RecordDict({"a": fashion_model.to_record(own), "m": metrics}))
            mean = aggregate_arrayrecords(replies[::step], "num-examples")
            weights = fashion_model.from_record(mean)
            found.append(fashion_model.evaluate(weights, test)[1])
        return found

    forward, backward = curve(1), curve(-1)
    say(f"in order {forward}\nin reverse {backward}")
    assert forward != backward
