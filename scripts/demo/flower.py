"""`./run demo flower`: a real federation that runs an unmodified Flower app.

Starts the SuperLink and two SuperNodes that own 70 % and 30 % of Fashion-MNIST, runs
examples/fashion-mnist with stock `flwr run`, and ends with a table, a plot, the saved global model,
and nothing left running. Server and nodes are ours, or Flower's own to compare.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from stage import (
    ANSI,
    ROOT,
    START_SECONDS_MAX,
    TOOLS,
    Children,
    DemoError,
    Display,
    environment,
    free_ports,
    perform,
    shown,
    umbel,
    wait_until_healthy,
)

APP = ROOT / "examples" / "fashion-mnist"
SHARES = ((0.0, 0.7), (0.7, 1.0))

RUN_SECONDS_MAX = 300  # and as much again as the rounds may take:
ROUND_SECONDS_MAX = 120


def server_command(server: str, port: int) -> list[str | Path]:
    where = ["--insecure", "--host", "127.0.0.1", "--port", str(port)]
    if server == "upstream":
        return [TOOLS / "flower-superlink", *where, "--disable-runtime-dependency-installation"]
    return [umbel(), "superlink", *where]


def node_command(nodes: str, superlink: str, port: int, config: str) -> list[str | Path]:
    where = ["--insecure", "--superlink", superlink, "--port", str(port), "--node-config", config]
    if nodes == "stock":
        return [TOOLS / "flower-supernode", *where]
    return [umbel(), "supernode", *where, "--python", sys.executable]


class Results:
    """results.jsonl, which grows by a line with each round."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: list[dict] = []

    def fresh(self) -> list[dict]:
        """The lines that came since the last call."""
        if not self._path.is_file():
            return []
        whole = self._path.read_text().split("\n")[:-1]
        new = [json.loads(line) for line in whole[len(self.lines) :]]
        self.lines += new
        return new


