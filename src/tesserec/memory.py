"""The most memory that a piece of work held at one time.

The process's figure is resident memory: weights, data, libraries, and memory-mapped files as far as they were read. The
peak is set back when the work begins, where the system can do that (Linux); what the process holds then is counted,
whoever asked for it. Elsewhere it is the peak since the process began. Other processes are not counted.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class PeakMemory:
    """Bytes, and what they are of."""

    process_bytes: int | None  # resident; None: the system does not say
    since: str  # "the work began" or "the process began"
    gpu_bytes: int | None  # that torch had given out on all its GPUs, its reserve not counted; None without a GPU

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class MemoryMeter:
    """Measures from its making on."""

    def __init__(self) -> None:
        self._since = "the work began" if _set_back() else "the process began"
        if torch.cuda.is_available():
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> PeakMemory:
        """So far. A meter that was made later has set this one back, too."""
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        on_gpus = [torch.cuda.max_memory_allocated(device) for device in gpus]
        return PeakMemory(_process_peak(), self._since, sum(on_gpus) if on_gpus else None)


def _set_back() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak alone; see proc_pid_clear_refs(5)
    except OSError:
        return False
    return True


def _process_peak() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
