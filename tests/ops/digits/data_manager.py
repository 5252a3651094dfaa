"""Handwritten digits that scikit-learn brings along: each learner takes its own every-n-th rows."""

import os
from typing import Any, Tuple

from flops_utils.ml_repo_templates import DataManagerTemplate
from sklearn.datasets import load_digits

LEARNERS = 2


class DataManager(DataManagerTemplate):
    def __init__(self):
        self.training_data, self.test_data = self._prepare_data()

    def _prepare_data(self) -> Any:
        images, labels = load_digits(return_X_y=True)
        own = int(os.environ["UMBEL_LEARNER"]) % LEARNERS
        images, labels = images[own::LEARNERS] / 16, labels[own::LEARNERS]
        cut = len(images) * 4 // 5
        return (images[:cut], labels[:cut]), (images[cut:], labels[cut:])

    def get_data(self) -> Tuple[Any, Any]:
        return self.training_data, self.test_data
