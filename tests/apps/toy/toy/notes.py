"""Notes that both apps leave for a test: one line of JSON for each thing done."""

import json
import os
import time


def note(run_config, what, **more):
    """Append {"what", "pid", "time", ...} to the file named by the run config, if any."""
    path = run_config["trace"]
    if not path:
        return
    line = json.dumps({"what": what, "pid": os.getpid(), "time": time.time(), **more}) + "\n"
    with open(path, "ab", buffering=0) as file:  # one write: lines of several processes stay whole
        file.write(line.encode())
