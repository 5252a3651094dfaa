"""A ClientApp of the older kind: a client_fn that makes a NumPyClient, behind a mod."""

from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    def fit(self, parameters, config):
        return [value + 1 for value in parameters], 7, {"seen": config["round"]}


def client_fn(context):
    return Client().to_client()


def mod(message, context, call_next):
    reply = call_next(message, context)
    reply.content.config_records["fitres.metrics"]["mod"] = True
    return reply


app = ClientApp(client_fn=client_fn, mods=[mod])
