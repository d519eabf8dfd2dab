"""What the benchmarks say of the machine, and the speed of its matrix products, against which real work is held."""

import time
from collections.abc import Callable

import torch

from tesserec import environment


def describe() -> str:
    """One line: hardware, threads, versions."""
    machine = environment.hardware()
    versions = ", ".join(
        f"{name} {version}" for name, version in environment.installed("torch", "transformers").items()
    )
    devices = ", ".join([f"{machine['cpu']}, {machine['cores']} cores", *machine["gpus"]])
    return f"{devices}, {torch.get_num_threads()} threads; {versions}"


def best_seconds(work: Callable[[], object], *, repeats: int) -> float:
    """The fastest of some runs: what the work takes when nothing else disturbs it."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matrix_peak(dtype: torch.dtype, *, size: int = 2048) -> float:
    """Floating-point operations per second of a square matrix product."""
    a, b = torch.randn(2, size, size).to(dtype)
    return 2 * size**3 / best_seconds(lambda: a @ b, repeats=8)
