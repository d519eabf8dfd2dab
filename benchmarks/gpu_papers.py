"""A published TIGER setting, trained and evaluated on one GPU within a time limit, from prepared artefacts.

    python benchmarks/gpu_papers.py letter-tiger-paper --data data/beauty --ids ids/beauty --out runs/beauty-letter
    python benchmarks/gpu_papers.py tiger-paper --data data/yelp --ids runs/yelp-rqvae --out runs/yelp-tiger
    tesserec bench paper-beauty --data data/beauty --merge "LETTER-TIGER, GPU=runs/beauty-letter"

Needs torch, transformers, accelerate, numpy and pyarrow, and nothing else: no Polars, faiss, pydantic, Typer. `--data`
is a data set made by `tesserec prepare`, `--ids` semantic IDs saved by tesserec, a run that has some, or an index file;
both are made on another machine and copied. Of the recipe, text and tokenizer are replaced by those IDs; steps are
compiled and in bfloat16. A short probe measures a step first, so that the number of epochs, and with it the schedule of
the learning rate, fits into the time that is left. The run is one like any other: `tesserec evaluate` takes it, too.
For further seeds, give the epochs and the limit that the first run prints: seeds of one method differ in nothing else.

    python benchmarks/gpu_papers.py letter-tiger-paper ... --epochs 40 --set training.max_seconds=480 --set seed=1
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from tesserec.config import to_dict
from tesserec.data.dataset import Dataset
from tesserec.errors import TesserecError
from tesserec.evaluation import require_generative
from tesserec.pipeline.recipe import Recipe, load_recipe
from tesserec.pipeline.run import run
from tesserec.recommenders import make_recommender, recommender_class
from tesserec.tokenizers.imports import read_semantic_ids
from tesserec.training.devices import resolve_device, resolve_precision

PROBED, SKIPPED = 120, 60  # steps of the probe; those at its beginning that compile and warm up
SETTINGS = (
    "training.tokens_per_part=65536",  # a step is one part or two: small parts leave a GPU waiting
    "training.validation_users=2000",
    "recommender.users_per_batch=1024",
    "training.patience=1000",  # the schedule is made for all epochs, and the best weights are kept anyway
)


class Clock:
    """Progress that prints a line now and then, and remembers when each unit was done."""

    def __init__(self, seconds: float = 15.0) -> None:
        self.times, self._seconds, self._said = list[float](), seconds, 0.0

    def say(self, message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator["Clock"]:
        self._label, self._total, self._done = label, total, 0
        self.times = []
        yield self

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        now = time.monotonic()
        self.times.append(now)
        self._done += amount
        if now - self._said >= self._seconds:
            self._said = now
            self.say(f"{self._label}: {self._done:,} of {self._total or 0:,}, {note}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recipe", help="tiger-paper, letter-tiger-paper, or a .toml file of a recommender over IDs")
    arguments.add_argument("--data", type=Path, required=True, help="a prepared data set")
    arguments.add_argument("--ids", required=True, help="semantic IDs: saved ones, a run, an index or an array")
    arguments.add_argument("--out", type=Path, required=True, help="folder of the run")
    arguments.add_argument("--seconds", type=float, default=600.0, help="for everything")
    arguments.add_argument("--reserve", type=float, default=90.0, help="of them, for the evaluation at the end")
    arguments.add_argument("--epochs", type=int, help="for so many; without: as many as a probe says there is time for")
    arguments.add_argument("--uncoded", choices=("refuse", "reserve"), default="refuse", help="items without a code")
    arguments.add_argument("--set", action="append", default=[], metavar="section.key=value", help="of the recipe")
    options = arguments.parse_args()
    began = time.monotonic()
    if (Path(options.ids) / "semantic-ids").is_dir():  # a run
        options.ids = str(Path(options.ids) / "semantic-ids")
    try:
        ids = ("tokenizer=file", f"tokenizer.path={options.ids}", f"tokenizer.uncoded={options.uncoded}")
        device = resolve_device()
        fast = ("training.precision=bf16", "training.compile=true") if device.type == "cuda" else ()
        recipe = load_recipe(options.recipe, [*ids, *fast, *SETTINGS, *options.set])
        require_generative(recommender_class(recipe.recommender.method))
        step, n_steps = probe(recipe, options) if options.epochs is None else (0.0, 0)
        left = max(1, int(options.seconds - options.reserve - (time.monotonic() - began)))
        epochs = options.epochs
        if epochs is None:
            epochs = max(1, int(left / (step * n_steps)))
            pace = f"{1000 * step:.1f} ms a step, {n_steps} steps an epoch, {epochs} epochs in {left} s"
            print(f"{describe(device)}: {pace}", file=sys.stderr)
            print(f"further seeds: --epochs {epochs} --set training.max_seconds={left} --set seed=1", file=sys.stderr)
        time_limit = (f"training.epochs={epochs}", "training.max_steps=none", f"training.max_seconds={left}")
        limited = load_recipe(options.recipe, [*ids, *fast, *SETTINGS, *time_limit, *options.set])
        finished = run(limited, options.data, options.out, progress=Clock())
    except TesserecError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(finished.report.text())
    print(f"{time.monotonic() - began:.0f} s in all{memory(device)}")


def probe(recipe: Recipe, options: argparse.Namespace) -> tuple[float, int]:
    """Seconds of a step, and steps of an epoch."""
    assert recipe.training is not None
    split = recipe.split.split(Dataset.load(options.data))
    ids = read_semantic_ids(options.ids, split.dataset.catalogue, uncoded=options.uncoded)
    short = {
        "max_steps": PROBED,
        "epochs": 10_000,
        "validation_users": 64,
        "validate_every": 10_000,
        "max_seconds": None,
    }
    training = type(recipe.training)(**{**to_dict(recipe.training), **short})
    clock = Clock()
    recommender = make_recommender(recipe.recommender.method, to_dict(recipe.recommender.config), training, ids, None)
    recommender.fit(split, progress=clock)
    if len(clock.times) < PROBED:
        raise TesserecError(f"The probe took {len(clock.times)} steps instead of {PROBED}. Give more data.")
    n_samples = sum(max(length - 1, 0) for length in split.train.lengths.tolist())
    return float(np.median(np.diff(clock.times[SKIPPED:]))), -(-n_samples // training.batch_size)


def describe(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return f"{name}, {str(resolve_precision('auto', device)).removeprefix('torch.')}"


def memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of the GPU's memory at most"


if __name__ == "__main__":
    main()
