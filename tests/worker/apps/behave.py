"""A ClientApp that does what the message's config says under "do"."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from flwr.app import (
    Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict,
)  # fmt: skip
from flwr.clientapp import ClientApp

app = ClientApp()
calls = 0  # of this process


def double(msg, context, config):
    arrays = {key: Array(value.numpy() * 2) for key, value in msg.content["arrays"].items()}
    counts = context.state.setdefault("counts", ConfigRecord())
    counts["train"] = int(counts.get("train", 0)) + 1
    metrics = MetricRecord({"loss": np.float64(0.5), "n": 3, "many": [1, 2]})
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})


def echo(msg, context, config):
    context.state = msg.content
    return msg.content


def describe(msg, context, config):
    meta = msg.metadata
    own = Message(RecordDict(), dst_node_id=1, message_type="query")
    return {
        "run_id": meta.run_id, "message_id": meta.message_id, "src": meta.src_node_id,
        "dst": meta.dst_node_id, "group": meta.group_id, "type": meta.message_type,
        "ttl": meta.ttl, "created_at": meta.created_at,
        "src_task": getattr(meta, "src_task_id", None) or 0,
        "node_id": context.node_id, "context_run": context.run_id,
        "series": getattr(context, "series_id", -1),
        "node_config": repr(context.node_config), "run_config": repr(context.run_config),
        "own_type": own.metadata.message_type,
    }  # fmt: skip


def draw(msg, context, config):
    return {"numpy": float(np.random.rand()), "random": random.random(), **_more()}


def _more():
    return {"generator": float(generator.random()), "instance": instance.random()}


generator = np.random.default_rng()
instance = random.Random()


def process(msg, context, config):
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    return {
        "pid": os.getpid(), "sid": os.getsid(0), "pgrp": os.getpgrp(), "cwd": os.getcwd(),
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
        "stdin": os.readlink("/proc/self/fd/0"), "uid": os.getuid(), "gid": os.getgid(),
        "groups": [int(group) for group in status["Groups"].split()],
        "path0": sys.path[0], "path": repr(sys.path), "umbel": "umbel" in sys.modules,
        "argv": repr(sys.argv), "sigchld": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }  # fmt: skip


def raises(msg, context, config):
    context.state["mark"] = ConfigRecord({"before": "the error"})
    raise {"value": ValueError, "exit": SystemExit, "interrupt": KeyboardInterrupt}[
        config["what"]
    ](config.get("text", "")) from None


class _Nasty(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


def nasty(msg, context, config):
    raise _Nasty


def surrogate(msg, context, config):
    raise ValueError("half a pair: \ud800")


def end(msg, context, config):
    os._exit(int(config["status"]))


def segfault(msg, context, config):
    os.kill(os.getpid(), signal.SIGSEGV)


def nothing(msg, context, config):
    return None


def garbage(msg, context, config):
    what = config["what"]
    if what == "text":
        return "no message"
    reply = Message(RecordDict(), reply_to=msg)
    if what == "content":
        reply.content = {"a": 1}
    elif what == "head":
        reply.metadata.ttl = "soon"
    elif what == "huge integer":
        record = MetricRecord({"a": 1})
        record["a"] = 1 << 70
        reply.content["m"] = record
    elif what == "mixed list":
        values = [1]
        reply.content["m"] = MetricRecord({"a": values})
        values.append("x")
    elif what == "array":
        array = Array(np.zeros(2))
        array.data = "text"
        reply.content["m"] = ArrayRecord({"a": array})
    elif what == "state":
        context.state = {"not": "records"}
    elif what == "surrogate":
        reply.content["m"] = ConfigRecord({"a": "\ud800"})
    return reply


def own_error(msg, context, config):
    from flwr.app import Error

    return Message(Error(code=77, reason="as I say"), reply_to=msg)


def prints(msg, context, config):
    import ctypes

    print("from Python")
    print("to stderr", file=sys.stderr)
    ctypes.CDLL(None).printf(b"from C\n")
    subprocess.run(["echo", "from a subprocess"], check=True)
    sys.stdout.write("x" * int(config["bytes"]) + "\n")
    sys.stdout.write("no end of line")
    return RecordDict()


def leaves_behind(msg, context, config):
    """Sleepers that detach themselves: one by a double fork and setsid, one by setsid alone."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(write, b"%d\n" % pid)
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return {"pids": [int(os.read(read, 100)), sleeper.pid]}


def forks_and_returns(msg, context, config):
    if os.fork() == 0:
        return {"who": "child"}
    os.wait()
    return {"who": "parent"}


def counts(msg, context, config):
    global calls
    calls += 1
    return {"calls": calls, "pid": os.getpid()}


def at_exit(msg, context, config):
    import atexit

    path = config["path"]

    def late():
        time.sleep(0.05)
        with open(path, "a") as file:
            file.write("thread\n")

    def last():
        with open(path, "a") as file:
            file.write("atexit\n")

    atexit.register(last)
    threading.Thread(target=late).start()
    return {"pid": os.getpid()}


def lingers(msg, context, config):
    """Gives up its job socket in the middle of the call, and stays."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.close(3)
    time.sleep(600)


def sleeps(msg, context, config):
    print("asleep", flush=True)
    time.sleep(600)


def limits(msg, context, config):
    what = config["what"]
    if what == "memory":
        return {"bytes": len(bytearray(1 << 30))}
    if what == "files":
        return {"n": len([open("/dev/null") for _ in range(100)])}
    with open(config["path"], "wb") as file:
        file.write(bytes(1 << 20))


@app.train()
def train(msg: Message, context: Context) -> Message:
    config = msg.content["config"]
    result = globals()[config["do"]](msg, context, config)
    if isinstance(result, dict):
        result = RecordDict({"result": ConfigRecord(result)})
    return Message(result, reply_to=msg) if isinstance(result, RecordDict) else result
