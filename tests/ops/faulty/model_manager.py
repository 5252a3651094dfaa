"""A model of two numbers that does wrong as a data tag of its project says; else it is right.

One repository, and so one environment, for all faults.
"""

import os
import signal
from typing import Any, Tuple

import numpy as np
from flops_utils.ml_repo_building_blocks import load_dataset
from flops_utils.ml_repo_templates import ModelManagerTemplate

TAGS = os.environ.get("UMBEL_DATA_TAGS", "").split(",")


class ModelManager(ModelManagerTemplate):
    def __init__(self):
        self.weights = np.zeros(2)

    def set_model_data(self) -> None:
        if "data-raises" in TAGS:
            raise ValueError("no luck with data")
        if "digits" not in TAGS:
            self.data = load_dataset()

    def get_model(self) -> Any:
        return self.weights

    def get_model_parameters(self) -> Any:
        return [self.weights]

    def set_model_parameters(self, parameters) -> None:
        self.weights = parameters[0]

    def fit_model(self) -> int:
        if "fit-raises" in TAGS:
            raise ValueError("no luck with fit")
        if "fit-dies" in TAGS:
            os.kill(os.getpid(), signal.SIGKILL)
        if "fit-counts" in TAGS:
            return -3
        if "fit-nan" in TAGS:
            self.weights = np.array([1, np.nan])
        if "fit-shapes" in TAGS:
            self.weights = np.zeros((3, 2))
        return 10

    def evaluate_model(self) -> Tuple[Any, Any, int]:
        if "evaluate-raises" in TAGS:
            raise ValueError("no luck with evaluate")
        return 0.5, float("nan") if "evaluate-nan" in TAGS else 0.5, 10
