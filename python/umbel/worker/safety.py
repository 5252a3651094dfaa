"""Whether a process may fork once it has imported an app: docs/worker-protocol.md, "Forking".

A child has the main thread only, and what another thread was doing stays half done: locks held,
pools without workers. It also loses the descriptors that the import opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import sys
import tempfile
import threading

from . import linux

_OPENBLAS = re.compile(r"/\S*openblas\S*\.so\S*")
# Devices without a state that a child could miss.
_HARMLESS = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}


class Before:
    """What is open and running before the app is imported."""

    def __init__(self) -> None:
        self.descriptors = linux.descriptors()
        self.children = linux.children()


def obstacles(before: Before) -> list[str]:
    """What was found that a fork would break, in words; none: forking is safe."""
    python_threads = [t for t in threading.enumerate() if t is not threading.main_thread()]
    found = [f"thread {thread.name!r} is running" for thread in python_threads]
    found += _accelerators()
    found += _threads_of_libraries(len(python_threads))
    gc.collect()  # files that were only forgotten are closed
    for fd, target in linux.descriptors().items():
        if before.descriptors.get(fd) != target and target not in _HARMLESS:
            found.append(f"descriptor {fd} is open: {target}")
    strays = linux.children() - before.children
    found += [f"process {pid} was started" for pid in sorted(strays)]
    if any(isinstance(thing, tempfile.TemporaryDirectory) for thing in gc.get_objects()):
        found.append("a temporary directory, which the first child's end would remove")
    return found


def _accelerators() -> list[str]:
    found = []
    with contextlib.suppress(Exception):
        if sys.modules["torch"].cuda.is_initialized():
            found.append("CUDA is initialised")
    with contextlib.suppress(Exception):
        if sys.modules["jax._src.xla_bridge"]._backends:
            found.append("a backend of jax is initialised")
    with contextlib.suppress(Exception):
        context = sys.modules["tensorflow.python.eager.context"]._context
        if context is not None and context._context_handle is not None:
            found.append("TensorFlow's context is initialised")
    return found


def _threads_of_libraries(python_threads: int) -> list[str]:
    names = linux.threads()[1:]
    others = len(names) - python_threads - _openblas_threads()
    if others <= 0:
        return []
    named = ", ".join(sorted(set(names)))
    return [f"{others} thread(s) of a native library (OpenMP or the like) are running: {named}"]


def _openblas_threads() -> int:
    """Workers of the OpenBLAS copies loaded here. It stops them before a fork and starts new ones.

    They run from the moment it is loaded, so they are known exactly.
    """
    with open("/proc/self/maps", errors="replace") as file:
        paths = set(_OPENBLAS.findall(file.read()))
    count = 0
    for path in paths:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for prefix in ("", "scipy_"):
            for suffix in ("", "64_"):
                with contextlib.suppress(AttributeError):
                    parallel = getattr(library, f"{prefix}openblas_get_parallel{suffix}")
                    number = getattr(library, f"{prefix}openblas_get_num_threads{suffix}")
                    if parallel() == 1:  # threads of its own, not OpenMP's
                        count += number() - 1
    return count
