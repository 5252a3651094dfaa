"""A network with one hidden layer; an epoch over the learner's images is a round."""

from typing import Any, Tuple

import keras
from data_manager import DataManager
from flops_utils.ml_repo_templates import ModelManagerTemplate


class ModelManager(ModelManagerTemplate):
    def __init__(self):
        self.model = keras.Sequential(
            [
                keras.Input((28, 28)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(96, activation="relu"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        self.model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    def set_model_data(self) -> None:
        (self.x_train, self.y_train), (self.x_test, self.y_test) = DataManager().get_data()

    def get_model(self) -> Any:
        return self.model

    def get_model_parameters(self) -> Any:
        return self.model.get_weights()

    def set_model_parameters(self, parameters) -> None:
        self.model.set_weights(parameters)

    def fit_model(self) -> int:
        self.model.fit(self.x_train, self.y_train, batch_size=64, epochs=1, verbose=2)
        return len(self.x_train)

    def evaluate_model(self) -> Tuple[Any, Any, int]:
        loss, accuracy = self.model.evaluate(self.x_test, self.y_test, batch_size=512, verbose=0)
        return loss, accuracy, len(self.x_test)
