"""`umbel-dataserver mock`: real images, cut and spread as asked, in the columns of FLOps' mock data."""

from __future__ import annotations

import collections
import concurrent.futures
import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.dataserver.server import get, names, run
from tests.harness.servers import free_port

FASHION = Path("/usr/share/datasets/fashion-mnist")


def mock(home, *words: str, ok: bool = True):
    done = run("mock", *words, home=home)
    assert (done.returncode == 0) == ok, done.stderr
    return done


def tables(server, tag: str) -> list[pa.Table]:
    client = server.client()
    return [get(client, name) for name in names(client, tag)]


def pixels(table: pa.Table) -> np.ndarray:
    return np.stack([np.array(Image.open(io.BytesIO(i["bytes"]))) for i in table["image"].to_pylist()])


def counted(images: np.ndarray, labels) -> collections.Counter:
    """How often each image with its label is there: what is left of a data set when order is not."""
    return collections.Counter((image.tobytes(), label) for image, label in zip(images, labels))


@pytest.fixture(scope="module")
def fashion() -> tuple[np.ndarray, np.ndarray]:
    if not FASHION.exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    images = gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FASHION / "train-labels-idx1-ubyte.gz").read_bytes())
    assert struct.unpack(">4I", images[:16]) == (0x0803, 60_000, 28, 28)
    shaped = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return shaped, np.frombuffer(labels, np.uint8, offset=8)


def test_fashion_mnist_over_two_servers(serve, tmp_path, fashion):
    one, two = serve(), serve()
    to = ("--to", one.location, "--to", two.location)
    words = ("--dataset", "fashion-mnist", "--partitions", "3", "--tag", "fashion", *to)
    said = mock(tmp_path, *words, "--rows", "3000").stdout
    assert said.count("1000 rows to") == 3
    here, there = tables(one, "fashion"), tables(two, "fashion")
    assert (len(here), len(there)) == (2, 1)
    whole = pa.concat_tables(here + there)
    images, labels = fashion
    assert counted(pixels(whole), whole["label"].to_pylist()) == counted(
        images[:3000], labels[:3000].tolist()
    )


def test_a_server_that_is_only_starting_is_waited_for(serve, tmp_path):
    port = free_port()
    words = ("--dataset", "digits", "--tag", "d", "--to", f"grpc://127.0.0.1:{port}")
    assert "refused" in mock(tmp_path, *words, ok=False).stderr
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(mock, tmp_path, *words, "--wait", "60")
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(0.5)
        server = serve(port=str(port))
        assert "1797 rows to" in waiting.result().stdout
    assert len(names(server.client(), "d")) == 1


def test_columns_and_metadata(server, tmp_path, fashion):
    mock(tmp_path, "--dataset", "mnist", "--rows", "50", "--tag", "mnist", "--to", server.location)
    (table,) = tables(server, "mnist")
    assert table.schema.field("label").type == pa.int64()
    assert table.schema.field("image").type == pa.struct(
        [("bytes", pa.binary()), ("path", pa.string())]
    )
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"]["_type"] == "ClassLabel"
    assert features["label"]["names"][0] == "T-shirt/top" and len(features["label"]["names"]) == 10
    first = Image.open(io.BytesIO(table["image"][0]["bytes"].as_py()))
    assert (first.format, first.mode, first.size) == ("PNG", "L", (28, 28))


def test_mnist_is_said_to_be_fashion(server, tmp_path, fashion):
    words = ("--dataset", "mnist", "--rows", "50", "--tag", "mnist", "--to", server.location)
    assert "there is no real MNIST here" in mock(tmp_path, *words).stdout


def test_digits(server, tmp_path):
    mock(tmp_path, "--dataset", "digits", "--partitions", "4", "--tag", "d", "--to", server.location)
    parts = tables(server, "d")
    assert sorted(len(part) for part in parts) == [449, 449, 449, 450]
    whole = pa.concat_tables(parts)
    assert pixels(whole).shape == (1797, 8, 8)
    assert pixels(whole).max() == 255
    assert np.bincount(whole["label"].to_numpy()).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip


def test_the_seed_decides(serve, tmp_path):
    servers = [serve() for _ in range(3)]
    for server, seed in zip(servers, "778"):
        words = ("--dataset", "digits", "--partitions", "2", "--tag", "d", "--seed", seed)
        mock(tmp_path, *words, "--to", server.location)
    one, same, other = (server.files() for server in servers)
    assert one == same and not set(one) & set(other)


def test_dirichlet_skews_and_loses_nothing(server, tmp_path):
    words = ("--dataset", "digits", "--partitions", "4", "--scheme", "dirichlet", "--alpha", "0.2")
    mock(tmp_path, *words, "--tag", "d", "--to", server.location)
    parts = tables(server, "d")
    assert sum(len(part) for part in parts) == 1797
    shares = [np.bincount(p["label"].to_numpy(), minlength=10).max() / len(p) for p in parts]
    assert np.mean(shares) > 0.2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dataset", "cifar10", "--tag", "d"], "cifar10"),
        (["--dataset", "digits", "--tag", ""], "data tag '' is empty"),
        (["--dataset", "digits", "--tag", "d", "--partitions", "0"], "partitions"),
        (["--dataset", "digits", "--tag", "d", "--partitions", "1798"], "1797 rows for 1798"),
        (["--dataset", "digits", "--tag", "d", "--digits-file", "none.gz"], "none.gz"),
        (["--dataset", "mnist", "--tag", "d", "--fashion-mnist-dir", "none"], "none/train-images"),
        (["--dataset", "digits", "--tag", "d", "--scheme", "dirichlet", "--alpha", "0"], "alpha"),
    ],
)
def test_what_cannot_be_made_is_said(server, tmp_path, words, says):
    done = mock(tmp_path, *words, "--to", server.location, ok=False)
    assert says in done.stderr
    assert server.files() == []


def test_a_server_that_is_not_there_is_named_before_anything_is_put(server, tmp_path):
    words = ("--dataset", "digits", "--partitions", "2", "--tag", "d", "--to", server.location)
    done = mock(tmp_path, *words, "--to", "grpc://127.0.0.1:1", ok=False)
    assert "grpc://127.0.0.1:1" in done.stderr
    assert server.files() == []
