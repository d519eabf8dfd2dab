"""Waiting for the moment at which a process that trains is to be killed."""

import subprocess
import time
from pathlib import Path


def until_it_trains(process: "subprocess.Popen[bytes]", checkpoints: Path) -> None:
    """Wait for the first checkpoint in the folder `checkpoints` of a run, or of a suite's stages."""
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/checkpoint.pt")):
        assert process.poll() is None, "the process ended before it wrote a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.005)
