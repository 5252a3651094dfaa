"""Stands where a Flower app must name a ServerApp: Umbel's SuperLink runs these rounds itself."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    raise RuntimeError("this app's rounds are run by an Umbel SuperLink, not by its ServerApp")
