"""Partitions of Fashion-MNIST as FLOps' mock data has them; run by the project's own Python.

fashion.py ROWS PARTITIONS FOLDER: writes `mnist.<n>.parquet` files, equal in size, IID. Columns
`image` (PNG, an Image of Hugging Face's datasets) and `label` (a ClassLabel).
"""

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

FROM = Path("/usr/share/datasets/fashion-mnist")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": [str(n) for n in range(10)], "_type": "ClassLabel"},
}


def read(stem: str, header: int) -> np.ndarray:
    packed = (FROM / f"train-{stem}-ubyte.gz").read_bytes()
    return np.frombuffer(gzip.decompress(packed), dtype=np.uint8, offset=header)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


rows, partitions, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
images = read("images-idx3", 16).reshape(-1, 28, 28)[:rows]
labels = read("labels-idx1", 8)[:rows].astype(np.int64)
for number in range(partitions):
    mine = slice(number, rows, partitions)
    encoded = [{"bytes": png(image), "path": None} for image in images[mine]]
    table = pa.table({"image": pa.array(encoded, IMAGE), "label": labels[mine]})
    described = json.dumps({"info": {"features": FEATURES}})
    table = table.replace_schema_metadata({"huggingface": described})
    parquet.write_table(table, folder / f"mnist.{number}.parquet")
