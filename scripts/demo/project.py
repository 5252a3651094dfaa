"""`./run demo`: a project of FLOps' base case, from data to a prediction.

Starts `umbel up`, fills two learner nodes with a half of Fashion-MNIST each, submits an SLA, shows
actors, rounds and the best model as they come, checks what MLflow has, asks the served model about
test images, and takes everything down again. All of it by the commands a user would type.
"""

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
from stage import ANSI, ROOT, Children, DemoError, Display, perform, shown, umbel, wait_until_healthy

ML_REPO = ROOT / "examples" / "ml-repos" / "fashion-mnist-sklearn"
MLFLOW = ROOT / ".venv-mlflow" / "bin" / "python"
ENVIRONMENTS = ROOT / "build" / "environments"  # stay from run to run: they are costly
IMAGES = Path("/usr/share/datasets/fashion-mnist")
# The same files are the same commit, and find the environment that was made for it.
GIT_ENVIRONMENT = {f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}

TAG = "fashion-mnist"
LEARNERS = 2
ACCURACY_MIN = 0.8
ASKED = 1000  # test images
SHOWN = 10  # of them
ADDRESS_SECONDS_MAX = 30
COMMAND_SECONDS_MAX = 3600
CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class Up:
    """A running `umbel up`, and its command line as a user has it."""

    def __init__(self, out: Path, children: Children, display: Display) -> None:
        self._out = out
        self._state = out / "up"
        self._display = display
        self._env = os.environ | {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        shutil.rmtree(self._state, ignore_errors=True)
        self._state.mkdir(parents=True)
        ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
        (self._state / "environments").symlink_to(ENVIRONMENTS)
        command = [umbel(), "up", "--state", self._state, "--python", sys.executable]
        command += ["--mlflow-python", MLFLOW] if MLFLOW.exists() else []
        # Of ports only those matter that people are told; the others the system picks.
        for door in ("port", "flops-port", "oakestra-port"):
            command += [f"--{door}", "0"]
        self.process = children.start("up", command, self._env)
        wait_until_healthy(self._address(children), children)

    def _address(self, children: Children) -> str:
        file = self._state / "address"
        deadline = time.monotonic() + ADDRESS_SECONDS_MAX
        while not file.exists():
            children.check()
            if time.monotonic() > deadline:
                raise DemoError(f"umbel up has not started:\n{children.tail('up')}")
            time.sleep(0.02)
        return file.read_text().strip()

    def state(self) -> str:
        return shown(self._state)

    def run(self, *words: str, says: bool = True) -> str:
        """Runs `umbel WORDS`; its output, which is shown as it comes if it `says` something."""
        return "\n".join(self.lines(*words, says=says))

    def lines(self, *words: str, says: bool = True):
        if says:
            self._display.say(f"$ umbel {' '.join(shown_word(word) for word in words)}")
        command = [umbel(), *words, "--state", self._state]
        process = subprocess.Popen(
            command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not says else subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        last = ""
        try:
            for line in process.stdout:
                last = ANSI.sub("", line).rstrip()
                if says and last:
                    print(f"           {last}", flush=True)
                yield last
            code = process.wait(COMMAND_SECONDS_MAX)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if code != 0:
            why = last if says else process.stderr.read()
            raise DemoError(f"umbel {' '.join(words)} ended with {code}: {why}")

    def ask(self, *words: str):
        return json.loads(self.run(*words, "--json", says=False))


def shown_word(word: str) -> str:
    return shown(Path(word)) if word.startswith("/") else word


def ml_repository(out: Path) -> Path:
    """The example, as a git repository of its own with one commit."""
    target = out / "ml-repo"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ML_REPO, target, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", target, "-c", "user.name=Umbel", "-c", "user.email=umbel@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "example"]):
        subprocess.run([*git, *words], check=True, env=os.environ | GIT_ENVIRONMENT)
    return target


def write_sla(out: Path, rounds: int) -> Path:
    file = out / "sla.json"
    document = {
        "customerID": "Admin",
        "verbose": True,
        "ml_repo_url": str(ml_repository(out)),
        "ml_model_flavor": "sklearn",
        "training_configuration": {
            "mode": "classic",
            "data_tags": [TAG],
            "training_rounds": rounds,
            "min_available_clients": LEARNERS,
            "min_fit_clients": LEARNERS,
            "min_evaluate_clients": LEARNERS,
        },
        "post_training_steps": ["build_image_for_trained_model", "deploy_trained_model_image"],
        "resource_constraints": {"memory": 500, "vcpus": 1, "storage": 0},
    }
    file.write_text(json.dumps(document, indent=2) + "\n")
    return file


def train(up: Up, sla: Path) -> tuple[dict, float]:
    """Submits it and shows what becomes of it. Returns the project, and seconds to the model."""
    began = time.monotonic()
    seconds = float("nan")
    name = ""
    for line in up.lines("project", "submit", str(sla), "--follow"):
        if match := re.match(r"project ([0-9a-f]{24}) ", line):
            name = match.group(1)
        if line.endswith("stage train"):
            up.run("ps", "--wide")
        if "is the best" in line:
            seconds = time.monotonic() - began
    project = up.ask("project", "show", name)
    best = project.get("best") or {}
    if best.get("accuracy", 0) <= ACCURACY_MIN:
        raise DemoError(
            f"the best round has accuracy {best.get('accuracy')}, not over {ACCURACY_MIN}"
        )
    return project, seconds


