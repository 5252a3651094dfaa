"""The arithmetic of the toy federation, free of Flower, so that a test can repeat it.

Every value is a multiple of a power of two and small enough that float32 holds each product and
sum exactly, as long as the weights of the sites add up to a power of two (at most 64). Then
neither the order of the replies nor the machine can show in the result: the final model is a
function of (seed, rounds, payload, the sites' numbers and weights).
"""

import hashlib

import numpy as np

STEP = 16  # a site's values are multiples of 1/STEP
SPREAD = 1024  # a site's own contribution, in units of 1/STEP


def initial(seed, payload_kb):
    """The model before round 1: one float32 matrix of about payload_kb KiB and a float64 bias."""
    rng = np.random.default_rng([seed, 0])
    rows = max(1, payload_kb)
    weights = rng.integers(-SPREAD, SPREAD, size=(rows, 256)).astype(np.float32) / STEP
    bias = rng.integers(-SPREAD, SPREAD, size=3).astype(np.float64) / STEP
    return {"weights": weights, "bias": bias}


def train(arrays, seed, site, server_round):
    """What one site answers: half of the global model, on the grid of 1/STEP, plus its own."""
    if list(arrays) == ["0"]:  # a row of bytes, as XGBoost's trees are; it grows by who and when
        grown = np.append(arrays["0"], [site, server_round])
        return {"0": grown.astype(np.uint8)}
    rng = np.random.default_rng([seed, 1, site, server_round])
    answer = {}
    for name in sorted(arrays):
        value = np.asarray(arrays[name])
        own = rng.integers(-SPREAD, SPREAD, size=value.shape).astype(value.dtype)
        answer[name] = (np.floor(value * (STEP / 2)) + own) / STEP
    return answer


def checksum(arrays):
    """A number that is exact in float64 and changes with any of the first 64 weights."""
    head = np.asarray(arrays["weights" if "weights" in arrays else "0"]).ravel()[:64].astype(np.float64)
    return float(np.dot(head, np.arange(1, head.size + 1)))


def average(replies, weights):
    """The weighted mean as FedAvg forms it."""
    total = sum(weights)
    mean = {}
    for reply, weight in zip(replies, weights):
        for name, value in reply.items():
            part = value * (weight / total)
            mean[name] = mean[name] + part if name in mean else part
    return mean


def expected(seed, rounds, payload_kb, sites):
    """The final model of an undisturbed run; `sites` is a list of (site, weight)."""
    arrays = initial(seed, payload_kb)
    for server_round in range(1, rounds + 1):
        replies = [train(arrays, seed, site, server_round) for site, _ in sites]
        arrays = average(replies, [weight for _, weight in sites])
    return arrays


def digest(arrays):
    """sha256 over names, types, shapes and bytes, names in order."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        sha.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()
