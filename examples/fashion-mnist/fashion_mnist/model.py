"""A network with one hidden layer (ReLU, softmax), as plain functions over named arrays."""

import numpy as np
from flwr.app import Array, ArrayRecord

from .data import Dataset

Weights = dict[str, np.ndarray]

INPUTS, CLASSES = 784, 10
MOMENTUM = 0.9


def initial_weights(hidden: int, seed: int) -> Weights:
    rng = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int) -> np.ndarray:
        # He initialisation, right for ReLU.
        return (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32)

    return {
        "hidden.weight": layer(INPUTS, hidden),
        "hidden.bias": np.zeros(hidden, np.float32),
        "output.weight": layer(hidden, CLASSES),
        "output.bias": np.zeros(CLASSES, np.float32),
    }


def to_record(weights: Weights) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


def from_record(record: ArrayRecord) -> Weights:
    return {name: array.numpy().copy() for name, array in record.items()}


def _forward(weights: Weights, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activations of the hidden layer, and the probability of each class."""
    hidden = np.maximum(images @ weights["hidden.weight"] + weights["hidden.bias"], 0)
    scores = hidden @ weights["output.weight"] + weights["output.bias"]
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return hidden, scores


def _gradients(weights: Weights, images: np.ndarray, labels: np.ndarray) -> Weights:
    """Of the mean cross-entropy over the batch."""
    hidden, error = _forward(weights, images)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    back = (error @ weights["output.weight"].T) * (hidden > 0)
    return {
        "hidden.weight": images.T @ back,
        "hidden.bias": back.sum(axis=0),
        "output.weight": hidden.T @ error,
        "output.bias": error.sum(axis=0),
    }


def train(
    weights: Weights,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> None:
    """Stochastic gradient descent with momentum; changes the weights in place."""
    velocity = {name: np.zeros_like(array) for name, array in weights.items()}
    for _ in range(epochs):
        order = rng.permutation(len(data))
        for start in range(0, len(order), batch_size):
            batch = data.take(order[start : start + batch_size])
            for name, gradient in _gradients(weights, batch.images, batch.labels).items():
                velocity[name] *= MOMENTUM
                velocity[name] -= learning_rate * gradient
                weights[name] += velocity[name]


def evaluate(weights: Weights, data: Dataset) -> tuple[float, float]:
    """Mean cross-entropy, and the share of images named rightly."""
    _, probabilities = _forward(weights, data.images)
    of_truth = probabilities[np.arange(len(data)), data.labels]
    loss = -np.log(np.maximum(of_truth, 1e-12)).mean()
    accuracy = (probabilities.argmax(axis=1) == data.labels).mean()
    return float(loss), float(accuracy)