def check_tracking(url: str, project: dict, rounds: int) -> None:
    """What MLflow itself has: a run for each round, and in exactly one of them the model."""

    def ask(path: str, body: dict | None = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{url}/api/2.0/mlflow/{path}", data, {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(request, timeout=60))

    name = f"FLOps Project {project['id']}"
    query = urllib.parse.urlencode({"experiment_name": name})
    experiment = ask(f"experiments/get-by-name?{query}")["experiment"]["experiment_id"]
    runs = ask("runs/search", {"experiment_ids": [experiment], "max_results": 1000})["runs"]
    print(f"\n  {name} at {url}\n\n    run                accuracy    loss  model")
    with_model = []
    for run in sorted(runs, key=lambda run: run["info"]["start_time"]):
        metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
        model = bool(run.get("outputs", {}).get("model_outputs"))
        with_model += [run] if model else []
        print(
            f"    {run['info']['run_name']:<18} {metrics['accuracy']:8.2%} {metrics['loss']:7.4f}"
            f"  {'logged, registered, served' if model else ''}"
        )
    print(flush=True)
    if len(runs) != rounds or len(with_model) != 1:
        raise DemoError(f"{len(runs)} runs and {len(with_model)} models for {rounds} rounds")


def read_idx(name: str, header: int) -> np.ndarray:
    file = next(path for path in (IMAGES / name, IMAGES / f"{name}.gz") if path.exists())
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return np.frombuffer(data, np.uint8, offset=header)


def predict(up: Up, out: Path) -> None:
    """Test images that no learner has seen."""
    images = read_idx("t10k-images-idx3-ubyte", 16).reshape(-1, 28 * 28)[:ASKED]
    truth = read_idx("t10k-labels-idx1-ubyte", 8)[:ASKED]
    rows = out / "images.json"
    rows.write_text(json.dumps({"inputs": (images / 255).round(4).tolist()}))
    answer = "".join(up.lines("predict", str(rows), says=False))
    told = np.asarray(json.loads(answer)["predictions"])
    if told.shape != truth.shape:
        raise DemoError(f"{told.shape} predictions for {truth.shape} images")
    right = float((told == truth).mean())
    print("\n    image        it is        the model says")
    for number, (is_, says) in enumerate(zip(truth[:SHOWN], told[:SHOWN], strict=True)):
        print(f"    {number:>5}        {CLASSES[is_]:<11}  {CLASSES[says]}")
    print(f"    of {ASKED} test images {right:.1%} are right\n", flush=True)
    if right <= ACCURACY_MIN:
        raise DemoError(f"{right:.1%} are right, not over {ACCURACY_MIN:.0%}")


def play(args, out: Path, children: Children, display: Display) -> bool:
    display.say("[1/6] umbel up: manager, two learner nodes and one without learners, the doors")
    up = Up(out, children, display)
    display.say("[2/6] mock data: a half of Fashion-MNIST for each learner node")
    up.run("data", "mock", "--dataset", "fashion-mnist", "--partitions", str(LEARNERS), "--tag", TAG)
    display.say(f"[3/6] a project: {args.rounds} rounds, {LEARNERS} learners")
    sla = write_sla(out, args.rounds)
    project, seconds = train(up, sla)
    url = up.ask("tracking")["url"]
    display.say(f"[4/6] what MLflow has; its GUI is at {url}")
    check_tracking(url, project, args.rounds)
    up.run("models")
    display.say("[5/6] the served model")
    predict(up, out)
    display.say(f"from the SLA to the logged model it took {seconds:.1f} s")
    if args.keep:
        display.say("[6/6] everything stays up (--keep)")
        print(
            f"\n  MLflow's GUI  {url}\n"
            f"  commands      bin/umbel ps --state {up.state()}\n"
            f"  end           kill {up.process.pid}"
        )
        return True
    display.say("[6/6] taking it down")
    up.run("project", "rm", project["id"][:8])
    return False


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="./run demo",
        description=(
            "FLOps' base case on this machine: mock data, an SLA, rounds in MLflow, the best model, "
            "a prediction from it."
        ),
        epilog="`./run demo flower --help` is about the training plane alone, beside upstream's.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds to train (default 3)")
    parser.add_argument("--keep", action="store_true", help="leave all of it up at the end")
    parser.add_argument("--out", type=Path, help="where results go (default out/demo/project)")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    if args.rounds < 1:
        print("demo: --rounds must be at least 1", file=sys.stderr)
        return 2
    out = (args.out or ROOT / "out" / "demo" / "project").resolve()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    return perform(
        lambda _scratch, children, display: play(args, out, children, display),
        out,
        "stopping umbel up",
    )


if __name__ == "__main__":
    sys.exit(main())
