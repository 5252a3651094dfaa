"""Each message names what the ClientApp is to do."""

import os
import signal
import subprocess
import sys
import time

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def _answer(msg, context, **metrics):
    state = context.state.setdefault("counts", ConfigRecord())
    state["answered"] = int(state.get("answered", 0)) + 1
    metrics.update(answered=state["answered"], pid=os.getpid())
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def well(msg, context):
    return _answer(msg, context)


def raises(msg, context):
    context.state["left"] = ConfigRecord({"by": "raises"})
    raise RuntimeError("it rains")


def exits(msg, context):
    sys.exit(3)


def leaves(msg, context):
    print("these are my last words", flush=True)
    os._exit(3)


def crashes(msg, context):
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)


def is_killed(msg, context):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(msg, context):
    time.sleep(600)


def spins(msg, context):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    while True:
        pass


def eats(msg, context):
    hoard = []
    while True:
        hoard.append(b"\1" * (8 << 20))


def forks(msg, context):
    """Until it is refused; then every copy of this process fails in the same way."""
    while True:
        os.fork()


def forks_on(msg, context):
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.05)


def _fork():
    """As os.fork, once enough of the copies that `forks` has left are gone."""
    deadline = time.monotonic() + 3
    while True:
        try:
            return os.fork()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def deserts(msg, context):
    """Leaves a process behind that has nothing to do with it any more, by the book of daemons."""
    read, write = os.pipe()
    if _fork() == 0:
        os.setsid()
        if _fork() != 0:
            os._exit(0)
        sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
        os.write(write, b"%d %d" % (os.getpid(), sleeper.pid))
        os.close(write)
        time.sleep(600)
    os.close(write)
    daemon, sleeper = os.read(read, 64).split()
    return _answer(msg, context, daemon=int(daemon), sleeper=int(sleeper))


def returns_none(msg, context):
    return None


def returns_garbage(msg, context):
    return "garbage"


def writes_garbage(msg, context):
    """Into whatever it finds open."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"garbage" * 1000)
        except OSError:
            pass
    return _answer(msg, context)


def closes_all(msg, context):
    os.closerange(0, 64)
    return _answer(msg, context)


def prints(msg, context):
    line = "x" * 999 + "\n"
    for _ in range(20 * 1000):
        sys.stdout.write(line)
    sys.stdout.write("an endless line " * 100_000)
    return _answer(msg, context)


@app.query()
def query(msg: Message, context: Context) -> Message:
    return globals()[str(msg.content["config"]["step"])](msg, context)
