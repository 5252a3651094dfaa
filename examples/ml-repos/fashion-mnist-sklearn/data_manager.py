"""This learner's images: four fifths to train with, one fifth to measure with."""

from typing import Any, Tuple

import numpy as np
from flops_utils.ml_repo_building_blocks import load_dataset
from flops_utils.ml_repo_templates import DataManagerTemplate


class DataManager(DataManagerTemplate):
    def __init__(self):
        self.training_data, self.test_data = self._prepare_data()

    def _prepare_data(self) -> Any:
        dataset = load_dataset().with_format("numpy")
        images = np.asarray(dataset["image"], dtype=np.float32)
        labels = np.asarray(dataset["label"])
        images = images.reshape(len(images), -1) / 255  # rows of pixels from 0 to 1
        cut = len(images) * 4 // 5
        return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])

    def get_data(self) -> Tuple[Any, Any]:
        return self.training_data, self.test_data
