"""What the SuperLink has to know of one strategy object, and whether that is all there is to know.

A strategy that does in any way other than Flower's class would, because it is a subclass with its
own methods, or was patched, or has been at work already, must run in Python.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator

import numpy as np

AGGREGATORS = ("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn")
WRAPPED = "strategy"  # the parameter, and attribute, of what a wrapper wraps
# Parameters that an object keeps under another name, as far as they have moved since.
_KEPT_AS = {"initial_clipping_norm": "clipping_norm"}
_MISSING = object()
# Each drop-in class, with what the classes it is made of contained when it was made.
_drop_ins: dict[type, dict[type, dict[str, object]]] = {}


class NeedsPython(Exception):
    """The text says why."""


def drop_in(cls: type) -> type:
    """Class decorator: this class stands for Flower's class of that name."""
    _drop_ins[cls] = {part: _behaviour(part) for part in cls.__mro__ if part is not object}
    return cls


def drop_in_of(strategy: object) -> type:
    """The drop-in class that this object is of, itself or by inheritance."""
    return next(cls for cls in type(strategy).__mro__ if cls in _drop_ins)


def inside(strategy: object) -> object | None:
    """What the strategy wraps, another drop-in class's; None: it wraps none.

    errors  NeedsPython: it wraps something else.
    """
    if WRAPPED not in inspect.signature(drop_in_of(strategy)).parameters:
        return None
    inner = vars(strategy).get(WRAPPED)
    if not any(cls in _drop_ins for cls in type(inner).__mro__):
        raise NeedsPython(f"it wraps a {type(inner).__qualname__}, not one of umbel.serverapp")
    if WRAPPED in inspect.signature(drop_in_of(inner)).parameters:
        raise NeedsPython("it wraps a wrapper")
    return inner


def read(strategy: object) -> tuple[dict[str, bool | int | float | str], dict[str, object]]:
    """The constructor's parameters that are values, as the object's attributes have them now; and
    its own functions among AGGREGATORS, for those that are not Flower's default. What it wraps is
    no value, and is left out.

    errors  NeedsPython.
    """
    cls = drop_in_of(strategy)
    _check_classes(type(strategy), cls)
    known = {name for part in _drop_ins[cls].values() for name in part}
    for name in vars(strategy):
        if name in known:
            raise NeedsPython(f"the strategy has a {name} of its own")
    values = _values(strategy, cls)
    wrapped = inside(strategy)
    fresh = _fresh(cls, values if wrapped is None else {WRAPPED: wrapped, **values})
    taken = {_KEPT_AS.get(name, name) for name in values}
    for name, expected in vars(fresh).items():
        if name in taken or name in AGGREGATORS:
            continue
        if not _same(vars(strategy).get(name, _MISSING), expected):
            raise NeedsPython(f"the strategy's {name} is not what its parameters make it")
    own = {
        name: getattr(strategy, name)
        for name in AGGREGATORS
        if getattr(strategy, name, None) is not getattr(fresh, name, None)
    }
    return values, own


def _behaviour(cls: type) -> dict[str, object]:
    """What of a class decides how its objects behave once they are made."""
    return {name: value for name, value in vars(cls).items() if _counts(name)}


def _counts(name: str) -> bool:
    if name.startswith("__"):
        return name in ("__getattribute__", "__getattr__")
    return name != "_abc_impl"


def _check_classes(actual: type, cls: type) -> None:
    made_of = _drop_ins[cls]
    known = {name for part in made_of.values() for name in part}
    for part in actual.__mro__:
        if part is object:
            continue
        now = _behaviour(part)
        if part not in made_of:
            for name in now:
                if name in known or name.startswith("__"):
                    raise NeedsPython(f"{part.__qualname__} overrides {name}")
            continue
        then = made_of[part]
        for name in now.keys() | then.keys():
            if now.get(name, _MISSING) is not then.get(name, _MISSING):
                raise NeedsPython(f"{part.__qualname__}.{name} was patched")


def _values(strategy: object, cls: type) -> dict[str, bool | int | float | str]:
    values = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if name == WRAPPED:
            continue
        value = vars(strategy).get(_KEPT_AS.get(name, name), _MISSING)
        if isinstance(value, np.generic):
            value = value.item()
        kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
        if kind is not None:
            values[name] = kind(value)
        elif parameter.default is inspect.Parameter.empty:
            raise NeedsPython(f"the parameter {name} is an object of Python")
    if "clipped_count_stddev" in values:
        values["noise_multiplier"] = _asked_noise(**values)
    return values


def _asked_noise(
    noise_multiplier: float, clipped_count_stddev: float, **_: bool | int | float | str
) -> float:
    """Adaptive clipping's noise_multiplier as its constructor got it. The object keeps what is left
    of it for the model, once the noise on the number of clipped replies has its part."""
    if noise_multiplier == 0:
        return 0.0
    if not (noise_multiplier > 0 and clipped_count_stddev > 0):
        raise NeedsPython("the strategy's noise_multiplier is not what its parameters make it")
    return (noise_multiplier**-2 + (2 * clipped_count_stddev) ** -2) ** -0.5


def _fresh(cls: type, values: dict[str, object]) -> object:
    """The object that these parameters make."""
    try:
        with _quiet():
            return cls(**values)
    except Exception as error:
        raise NeedsPython(f"Flower refuses the strategy's attributes: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Flower's constructors warn of some parameters; once is enough."""

    def nothing(_record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger("flwr")
    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


def _same(value: object, expected: object) -> bool:
    if value is expected:
        return True
    try:
        return type(value) is type(expected) and bool(value == expected)
    except Exception:  # NumPy: arrays have no one truth
        return False
