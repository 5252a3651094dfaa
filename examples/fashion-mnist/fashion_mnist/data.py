"""Fashion-MNIST from its four gzip IDX files, and the part of it that one site owns."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The order in which sites share the training set: the same everywhere, or shares would overlap.
SPLIT_SEED = 20170825


@dataclass
class Dataset:
    """images: float32 [n, 784] in [0, 1]; labels: uint8 [n] in 0..9."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | slice) -> "Dataset":
        return Dataset(self.images[rows], self.labels[rows])


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of one IDX file: magic 0 0 8 <dimensions>, sizes as uint32, then the bytes."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    dimensions = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _load(folder: Path, stem: str, rows: np.ndarray | slice) -> Dataset:
    images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")[rows]
    labels = read_idx(folder / f"{stem}-labels-idx1-ubyte.gz")[rows]
    return Dataset(images.reshape(len(labels), -1).astype(np.float32) / 255, labels)


def load_test(folder: str) -> Dataset:
    """All 10 000 test images."""
    return _load(Path(folder), "t10k", slice(None))


def load_site(folder: str, data_from: float, data_to: float) -> tuple[Dataset, Dataset]:
    """One site's images, for training and for its own validation (the last tenth).

    data_from, data_to  the site's share of the shuffled 60 000: 0.0 to 0.7 is its first 70 %.
    """
    if not 0 <= data_from < data_to <= 1:
        raise ValueError(f"share {data_from} to {data_to}: not 0 <= data-from < data-to <= 1")
    order = np.random.default_rng(SPLIT_SEED).permutation(60_000)
    rows = order[round(data_from * len(order)) : round(data_to * len(order))]
    share = _load(Path(folder), "train", rows)
    cut = len(share) * 9 // 10
    return share.take(slice(None, cut)), share.take(slice(cut, None))
