"""All rounds of one `start()`, run by the SuperLink; here only what Python was given to decide.

Without such a decision one message covers all rounds. Otherwise one message for each phase, and
the SuperLink waits between them.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import Result

from umbel.serverapp.channel import Channel, Lost, NotTaken, Refused, Silent, Unanswered

# A message lives as long as the phases it covers, and this long beyond: nodes may be waited for.
PATIENCE = 43_200.0  # seconds, as Flower's messages live
PLAN_REFUSED = 6  # Flower's error code for a precondition that does not hold
LOSSES_MAX = 3  # of answers to one step
log = logging.getLogger("flwr")

EvaluateFn = Callable[[int, ArrayRecord], "MetricRecord | None"]


class PlanRefused(Exception):
    """Nobody has been asked to train; the text is the SuperLink's reason."""


@dataclass(frozen=True)
class Plan:
    """How to train: `strategy` is the name of Flower's class, `values` what it is made with; so is
    `wrapper`, if there is one, with `around`."""

    strategy: str
    values: dict[str, bool | int | float | str]
    num_rounds: int
    timeout: float  # seconds, of each phase
    wrapper: str = ""
    around: dict[str, bool | int | float | str] = field(default_factory=dict)

    def to_record(self, stepped: bool) -> ConfigRecord:
        record = ConfigRecord({"strategy": self.strategy, "num-rounds": self.num_rounds})
        record["timeout"] = self.timeout
        record["stepped"] = stepped
        for name, value in self.values.items():
            record[f"param.{name}"] = value
        if self.wrapper:
            record["wrapper"] = self.wrapper
        for name, value in self.around.items():
            record[f"wrapper.param.{name}"] = value
        return record


@dataclass(frozen=True)
class Phase:
    """What one step has brought."""

    skipped: bool  # nobody was asked
    failures: int
    ended: bool  # it was the last
    metrics: MetricRecord  # as the SuperLink aggregates them
    replies: list[RecordDict]  # those it has used
    arrays: ArrayRecord | None  # the global model, if it was asked for


