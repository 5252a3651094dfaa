"""Sends one message a step to every node, and writes down what comes back."""

import json
import os
import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    while len(nodes := sorted(grid.get_node_ids())) < config["min-nodes"]:
        time.sleep(0.1)
    answers = []
    for step in config["steps"].split(","):
        content = RecordDict({"config": ConfigRecord({"step": step})})
        messages = [Message(content, node, "query") for node in nodes]
        begin = time.monotonic()
        for reply in grid.send_and_receive(messages, timeout=config["timeout"]):
            answer = {"step": step, "src": reply.metadata.src_node_id}
            answer["seconds"] = time.monotonic() - begin
            if reply.has_error():
                answer.update(code=reply.error.code, reason=reply.error.reason)
            else:
                answer.update(code=None, metrics=dict(reply.content["metrics"]))
            answers.append(answer)
    with open(f"{config['output']}.part", "w") as file:
        json.dump(answers, file, indent=1)
    os.replace(f"{config['output']}.part", config["output"])
