"""The learner's data, as flops_utils asks for it: from the Arrow Flight server of its node.

UMBEL_DATA       where that is: grpc+unix:///path/of/socket or grpc://host:port
UMBEL_DATA_TAGS  which data: tags, separated by commas
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

UNAVAILABLE_SECONDS = 60.0  # a data server that starts with us may take this long
TRANSFER_SECONDS = 900.0


class DataError(Exception):
    """Why there is no data: one sentence."""


def load_data_from_ml_data_server() -> Any:
    """All rows under our tags, as one datasets.Dataset in memory. errors  DataError."""
    location, tags = _wanted()
    try:
        import datasets
        import pyarrow as pa
        from pyarrow import flight
    except ImportError as error:  # flops_utils would end the process without a word of it
        raise DataError(f"the project's environment cannot load data: {error}") from error

    try:
        tables = _fetch(flight, location, tags)
    except (flight.FlightError, pa.ArrowException, OSError) as error:
        raise DataError(f"the data server at {location} failed: {_first_line(error)}") from error
    named = ", ".join(tags)
    if not tables:
        raise DataError(f"the data server at {location} has no data with the tags {named}")
    schema = tables[0].schema
    for number, table in enumerate(tables[1:], 2):
        if not table.schema.equals(schema, check_metadata=False):
            raise DataError(
                f"data with the tags {named} does not fit together: data set {number} has the "
                f"columns {_columns(table.schema)}, the first {_columns(schema)}"
            )
    whole = pa.concat_tables([table.replace_schema_metadata(schema.metadata) for table in tables])
    if not whole.num_rows:
        raise DataError(f"the data with the tags {named} has no rows")
    print(f"data: {whole.num_rows} rows with the tags {named}", flush=True)
    try:
        # What the schema says of images and classes, under the key `huggingface`, counts here.
        return datasets.Dataset(whole, split=datasets.Split.TRAIN)
    except Exception as error:
        raise DataError(f"the data with the tags {named} cannot be read: {_first_line(error)}")


def _wanted() -> tuple[str, list[str]]:
    location = os.environ.get("UMBEL_DATA", "")
    if not location:
        raise DataError("UMBEL_DATA does not say where this learner's data is")
    tags = [tag.strip() for tag in os.environ.get("UMBEL_DATA_TAGS", "").split(",")]
    tags = [tag for tag in tags if tag]
    if not tags:
        raise DataError("UMBEL_DATA_TAGS names no data; the project's data_tags must")
    return location, tags


def _fetch(flight: Any, location: str, tags: list[str]) -> list[Any]:
    criteria = json.dumps({"data_tags": tags}).encode()
    deadline = time.monotonic() + UNAVAILABLE_SECONDS
    waited = False
    while True:
        try:
            with flight.connect(location) as client:
                options = flight.FlightCallOptions(timeout=TRANSFER_SECONDS)
                found = client.list_flights(criteria, options)
                tickets = [end.ticket.ticket for info in found for end in info.endpoints]
                return [
                    client.do_get(flight.Ticket(ticket), options).read_all()
                    for ticket in sorted(tickets)  # the same order of rows each time
                ]
        except flight.FlightUnavailableError:
            if time.monotonic() > deadline:
                raise
            if not waited:
                print(f"data: waiting for the server at {location}", flush=True)
                waited = True
            time.sleep(0.2)


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:300]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
