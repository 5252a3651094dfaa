"""Flower's strategies, with their rounds run by the SuperLink where it can.

    from umbel.serverapp import FedAvg  # instead of: from flwr.serverapp.strategy import FedAvg

Each class is a subclass of Flower's class of that name: same constructor, same `start()`, same
Result. On a SuperLink that runs rounds itself, `start()` hands it the plan and the initial arrays
and waits; on any other, and whenever Python has to decide something in a round, it is Flower's own
`start()`. One line in the log says which, and why.
"""

from umbel.serverapp.strategies import (
    Bulyan,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
)

__all__ = [
    "Bulyan",
    "DifferentialPrivacyServerSideAdaptiveClipping",
    "DifferentialPrivacyServerSideFixedClipping",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedMedian",
    "FedProx",
    "FedTrimmedAvg",
    "FedXgbBagging",
    "FedXgbCyclic",
    "FedYogi",
    "Krum",
    "MultiKrum",
    "QFedAvg",
]
