"""What this runs on: library versions, commit and hardware, for protocol cards and `tesserec doctor`."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tesserec.version import __version__


def library() -> dict[str, str | None]:
    """Version of Tesserec, and the commit where it runs from a checkout ("-dirty": with changes since)."""
    return {"version": __version__, "commit": _commit()}


def _commit() -> str | None:
    package = Path(__file__).resolve().parent
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        inside = subprocess.run(
            [*command[:3], "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=10, check=False
        )
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if inside.returncode == 0 else None


def installed(*distributions: str) -> dict[str, str | None]:
    """Version of each distribution, None where it is not installed; nothing is imported."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores, threads and accelerators, as torch sees them."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_features": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
