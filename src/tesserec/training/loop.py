"""The one training loop.

A recommender brings a network and an `Objective` (which steps an epoch has, the loss of a part of a step); the loop
brings the rest: device, precision, several processes, optimiser, schedule, clipping, validation and early stopping,
checkpoints, progress. Killed at any moment and started again it ends with the same weights, because a step is a
function of its number: its data (`Objective.steps`), its random numbers (`seeds`), its learning rate (`schedules`).

Processes (started with `accelerate launch`) share out the parts of every step, so that any number of them takes
the same steps. Precision is torch's autocast around the loss and not Accelerate's: that one is fixed once per Python
process, and widens what the network returns to float32, so that the output product over all items would be done in it.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from tesserec.artifacts import fingerprint_json
from tesserec.config import to_dict
from tesserec.errors import TrainingError
from tesserec.memory import MemoryMeter
from tesserec.progress import SILENT, Progress, Task
from tesserec.training.checkpoints import Checkpoint, Position, Weights, load_checkpoint, save_checkpoint
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import autocast, resolve_device, resolve_precision
from tesserec.training.schedules import learning_rate
from tesserec.training.seeds import seed_of, seeded
from tesserec.training.sharding import Shards
from tesserec.types import IntArray

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Step:
    """One optimiser step: parts of similar length whose gradients add up to those of the whole batch."""

    parts: Sequence[Any]  # whatever the objective's `loss` takes; tensors on the CPU, moved by the objective
    n_targets: int  # >= 1; the loss of the step is the sum over all parts divided by this


class Steps(Protocol):
    """The steps of one epoch; a list will do, and so will something that makes a step when it is asked for one."""

    def __getitem__(self, index: int, /) -> Step: ...


@dataclass(frozen=True)
class StepsOfRows(Sequence[Step]):
    """Rows in an order, cut into batches; each becomes a step when it is asked for."""

    order: IntArray
    batch_size: int
    make: Callable[[IntArray, int], Step]  # (rows of a batch, its number) -> its step

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __getitem__(self, index: Any, /) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.make(self.order[index * self.batch_size : (index + 1) * self.batch_size], index)


class Objective(Protocol):
    """What a recommender gives the loop: which steps an epoch has, and the loss of a part."""

    def n_steps(self, epoch: int) -> int:
        """Optimiser steps of an epoch, >= 1."""

    def steps(self, epoch: int) -> Steps:
        """The steps of an epoch: a function of (seed, epoch) alone, so that a resumed run sees the same ones."""

    def loss(self, model: nn.Module, part: Any, device: torch.device) -> Tensor:
        """The summed loss of one part (a scalar).

        Reach the network only by calling `model(...)`, once: with several processes or `compile`, `model` is a
        wrapper whose call is what synchronises gradients. All trained weights must take part in what it returns.
        """


@dataclass
class TrainingLog:
    """What happened, to be saved as JSON beside the model.

    A row per validation: `epoch` and `step` (done so far), `loss` (mean per target of that epoch), `validation` (the
    value of the configured metric), `seconds`, `learning_rate`.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0  # whose weights were kept
    stopped: str = ""  # why training ended
    memory: dict[str, Any] | None = field(default=None, compare=False)  # peak of the process that ended it (PeakMemory)

    @property
    def seconds(self) -> float:
        """Of training and validation, of interrupted processes too, up to the last validation."""
        return self.rows[-1]["seconds"] if self.rows else 0.0


def train(
    model: nn.Module,
    objective: Objective,
    config: TrainingConfig,
    *,
    validate: Callable[[nn.Module], float],
    checkpoints: Path | None = None,
    identity: str = "",
    measure: str = "",
    progress: Progress = SILENT,
) -> TrainingLog:
    """Train `model` in place and leave it, in evaluation mode, with the weights of its best validation.

    Args:
        model: initialised; it is moved to the device of the configuration and stays there.
        objective: the steps and their loss.
        config: how long, how fast, in which precision.
        validate: the configured metric of the model in evaluation mode, or another measure; larger is better.
        checkpoints: a folder for checkpoints, shared by all processes; None: none are kept. If it holds a checkpoint of
            this very run, training goes on from there; a finished run only gets its weights back.
        identity: names all that decides the weights apart from `config`: data, network, initial weights.
        measure: what `validate` returns, in words; "": the configured metric.
        progress: who listens.

    Returns:
        One row per validation, all processes of an interrupted run included.

    Raises:
        TrainingError: a loss is not finite; the checkpoint is damaged or of another run.
        ConfigError: this machine does not have the configured device or precision.
    """
    memory = MemoryMeter()
    workers = _Workers.join(config.device)
    progress = progress if workers.index == 0 else SILENT
    model.to(workers.device)
    with seeded(config.seed):
        identity = fingerprint_json({"run": identity, "training": to_dict(config)})
        run = _Run(model, objective, config, workers, checkpoints, identity, measure or config.metric)
        run.resume(progress)
        with progress.task("training", run.n_steps) as task:
            task.advance(run.at.step)
            while not run.at.finished:
                run.epoch(validate, task)
    if run.best:  # of shards, the first process alone has all
        model.load_state_dict(run.best)
    model.eval()
    log = TrainingLog(run.at.rows, run.at.best_step, run.why_stop(), memory.peak().to_dict())
    progress.say(
        f"trained {run.at.step} steps in {run.at.seconds:.0f} s ({log.stopped}); "
        f"best {run.measure} {run.at.best_value:.4f} at step {log.best_step}"
    )
    return log


