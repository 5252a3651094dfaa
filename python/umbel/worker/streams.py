"""Random streams over a fork.

Upstream runs each message in a new process, so a stream that nobody seeded is a fresh one for
each message, and one that the app seeds while it is imported begins anew each time. A forked child
gets the same: `Watch` looks on while the app is imported, and in the child every stream is started
freshly unless it was seeded. What the app seeds inside a call is its own matter.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

# torch draws its first seed from 53 random bits; people and libraries choose from 32.
_TORCH_CHOSEN_MAX = 1 << 32


class Watch:
    """Which random streams there are after an import, and who seeded them."""

    def __init__(self) -> None:
        self._seeded: dict[str, bool] = {}  # the two global streams: by module
        self._instances: dict[int, tuple[weakref.ref[Any], bool]] = {}  # random.Random: seeded
        self._drawn: set[int] = set()  # entropy that NumPy took from the system
        self._bit_generators: list[Any] = []  # NumPy's, seeded with such entropy
        self._random_state: Any = None
        self._torch_seeded = False

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Wraps the import of the app."""
        numpy_random = getattr(sys.modules.get("numpy"), "random", None)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_replaced(random, "seed", self._global_seed("random")))
            stack.enter_context(_replaced(random, "setstate", self._global_state("random")))
            stack.enter_context(_replaced(random.Random, "seed", self._instance_seed))
            if numpy_random is not None:
                stack.enter_context(_replaced(numpy_random, "seed", self._global_seed("numpy")))
                stack.enter_context(
                    _replaced(numpy_random, "set_state", self._global_state("numpy"))
                )
                source = getattr(numpy_random, "bit_generator", None)
                stack.enter_context(_replaced(source, "randbits", self._draw))
            yield
        self._look()

    def _look(self) -> None:
        numpy_random = getattr(sys.modules.get("numpy"), "random", None)
        if numpy_random is not None:
            for found in gc.get_objects():
                if isinstance(found, numpy_random.BitGenerator):
                    sequence = getattr(found, "seed_seq", None) or getattr(found, "_seed_seq", None)
                    entropy = getattr(sequence, "entropy", None)
                    if isinstance(entropy, int) and entropy in self._drawn:
                        self._bit_generators.append(found)
        if self._seeded.get("random"):
            self._random_state = random.getstate()
        torch = sys.modules.get("torch")
        if torch is not None:
            with contextlib.suppress(Exception):
                self._torch_seeded = torch.initial_seed() < _TORCH_CHOSEN_MAX

    def start_afresh(self) -> None:
        """In the child."""
        if self._random_state is not None:
            random.setstate(self._random_state)  # Python itself seeds it anew after a fork
        else:
            random.seed()
        for reference, seeded in self._instances.values():
            instance = reference()
            if instance is not None and not seeded:
                instance.seed()
        numpy_random = getattr(sys.modules.get("numpy"), "random", None)
        if numpy_random is not None:
            if not self._seeded.get("numpy"):
                numpy_random.seed()
            for generator in self._bit_generators:
                generator.state = type(generator)().state
        torch = sys.modules.get("torch")
        if torch is not None and not self._torch_seeded:
            with contextlib.suppress(Exception):
                torch.default_generator.seed()

    def _global_seed(self, module: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
            def seed(*args: Any, **kwargs: Any) -> Any:
                chosen = [*args, *kwargs.values()]
                self._seeded[module] = bool(chosen) and chosen[0] is not None
                return original(*args, **kwargs)

            return seed

        return replacement

    def _global_state(self, module: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
            def set_state(*args: Any, **kwargs: Any) -> Any:
                self._seeded[module] = True
                return original(*args, **kwargs)

            return set_state

        return replacement

    def _instance_seed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def seed(instance: Any, *args: Any, **kwargs: Any) -> Any:
            chosen = [*args, *kwargs.values()]
            seeded = bool(chosen) and chosen[0] is not None
            with contextlib.suppress(TypeError):  # a subclass without weak references
                self._instances[id(instance)] = (weakref.ref(instance), seeded)
            return original(instance, *args, **kwargs)

        return seed

    def _draw(self, original: Callable[[int], int]) -> Callable[[int], int]:
        def randbits(count: int) -> int:
            entropy = original(count)
            self._drawn.add(entropy)
            return entropy

        return randbits


@contextlib.contextmanager
def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.name` is `make(owner.name)` for a while; nothing happens where there is none."""
    original = getattr(owner, name, None)
    if original is None:
        yield
        return
    replacement = make(original)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if getattr(owner, name) is replacement:
            setattr(owner, name, original)
