"""`start()` of the drop-in classes: who is to run the rounds?"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from umbel.serverapp.channel import Channel
from umbel.serverapp.instance import NeedsPython, drop_in_of, inside, read
from umbel.serverapp.rounds import Plan, PlanRefused, Rounds

ROUNDS_MAX = 1_000_000  # the SuperLink's own bounds
SECONDS_MAX = 1e9
log = logging.getLogger("flwr")


class NativeRounds:
    """Stands before one of Flower's strategies among the bases of a class."""

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Flower's `start()`: same arguments, same Result.

        errors  RuntimeError: the rounds have begun in the SuperLink, and it could not end them.
        """
        try:
            if not 1 <= num_rounds <= ROUNDS_MAX:
                raise NeedsPython(f"{num_rounds} rounds are not in [1, {ROUNDS_MAX}]")
            if timeout is None or not 0 < timeout <= SECONDS_MAX:
                raise NeedsPython(f"a timeout of {timeout} s is not in (0, {SECONDS_MAX:g}]")
            plan, own = _read_plan(self, int(num_rounds), float(timeout))
            channel = Channel(grid)
            _check_server(channel, [plan.strategy, *([plan.wrapper] if plan.wrapper else [])])
            around = f"{plan.wrapper} around {plan.strategy}" if plan.wrapper else plan.strategy
            log.info("Starting %s strategy, with its rounds in the SuperLink:", around)
            rounds = Rounds(channel, plan, own)
            return rounds.run(
                initial_arrays, train_config, evaluate_config, evaluate_fn, self.summary
            )
        except NeedsPython as reason:
            log.info("Rounds run in Python: %s", reason)
        except PlanRefused as reason:
            log.info("Rounds run in Python: the SuperLink refuses them: %s", reason)
        return super().start(
            grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn
        )


def _read_plan(
    strategy: object, num_rounds: int, timeout: float
) -> tuple[Plan, dict[str, Callable]]:
    """The plan, and what of it Python decides.

    errors  NeedsPython.
    """
    inner = inside(strategy)
    values, own = read(strategy)
    name = drop_in_of(strategy).__name__
    if inner is None:
        return Plan(name, values, num_rounds, timeout), own
    base, own = read(inner)
    return Plan(drop_in_of(inner).__name__, base, num_rounds, timeout, name, values), own


def _check_server(channel: Channel, names: list[str]) -> None:
    try:
        strategies = channel.probe()
    except Exception as error:  # whatever else it is, Flower's own start() will meet it
        raise NeedsPython(f"this SuperLink runs none itself ({error})") from error
    for name in names:
        if strategies is not None and name not in strategies:
            raise NeedsPython(f"this SuperLink runs no {name} itself")
