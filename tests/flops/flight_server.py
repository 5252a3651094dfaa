"""A data server in a few lines, run by the project's own Python: every Parquet file of a folder.

flight_server.py LOCATION FOLDER: serves until its standard input ends. A file `<tag>.<…>.parquet`
has that tag, as FLOps' ml-data-server has it.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet
from pyarrow import flight


class Server(flight.FlightServerBase):
    def __init__(self, location: str, folder: Path):
        super().__init__(location)
        self._folder = folder

    def list_flights(self, context, criteria):
        tags = json.loads(criteria)["data_tags"]
        for path in sorted(self._folder.glob("*.parquet")):
            if path.name.split(".")[0] in tags:
                name = path.name.encode()
                endpoint = flight.FlightEndpoint(name, [])
                schema = parquet.read_schema(path)
                yield flight.FlightInfo(
                    schema, flight.FlightDescriptor.for_path(name), [endpoint], -1, -1
                )

    def do_get(self, context, ticket):
        table = parquet.read_table(self._folder / ticket.ticket.decode())
        return flight.RecordBatchStream(table)


with Server(sys.argv[1], Path(sys.argv[2])):
    print("serving", flush=True)
    sys.stdin.read()