class Rounds:
    """One session with the SuperLink."""

    def __init__(self, channel: Channel, plan: Plan, own: dict[str, Callable]):
        """own  functions in place of Flower's, by the constructor's name for them."""
        self._channel, self._plan, self._own = channel, plan, own
        self._result = Result()

    def run(
        self,
        arrays: ArrayRecord,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
        evaluate_fn: EvaluateFn | None,
        summary: Callable[[], None],
    ) -> Result:
        """Everything, once.

        summary  logs what the strategy is.
        errors   PlanRefused; RuntimeError: the rounds have begun and cannot end.
        """
        began = time.monotonic()
        train_config = ConfigRecord() if train_config is None else train_config
        evaluate_config = ConfigRecord() if evaluate_config is None else evaluate_config
        log.info("\t├── Number of rounds: %d", self._plan.num_rounds)
        log.info("\t├── Initial arrays: %d (%.2f MB)", len(arrays), _megabytes(arrays))
        log.info("\t├── Config of train: %s", _shown(train_config))
        log.info("\t├── Config of evaluate: %s", _shown(evaluate_config))
        summary()
        stepped = bool(self._own) or evaluate_fn is not None
        start = RecordDict({"arrays": arrays, "plan": self._plan.to_record(stepped)})
        start["train-config"] = train_config
        start["evaluate-config"] = evaluate_config
        if stepped:
            self._step_by_step(start, arrays, evaluate_fn)
        else:
            self._at_once(start, arrays)
        log.info("")
        log.info("Strategy execution finished in %.2fs", time.monotonic() - began)
        log.info("")
        log.info("Final results:")
        for line in io.StringIO(str(self._result)):
            log.info("\t%s", line.rstrip("\n"))
        return self._result

    def _begin(self, start: RecordDict, ttl: float, stepped: bool) -> RecordDict:
        """The answer to a start: of a plan that steps at once, of another at its end."""
        try:
            return self._channel.ask("query.umbel_start", start, ttl)
        except NotTaken as error:
            raise PlanRefused(str(error)) from error
        except Refused as error:
            if stepped or error.code == PLAN_REFUSED:
                raise PlanRefused(str(error)) from error
            raise _failed(error) from error
        except Unanswered as error:
            raise _failed(error) from error

    # ---- one message for all rounds ---------------------------------------------------------

    def _at_once(self, start: RecordDict, initial: ArrayRecord) -> None:
        rounds, result = self._plan.num_rounds, self._result
        content = self._begin(start, 2 * rounds * self._plan.timeout + PATIENCE, False)
        for number in range(1, rounds + 1):
            self._log_round(number)
            self._keep("train", number, content.metric_records.get(f"train-{number}"))
            self._keep("evaluate", number, content.metric_records.get(f"evaluate-{number}"))
        arrays = _arrays(content)
        # Flower leaves the result's arrays empty when no round had a reply that it could use.
        if result.train_metrics_clientapp or arrays != initial:
            result.arrays = arrays

    # ---- one message for each phase ---------------------------------------------------------

    def _step_by_step(
        self, start: RecordDict, arrays: ArrayRecord, evaluate_fn: EvaluateFn | None
    ) -> None:
        content = self._begin(start, self._plan.timeout + PATIENCE, True)
        session = content.config_records.get("session", {}).get("session")
        if not isinstance(session, str):
            raise RuntimeError("the SuperLink has not named the session that it began")
        self._evaluate_here(0, arrays, evaluate_fn)
        trained = ended = False
        step = 0
        while not ended and step < 2 * self._plan.num_rounds:
            number, evaluating = step // 2 + 1, step % 2 == 1
            step += 1
            kind = "evaluate" if evaluating else "train"
            if not evaluating:
                self._log_round(number)
            wanted = evaluating and (evaluate_fn is not None or number == self._plan.num_rounds)
            phase = self._step(session, step, number, kind, wanted)
            ended = phase.ended
            if ended and phase.arrays is None:
                phase = self._step(session, step, number, kind, True)
            trained |= kind == "train" and bool(phase.replies)
            arrays = arrays if phase.arrays is None else phase.arrays
            self._keep(kind, number, self._aggregated(kind, phase))
            if evaluating:
                self._evaluate_here(number, arrays, evaluate_fn)
        if trained:
            self._result.arrays = arrays

    def _step(self, session: str, step: int, number: int, kind: str, arrays: bool) -> Phase:
        """Ask for the step until there is an answer; asking again does nothing twice."""
        ask = ConfigRecord({"session": session, "step": step, "arrays": arrays})
        losses = 0
        while True:
            try:
                content = self._channel.ask(
                    "query.umbel_step", RecordDict({"step": ask}), self._plan.timeout + PATIENCE
                )
                return _read_phase(content, step, number, kind, arrays)
            except Silent:  # nodes are waited for as long as it takes, as in Flower
                log.info("[ROUND %s/%s] is still waiting", number, self._plan.num_rounds)
            except Lost as error:
                losses += 1
                if losses == LOSSES_MAX:
                    raise _failed(error) from error
            except Unanswered as error:
                raise _failed(error) from error

    def _aggregated(self, kind: str, phase: Phase) -> MetricRecord | None:
        if not phase.skipped:
            log.info(
                "aggregate_%s: Received %d results and %d failures",
                kind, len(phase.replies), phase.failures,
            )  # fmt: skip
        if not phase.replies:
            return None
        own = self._own.get(f"{kind}_metrics_aggr_fn")
        if own is None:
            return phase.metrics
        return own(phase.replies, str(self._plan.values["weighted_by_key"]))

    def _evaluate_here(
        self, number: int, arrays: ArrayRecord, evaluate_fn: EvaluateFn | None
    ) -> None:
        if evaluate_fn is None:
            return
        metrics = evaluate_fn(number, arrays)
        log.info("Global evaluation of round %d: %s", number, metrics)
        if metrics is not None:
            self._result.evaluate_metrics_serverapp[number] = metrics

    # ---- both -------------------------------------------------------------------------------

    def _keep(self, kind: str, number: int, metrics: MetricRecord | None) -> None:
        if metrics is None:
            return
        log.info("\t└──> Aggregated MetricRecord of %s: %s", kind, metrics)
        train, result = kind == "train", self._result
        kept = result.train_metrics_clientapp if train else result.evaluate_metrics_clientapp
        kept[number] = metrics

    def _log_round(self, number: int) -> None:
        log.info("")
        log.info("[ROUND %s/%s]", number, self._plan.num_rounds)


def _failed(error: Unanswered) -> RuntimeError:
    return RuntimeError(f"the rounds in the SuperLink have failed: {error}")


def _read_phase(content: RecordDict, step: int, number: int, kind: str, arrays: bool) -> Phase:
    told = content.config_records.get("step", {})
    got, expected = (told.get("step"), told.get("round"), told.get("kind")), (step, number, kind)
    if got != expected:
        raise RuntimeError(f"the SuperLink tells of step, round, kind {got}, asked for {expected}")
    replies = [
        RecordDict({"metrics": metrics})
        for name, metrics in content.metric_records.items()
        if name.startswith("reply-")
    ]
    return Phase(
        skipped=bool(told.get("skipped", False)),
        failures=int(told.get("failures", 0)),
        ended=bool(told.get("ended", False)),
        metrics=content.metric_records.get("metrics", MetricRecord()),
        replies=replies,
        arrays=_arrays(content) if arrays else None,
    )


def _arrays(content: RecordDict) -> ArrayRecord:
    arrays = content.array_records.get("arrays")
    if arrays is None:
        raise RuntimeError("the SuperLink's answer has no arrays")
    return arrays


def _megabytes(arrays: ArrayRecord) -> float:
    return sum(len(array.data) for array in arrays.values()) / 2**20


def _shown(config: ConfigRecord) -> str:
    shown = {name: "<bytes>" if isinstance(v, bytes) else v for name, v in config.items()}
    return str(shown) if shown else "(empty!)"