@dataclass
class _Workers:
    """The processes that train together, and this one's device."""

    accelerator: "Accelerator"
    device: torch.device

    @classmethod
    def join(cls, device: str) -> "_Workers":
        from accelerate import Accelerator, DistributedType

        accelerator = Accelerator(mixed_precision="no", device_placement=False)
        if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise TrainingError(
                f"Training was launched with {accelerator.distributed_type}, which cuts the model into shards. "
                "Launch plain processes (accelerate launch --multi_gpu) and set training.sharded = true for shards."
            )
        return cls(accelerator, resolve_device(device) if accelerator.num_processes == 1 else accelerator.device)

    @property
    def count(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def index(self) -> int:
        return int(self.accelerator.process_index)

    def wrap(self, model: nn.Module) -> nn.Module:
        return model if self.count == 1 else self.accelerator.prepare_model(model)

    def without_sync(self, model: nn.Module) -> AbstractContextManager[object]:
        return nullcontext() if self.count == 1 else self.accelerator.no_sync(model)

    def total(self, values: list[float]) -> list[float]:
        """Sums over all processes."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float32, device=self.device)
        return [float(value) for value in self.accelerator.reduce(tensor, reduction="sum")]

    def share(self, parts: Sequence[Any]) -> Iterator[tuple[Any, bool]]:
        """This process's parts and whether each counts; every process gets equally many, repeating one if need be."""
        for start in range(0, len(parts), self.count):
            mine = start + self.index
            yield (parts[mine], True) if mine < len(parts) else (parts[0], False)


class _Run:
    """The state of one training and what one step, one validation, one epoch do to it."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: TrainingConfig,
        workers: _Workers,
        checkpoints: Path | None,
        identity: str,
        measure: str,
    ) -> None:
        self.model, self.objective, self.config, self.workers = model, objective, config, workers
        self.checkpoints, self.identity, self.measure = checkpoints, identity, measure
        self.dtype = resolve_precision(config.precision, workers.device)
        self.shards = Shards(model, workers.device) if config.sharded and workers.count > 1 else None
        trained = self.shards.network if self.shards else model
        self.optimizer = make_optimizer(trained, config, workers.device, fused=self.shards is None)
        self.scaler = torch.amp.GradScaler(workers.device.type, enabled=self.dtype == torch.float16)
        self.network = trained
        if self.shards is None:
            self.network = workers.wrap(torch.compile(model, dynamic=True) if config.compile else model)  # type: ignore[arg-type]
        planned = sum(objective.n_steps(epoch) for epoch in range(config.epochs))
        self.n_steps = min(planned, config.max_steps or planned)
        self.at = Position()
        self.best: Weights = {}
        self.began = self.saved = time.monotonic()
        self.targets, self.busy = 0, 0.0  # trained on by this process, and the seconds that its steps took

    # -- one epoch -------------------------------------------------------------------------------------------------

    def epoch(self, validate: Callable[[nn.Module], float], task: Task) -> None:
        """The rest of the current epoch, then validation and early stopping where they are due."""
        at, config = self.at, self.config
        steps, n_steps = self.objective.steps(at.epoch), self.objective.n_steps(at.epoch)
        self.network.train()
        out_of_time = False
        while at.index < n_steps and at.step < self.n_steps and not out_of_time:
            began = time.monotonic()
            step = steps[at.index]
            loss, out_of_time, checkpoint_due = self.step(step)
            self.busy += time.monotonic() - began
            self.targets += step.n_targets
            at.index, at.step = at.index + 1, at.step + 1
            at.epoch_loss, at.epoch_targets = at.epoch_loss + loss, at.epoch_targets + step.n_targets
            task.advance(1, note=self.note(step, loss))
            if checkpoint_due and at.index < n_steps:
                self.gather()
                self.save()
        self.gather()
        last = out_of_time or at.step >= self.n_steps
        if last or (at.epoch + 1) % config.validate_every == 0:
            self.validate(validate)
        at.finished = last or at.without_gain >= config.patience
        at.epoch, at.index, at.epoch_loss, at.epoch_targets = at.epoch + 1, 0, 0.0, 0
        self.save()

    def step(self, step: Step) -> tuple[float, bool, bool]:
        """One optimiser step.

        Returns:
            The summed loss, whether the time is used up, and whether a checkpoint is due (as the first process says).
        """
        at, config, workers = self.at, self.config, self.workers
        torch.manual_seed(seed_of(config.seed, at.step, workers.index))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, at.step, self.n_steps)
        loss = torch.zeros((), device=workers.device)
        share = list(workers.share(step.parts))
        for number, (part, counts) in enumerate(share, start=1):
            with self.syncing(number == len(share)):
                with autocast(workers.device, self.dtype):
                    part_loss = self.objective.loss(self.network, part, workers.device)
                if not counts:
                    part_loss = part_loss * 0.0
                # Processes average their gradients; the factor makes that the sum.
                self.scaler.scale(part_loss * (workers.count / step.n_targets)).backward()  # type: ignore[no-untyped-call]
            loss += part_loss.detach()
        main = workers.index == 0
        total, out_of_time, checkpoint_due = workers.total(
            [float(loss), float(main and self.out_of_time()), float(main and self.checkpoint_due())]
        )
        if not math.isfinite(total):
            raise TrainingError(
                f"The loss became {total} at step {at.step} (epoch {at.epoch + 1}). Try a smaller learning_rate, more "
                "warmup_steps, a clip_norm, or precision = fp32, and check the inputs for values that are not finite."
            )
        self.scaler.unscale_(self.optimizer)
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total, bool(out_of_time), bool(checkpoint_due)

    def syncing(self, on: bool) -> AbstractContextManager[object]:
        """Whether the backward pass inside adds up gradients over the processes: the last part of a step does."""
        if self.shards is not None:
            self.shards.sync(on)
            return nullcontext()
        return nullcontext() if on else self.workers.without_sync(self.network)

    def gather(self) -> None:
        """Bring the model up to date with its shards, in the first process."""
        if self.shards is not None and (weights := self.shards.weights()):
            self.model.load_state_dict(weights)

    def validate(self, validate: Callable[[nn.Module], float]) -> None:
        """Ask for the metric (in the first process), log it, keep the weights if they are the best so far."""
        at = self.at
        self.model.eval()
        with torch.no_grad():
            value = self.workers.total([validate(self.model) if self.workers.index == 0 else 0.0])[0]
        if math.isnan(value):
            raise TrainingError(
                f"The validation metric is not a number at step {at.step}. Look at the validation part."
            )
        if value > at.best_value:
            at.best_value, at.best_step, at.without_gain = value, at.step, 0
            if self.shards is None or self.workers.index == 0:
                self.best = copy.deepcopy(self.model.state_dict())
        else:
            at.without_gain += 1
        at.rows.append(
            {
                "epoch": at.epoch + 1,
                "step": at.step,
                "loss": at.epoch_loss / max(at.epoch_targets, 1),
                "validation": value,
                "seconds": self.seconds(),
                "learning_rate": self.optimizer.param_groups[0]["lr"],
            }
        )

    # -- time and words --------------------------------------------------------------------------------------------

    def seconds(self) -> float:
        """Training time of this process and of those that were interrupted before it."""
        now = time.monotonic()
        self.at.seconds, self.began = self.at.seconds + now - self.began, now
        return self.at.seconds

    def out_of_time(self) -> bool:
        return self.config.max_seconds is not None and self.seconds() >= self.config.max_seconds

    def checkpoint_due(self) -> bool:
        return self.checkpoints is not None and time.monotonic() - self.saved >= self.config.checkpoint_seconds

    def why_stop(self) -> str:
        if self.at.without_gain >= self.config.patience:
            return f"no gain in {self.config.patience} validations"
        return "all steps done" if self.at.step >= self.n_steps else "out of time"

    def note(self, step: Step, loss: float) -> str:
        rate = self.targets / max(self.busy, 1e-9)
        best = f", best {self.measure} {self.at.best_value:.4f}" if self.best else ""
        return f"epoch {self.at.epoch + 1}, loss {loss / step.n_targets:.4f}, {rate:,.0f} targets/s{best}"

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def save(self) -> None:
        self.saved = time.monotonic()
        if self.checkpoints is None:
            return
        optimizer = self.shards.optimizer_state(self.optimizer) if self.shards else self.optimizer.state_dict()
        if self.workers.index != 0:
            return
        self.seconds()
        state = Checkpoint(self.at, self.model.state_dict(), optimizer, self.scaler.state_dict(), self.best)
        save_checkpoint(self.checkpoints, state, identity=self.identity)

    def resume(self, progress: Progress) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.checkpoints is None:
            return
        found = load_checkpoint(self.checkpoints, identity=self.identity, device=self.workers.device)
        if found is None:
            return
        self.at, self.best = found.position, found.best
        self.model.load_state_dict(found.model)
        if self.shards is not None:
            self.shards.restore(found.model, self.optimizer, found.optimizer)
        else:
            self.optimizer.load_state_dict(found.optimizer)
        self.scaler.load_state_dict(found.scaler)
        progress.say(f"resumed from {self.checkpoints} at step {self.at.step} of {self.n_steps}")


def make_optimizer(
    model: nn.Module, config: TrainingConfig, device: torch.device, *, fused: bool = True
) -> torch.optim.Optimizer:
    """AdamW whose weight decay spares vectors (biases, norms), in one fused kernel where torch has one."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = fused and device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=fused)