def run_app(args, env: dict[str, str], out: Path, children: Children, display: Display) -> None:
    """Stock `flwr run --stream`, its output shown as it comes; raises unless the run completes."""
    overrides = [f"num-server-rounds={args.rounds}", f'output-dir="{out}"']
    command = [TOOLS / "flwr", "run", str(APP), "demo", "--stream", "-c", " ".join(overrides)]
    results = Results(out / "results.jsonl")
    run_id = None
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            show()

    def show() -> None:
        for line in results.fresh():
            what = f"round {line['round']}/{args.rounds}" if line["round"] else "untrained"
            display.say(
                f"== {what}: loss {line['loss']:.3f}, accuracy {line['accuracy']:.1%},"
                f" {line['seconds']:.1f} s"
            )

    flwr = subprocess.Popen(
        command,
        env=env,
        cwd=out,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    watcher = threading.Thread(target=watch, name="results")
    watcher.start()
    # The CLI never gives up by itself: it is ended when time is up, or a server or node is dead.
    patience = RUN_SECONDS_MAX + ROUND_SECONDS_MAX * args.rounds
    guard = threading.Thread(
        target=end_if_hopeless, args=(flwr, children, patience, done), name="guard"
    )
    guard.start()
    try:
        with (out / "logs" / "flwr-run.log").open("w") as log:
            for line in flwr.stdout:
                line = ANSI.sub("", line).rstrip()
                log.write(line + "\n")
                if match := re.search(r"started run (\d+)", line):
                    run_id = match.group(1)
                if line and not args.quiet:
                    print(f"           | {line}", flush=True)
        code = flwr.wait()
    finally:
        done.set()
        watcher.join()
        guard.join()
        if flwr.poll() is None:
            flwr.terminate()
    show()
    children.check()
    if code != 0 or run_id is None:
        why = "took too long and was ended" if code == -signal.SIGTERM else f"ended with {code}"
        raise DemoError(f"flwr run {why}; see {shown(out / 'logs' / 'flwr-run.log')}")

    # The CLI exits 0 whatever became of the run, so ask.
    listed = subprocess.run(
        [TOOLS / "flwr", "list", "demo", "--run-id", run_id, "--format", "json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=START_SECONDS_MAX,
        check=False,
    )
    try:
        status = json.loads(listed.stdout)["runs"][0]["status"]
    except (ValueError, LookupError) as error:
        raise DemoError(f"flwr list said: {listed.stdout}{listed.stderr}") from error
    display.say(f"run {run_id}: {status}")
    if status != "finished:completed":
        raise DemoError(f"the run ended as {status}, not finished:completed")
    if len(results.lines) != args.rounds + 1:
        raise DemoError(f"{len(results.lines)} results for {args.rounds} rounds and the start")


def end_if_hopeless(
    flwr: subprocess.Popen, children: Children, patience: float, done: threading.Event
) -> None:
    deadline = time.monotonic() + patience
    while not done.wait(1):
        try:
            children.check()
            if time.monotonic() < deadline:
                continue
        except DemoError:
            pass  # the main thread finds the same, and says so
        flwr.terminate()
        return


def report(args, out: Path) -> None:
    """The table, and the plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    print("\n  round     loss  accuracy  seconds")
    for line in lines:
        name = line["round"] or "start"
        print(
            f"  {name:>5}  {line['loss']:7.4f}  {line['accuracy']:8.2%}  {line['seconds']:7.1f}"
        )

    figure, (accuracy, loss) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    rounds = [line["round"] for line in lines]
    server = "Umbel" if args.server == "umbel" else "Flower"
    figure.suptitle(f"Fashion-MNIST, FedAvg, two SuperNodes (70 % / 30 %), {server} SuperLink")
    accuracy.plot(rounds, [100 * line["accuracy"] for line in lines], "o-", color="#2a7f62")
    accuracy.set(xlabel="round", ylabel="accuracy on 10 000 test images, %", ylim=(0, 105))
    for line in lines:
        accuracy.annotate(
            f"{line['accuracy']:.1%}",
            (line["round"], 100 * line["accuracy"]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
            fontsize=8,
        )
    loss.plot(rounds, [line["loss"] for line in lines], "o-", color="#7f2a4a")
    loss.set(xlabel="round", ylabel="loss", ylim=(0, None))
    for axes in (accuracy, loss):
        axes.set_xticks(rounds)
        axes.margins(x=0.12)
        axes.grid(alpha=0.3)
    figure.savefig(out / "rounds.png", dpi=130)


def federate(args, out: Path, scratch: Path, children: Children, display: Display) -> None:
    port, *node_ports = free_ports(1 + len(SHARES))
    address = f"127.0.0.1:{port}"
    who = "umbel superlink" if args.server == "umbel" else "Flower's flower-superlink"

    display.say(f"[1/4] starting {who} on {address}")
    command = server_command(args.server, port)
    children.start("superlink", command, environment(scratch, "superlink"))
    wait_until_healthy(f"http://{address}", children)

    which = "stock SuperNodes" if args.nodes == "stock" else "umbel supernodes"
    display.say(f"[2/4] starting {len(SHARES)} {which}")
    for number, ((data_from, data_to), node_port) in enumerate(zip(SHARES, node_ports), 1):
        display.say(f"      node {number} owns {data_to - data_from:.0%} of 60 000 images")
        config = f"data-from={data_from} data-to={data_to}"
        command = node_command(args.nodes, address, node_port, config)
        children.start(f"node-{number}", command, environment(scratch, f"node-{number}"))

    display.say(f"[3/4] flwr run examples/fashion-mnist, {args.rounds} rounds")
    env = environment(scratch, "cli")
    (Path(env["FLWR_HOME"]) / "config.toml").write_text(
        f'[superlink]\ndefault = "demo"\n\n'
        f'[superlink.demo]\naddress = "{address}"\ninsecure = true\n'
    )
    run_app(args, env, out, children, display)


def fresh_output(args) -> Path:
    out = (args.out or ROOT / "out" / "demo" / args.server).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", "model.npz", "rounds.png"):
        (out / name).unlink(missing_ok=True)
    (out / "logs").mkdir(exist_ok=True)
    return out


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="./run demo flower",
        description="Train Fashion-MNIST over two SuperNodes and show what came of it.",
    )
    parser.add_argument(
        "--server",
        choices=("umbel", "upstream"),
        default="umbel",
        help="whose SuperLink: ours (default), or Flower's own, to compare",
    )
    parser.add_argument(
        "--nodes",
        choices=("umbel", "stock"),
        help="whose SuperNodes: ours, or Flower's own (default: the side that --server is of)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds to train (default 3)")
    parser.add_argument("--out", type=Path, help="where results go (default out/demo/<server>)")
    parser.add_argument("--quiet", action="store_true", help="do not show the output of flwr run")
    args = parser.parse_args()
    args.nodes = args.nodes or ("umbel" if args.server == "umbel" else "stock")
    return args


def main() -> int:
    args = parse_arguments()
    if args.rounds < 1:
        print("demo: --rounds must be at least 1", file=sys.stderr)
        return 2
    out = fresh_output(args)

    def play(scratch: Path, children: Children, display: Display) -> bool:
        federate(args, out, scratch, children, display)
        return False

    if status := perform(play, out, "[4/4] stopping everything"):
        return status
    report(args, out)
    print(f"\n  plot          {shown(out / 'rounds.png')}")
    print(f"  global model  {shown(out / 'model.npz')}")
    print(f"  results       {shown(out / 'results.jsonl')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
