"""The processes that carry out the runs of a suite, one run each at a time.

Threads of this process hand out the work and listen; a worker that dies is replaced.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from tesserec.artifacts import write_json
from tesserec.bench.worker import Work
from tesserec.environment import usable_cores
from tesserec.errors import ConfigError
from tesserec.progress import Progress, Task

Item = TypeVar("Item")

SECONDS_TO_NOTICE = 0.2  # Ctrl-C, of which a longer wait is not told: polars handles the signal so that waits go on
WORKER = """\
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C of a terminal, too: the suite ends its workers, and no run failed
from tesserec.bench.worker import main
main()
"""
FAILURE = "failure.json"  # in the folder of a run that failed; gone once it succeeds


@dataclass(frozen=True)
class Failure:
    """Why a run has no result."""

    label: str
    error: str


@dataclass
class _Place:
    """Room for one worker."""

    number: int
    process: "subprocess.Popen[str] | None" = None  # started when it is first needed, and again after it died

    def close(self) -> None:
        """End the worker, which has nothing more to do."""
        if self.process is not None:
            with self.process:  # closes the pipes and waits
                self.process.kill()
            self.process = None


def require_room(size: int) -> None:
    """Refuse a number of workers that there are no cores for.

    Raises:
        ConfigError: fewer than one worker, or more than cores.
    """
    cores = usable_cores()
    if not 1 <= size <= cores:
        raise ConfigError(f"workers is {size}. Use 1 to {cores}, the cores that this process may use.")


class Crew:
    """`size` workers, each with its share of the cores and, where there are GPUs, one of them.

    with Crew(2, progress) as crew:
        crew.each(lambda job: crew.carry_out(job.label, work_of(job)), jobs)
    """

    def __init__(self, size: int, progress: Progress) -> None:
        """
        Raises:
            ConfigError: as `require_room`.
        """
        require_room(size)
        self._progress, self._size = progress, size
        self._threads = usable_cores() // size
        self._places = [_Place(number) for number in range(size)]
        self._free: SimpleQueue[_Place] = SimpleQueue()
        for place in self._places:
            self._free.put(place)
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for place in self._places:
            place.close()

    def each(self, work: Callable[[Item], Any], items: Sequence[Item]) -> None:
        """Call `work` for every item, as many at a time as there are workers; inside it, `carry_out` uses one of them.

        An exception (Ctrl-C, too) ends all workers and is raised again.
        """
        with ThreadPoolExecutor(self._size) as pool:
            try:
                waiting = {pool.submit(work, item) for item in items}
                while waiting:
                    done, waiting = wait(waiting, timeout=SECONDS_TO_NOTICE, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:
                self._given_up = True
                pool.shutdown(wait=False, cancel_futures=True)
                for place in self._places:
                    if place.process is not None:
                        place.process.kill()
                raise

    def carry_out(self, label: str, work: Work) -> Failure | None:
        """Do one run in a worker; a failure is also kept in the folder of the run, with its traceback."""
        note = Path(work.out) / FAILURE
        note.unlink(missing_ok=True)
        place = self._free.get()
        try:
            end = self._done_by(place, label, work)
        finally:
            self._free.put(place)
        if "failed" not in end or self._given_up:
            return None
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"run": label, "error": end["failed"], "trace": end.get("trace")})
        return Failure(label, end["failed"])

    def _done_by(self, place: _Place, label: str, work: Work) -> dict[str, Any]:
        """The last message of a worker about a job: `done` or `failed`."""
        if self._given_up:
            return {}
        process = place.process = place.process or self._start(place.number)
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asdict(work)) + "\n")
            process.stdin.flush()
            end = self._listen(process, label)
        except BrokenPipeError:
            end = None
        if end is not None:
            return end
        code = process.wait()
        place.close()
        cause = f"signal {-code}, perhaps for want of memory" if code < 0 else f"exit code {code}"
        return {"failed": f"its process ended by {cause}"}

    def _start(self, number: int) -> "subprocess.Popen[str]":
        environment = {"OMP_NUM_THREADS": str(self._threads), **os.environ}
        gpus = _gpus() if self._size > 1 else []
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        return subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER, str(os.getpid())],  # -P: nothing of this folder is imported
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        )

    def _listen(self, process: "subprocess.Popen[str]", label: str) -> dict[str, Any] | None:
        """Pass on what a worker says, until it is done; None: its process ended before."""
        assert process.stdout is not None
        with ExitStack() as stack:
            open_tasks = list[tuple[ExitStack, Task]]()
            for line in process.stdout:
                message = json.loads(line)
                if "say" in message:
                    self._progress.say(f"  {label}: {message['say']}")
                elif "task" in message:
                    entered = stack.enter_context(ExitStack())
                    name, total = message["task"]
                    open_tasks.append((entered, entered.enter_context(self._progress.task(f"{label}: {name}", total))))
                elif "advance" in message:
                    amount, words = message["advance"]
                    open_tasks[-1][1].advance(amount, note=words)
                elif "end" in message:
                    open_tasks.pop()[0].close()
                else:
                    return dict(message)
        return None


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be set to, one entry for each GPU that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name for name in allowed.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
