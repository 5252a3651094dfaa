"""Multinomial logistic regression over pixels; each round goes on from the global model.

Training waits while there is a file `hold` in the learner's home, so that tests have time.
"""

import os
import time
import warnings
from pathlib import Path
from typing import Any, Tuple

import numpy as np
from data_manager import DataManager
from flops_utils.ml_repo_templates import ModelManagerTemplate
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

HOLD = Path(os.environ.get("HOME", "/"), "hold")


class ModelManager(ModelManagerTemplate):
    def __init__(self):
        self.model = LogisticRegression(max_iter=5, warm_start=True)
        self.model.classes_ = np.arange(10)
        self.model.n_features_in_ = 64
        self.model.coef_ = np.zeros((10, 64))
        self.model.intercept_ = np.zeros(10)

    def set_model_data(self) -> None:
        (self.x_train, self.y_train), (self.x_test, self.y_test) = DataManager().get_data()

    def get_model(self) -> Any:
        return self.model

    def get_model_parameters(self) -> Any:
        return [self.model.coef_, self.model.intercept_]

    def set_model_parameters(self, parameters) -> None:
        self.model.coef_, self.model.intercept_ = parameters

    def fit_model(self) -> int:
        while HOLD.exists():
            time.sleep(0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(self.x_train, self.y_train)
        return len(self.x_train)

    def evaluate_model(self) -> Tuple[Any, Any, int]:
        probabilities = self.model.predict_proba(self.x_test)
        loss = log_loss(self.y_test, probabilities, labels=self.model.classes_)
        return loss, self.model.score(self.x_test, self.y_test), len(self.x_test)
