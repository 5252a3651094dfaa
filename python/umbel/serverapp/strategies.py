"""The drop-in classes. What they do differently from Flower's is in native.py."""

from __future__ import annotations

from flwr.serverapp import strategy as flower

from umbel.serverapp.instance import drop_in
from umbel.serverapp.native import NativeRounds


@drop_in
class FedAvg(NativeRounds, flower.FedAvg):
    """Flower's FedAvg."""


@drop_in
class FedProx(NativeRounds, flower.FedProx):
    """Flower's FedProx."""


@drop_in
class FedAvgM(NativeRounds, flower.FedAvgM):
    """Flower's FedAvgM."""


@drop_in
class FedAdagrad(NativeRounds, flower.FedAdagrad):
    """Flower's FedAdagrad."""


@drop_in
class FedAdam(NativeRounds, flower.FedAdam):
    """Flower's FedAdam."""


@drop_in
class FedYogi(NativeRounds, flower.FedYogi):
    """Flower's FedYogi."""


@drop_in
class QFedAvg(NativeRounds, flower.QFedAvg):
    """Flower's QFedAvg."""


@drop_in
class FedMedian(NativeRounds, flower.FedMedian):
    """Flower's FedMedian."""


@drop_in
class FedTrimmedAvg(NativeRounds, flower.FedTrimmedAvg):
    """Flower's FedTrimmedAvg."""


@drop_in
class Krum(NativeRounds, flower.Krum):
    """Flower's Krum."""


@drop_in
class MultiKrum(NativeRounds, flower.MultiKrum):
    """Flower's MultiKrum."""


@drop_in
class Bulyan(NativeRounds, flower.Bulyan):
    """Flower's Bulyan."""


@drop_in
class FedXgbBagging(NativeRounds, flower.FedXgbBagging):
    """Flower's FedXgbBagging."""


@drop_in
class FedXgbCyclic(NativeRounds, flower.FedXgbCyclic):
    """Flower's FedXgbCyclic."""


@drop_in
class DifferentialPrivacyServerSideFixedClipping(
    NativeRounds, flower.DifferentialPrivacyServerSideFixedClipping
):
    """Flower's DifferentialPrivacyServerSideFixedClipping."""


@drop_in
class DifferentialPrivacyServerSideAdaptiveClipping(
    NativeRounds, flower.DifferentialPrivacyServerSideAdaptiveClipping
):
    """Flower's DifferentialPrivacyServerSideAdaptiveClipping."""
