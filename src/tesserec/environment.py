"""What this runs on: library versions, commit and hardware, for protocol cards and `tesserec doctor`."""

import os
import platform
import re
import subprocess
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from tesserec.errors import MissingDependencyError
from tesserec.version import __version__

CPU_FEATURES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "bf16")  # that decide how fast products are


def require_library(package: str, *, extra: str, purpose: str, module: str = "") -> Any:
    """An optional library's module, by default that of the package's own name.

    Raises:
        MissingDependencyError: it is not installed; the message names the extra that installs it.
    """
    try:
        return import_module(module or package.replace("-", "_"))
    except ImportError:
        raise MissingDependencyError(package, extra=extra, purpose=purpose) from None


def cache_folder() -> Path:
    """Where costly results are kept for all runs (embeddings of texts by networks): TESSEREC_CACHE, or the user's."""
    given = os.environ.get("TESSEREC_CACHE")
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else users / "tesserec"


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


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine's under `taskset`, Slurm, or a container's CPU set."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """Processor, cores, threads and accelerators, as torch sees them."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def diagnosis() -> dict[str, Any]:
    """What `tesserec doctor` says.

    Returns:
        `system`: versions, hardware, what training would use; `required` and `extras`: the libraries of each and their
        versions, None for what is missing; `install`: for every incomplete extra, the command that completes it.
    """
    import torch

    from tesserec.training.devices import resolve_device, resolve_precision

    device = resolve_device()
    able = torch.cpu.get_capabilities()
    libraries: dict[str, dict[str, str | None]] = {}
    for extra, name in _requirements():
        libraries.setdefault(extra, {}).update(installed(name))
    required = libraries.pop("")
    return {
        "system": {
            "tesserec": library(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            **hardware(),
            "cpu_features": [name for name in CPU_FEATURES if able.get(name)],
            "trains_on": str(device),
            "precision": str(resolve_precision("auto", device)).removeprefix("torch."),
        },
        "required": required,
        "extras": libraries,
        "install": {
            extra: f"pip install 'tesserec[{extra}]'"
            for extra, versions in libraries.items()
            if None in versions.values()
        },
    }


def _requirements() -> list[tuple[str, str]]:
    """(extra, distribution) of everything that this package can use; the extra is "" for what it always needs."""
    found = []
    for requirement in requires("tesserec") or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name:
            found.append((extra[1] if extra else "", name[0]))
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
