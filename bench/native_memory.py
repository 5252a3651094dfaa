"""Row r6: the SuperLink's peak memory and disk in native rounds of few and of many clients.

Clients are played by `umbel_load train`: a thousand real nodes would keep a thousand models on the
same disk. Six of them send at a time. Every reply is another one, and arrives whole.
"""

import os
import sys
import tempfile
from pathlib import Path

from _bench import Recorder, at_most, say, servers, workspace
from _rounds import Trainers, Watch, check_received, model, native_run, received, records, size

from tests.harness.federation import Federation

MODEL_MB = int(os.environ.get("UMBEL_BENCH_MB", "100"))
CLIENTS = [
    int(n) for n in os.environ.get("UMBEL_BENCH_CLIENTS", "4,16,64,256,1000").split(",") if n
]
STRATEGIES = {"FedAvg": 6, "FedAdam": 8}  # models that memory may be
DISK_MODELS = 20
SLACK = 64_000_000


def measure(strategy, clients, folder, hostile=False):
    """Peaks of a fresh server. Two rounds, so that the second begins with what the first has left;
    one of the many."""
    home = Path(tempfile.mkdtemp(prefix=f"{strategy}-", dir=folder))
    arrays = model(MODEL_MB * 1_000_000, 10)
    rounds = 2 if clients <= 64 else 1
    flags = ["--hostile"] if hostile else []
    with servers.start_server("umbel", home=home / "server") as server:
        with Federation(server, home / "federation", start_nodes=False) as federation:
            with Watch(server) as watch, Trainers(server, clients, rounds, *flags) as trainers:
                run_id = native_run(
                    federation, arrays, "--rounds", rounds, "--strategy", strategy,
                    "--set", f"min_available_nodes={clients}", trainers=trainers,
                )  # fmt: skip
                phases = trainers.phases()
                told = [one.phase for one in records(server, run_id) if one.kind == "train"]
                counted = received(server, size(arrays))
    wanted = rounds * clients * size(arrays)
    if sum(phase["array_bytes"] for phase in phases) != wanted:
        raise RuntimeError(f"not {wanted} bytes of arrays were sent: {phases}")
    check_received(counted, wanted, wanted // (5 << 20))
    accepted = [phase.accepted for phase in told]
    if accepted != [clients] * rounds and not hostile:
        raise RuntimeError(f"{accepted} of {clients} were accepted")
    peaks, one = watch.peaks, size(arrays)
    seconds = sum(phase.seconds_collected + phase.seconds_closed for phase in told)
    outcomes = sorted({node.outcome for phase in told for node in phase.nodes})
    parts = ", ".join(f"{name} {used / one:.1f}" for name, used in peaks.parts.items() if used > one / 10)
    say(
        f"  {strategy}, {clients} clients{', one hostile' if hostile else ''}: memory "
        f"{peaks.memory / 1e6:.0f} MB = {peaks.memory / one:.2f} models, disk "
        f"{peaks.disk / one:.2f} models ({parts}); {counted / one:.3f} models received, {rounds} rounds in "
        f"{seconds:.1f} s; {', '.join(outcomes)}"
    )
    return peaks


def main():
    recorder = Recorder("r6", "native_memory")
    one = MODEL_MB * 1_000_000
    with workspace() as folder:
        for strategy, models in STRATEGIES.items():
            found = {clients: measure(strategy, clients, folder) for clients in CLIENTS}
            most = max(peaks.memory for peaks in found.values())
            each = ", ".join(f"{n}: {peaks.memory / 1e6:.0f}" for n, peaks in found.items())
            # What FedOpt may have beside its models is the same.
            recorder.note(
                f"{strategy}, memory of the SuperLink, {MODEL_MB} MB model",
                f"{most / one:.2f} models (MB by clients: {each})",
                f"≤ {models} × model + 64 MB",
                at_most(most, models * one + SLACK),
            )
            many = [peaks.memory for n, peaks in found.items() if n >= 16]
            if len(many) > 1:
                growth = many[-1] / many[0]
                recorder.note(
                    f"{strategy}, memory, most clients over 16", f"{growth:.2f} ×", "flat (≤ 1.1 ×)",
                    at_most(growth, 1.1),
                )  # fmt: skip
            disk = max(peaks.disk for peaks in found.values())
            each = ", ".join(f"{n}: {peaks.disk / one:.1f}" for n, peaks in found.items())
            recorder.note(
                f"{strategy}, disk of the SuperLink",
                f"{disk / one:.1f} models (by clients: {each})",
                f"≤ {DISK_MODELS} × model",
                at_most(disk, DISK_MODELS * one),
            )
        peaks = measure("FedAvg", 16, folder, hostile=True)
        recorder.note(
            "FedAvg, memory, one of 16 sends numbers of all magnitudes",
            f"{peaks.memory / one:.2f} models",
            f"≤ {STRATEGIES['FedAvg']} × model + 64 MB",
            at_most(peaks.memory, STRATEGIES["FedAvg"] * one + SLACK),
        )
    return recorder.failed


if __name__ == "__main__":
    sys.exit(main())
