"""Stands in for the ClientApp, which is a C++ program: see main.cc and README.md."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
@app.evaluate()
def refuse(message: Message, context: Context) -> Message:
    raise NotImplementedError(
        "this app trains in C++: serve the site with build/release/examples/native_softmax "
        "instead of a SuperNode that runs Python"
    )
