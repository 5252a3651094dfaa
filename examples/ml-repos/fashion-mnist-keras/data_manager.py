"""This learner's images, in random order: four fifths to train with, one fifth to measure with."""

from typing import Any, Tuple

import numpy as np
from flops_utils.ml_repo_building_blocks import load_dataset
from flops_utils.ml_repo_templates import DataManagerTemplate


class DataManager(DataManagerTemplate):
    def __init__(self):
        self.parts = self._prepare_data()

    def _prepare_data(self) -> Any:
        parts = load_dataset().with_format("numpy").train_test_split(test_size=0.2, seed=1)
        return [
            (np.asarray(part["image"], dtype=np.float32), np.asarray(part["label"]))
            for part in (parts["train"], parts["test"])
        ]

    def get_data(self) -> Tuple[Any, Any]:
        training_data, test_data = self.parts
        return training_data, test_data
