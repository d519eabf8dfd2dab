"""How long preparation takes and how much memory it needs, from 1 to 14 million interactions.

    python benchmarks/prepare_scale.py [--millions 1 3 7 14] [--kind csv|parquet]

14 million interactions of 1.4 million users and 0.45 million items are the size of the pre-training data of VQ-Rec. The
logs are generated (not timed): ids as long as Amazon's, skewed popularity, users of one event and of hundreds, lines in
the order of time. Each size is prepared in a process of its own: read, ordered, exact repeats dropped, 5-core, saved,
loaded, split by leave-one-out. CPU seconds are those of all threads; on a machine that is busy with other work they say
more than the clock.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def generate(path: Path, n_events: int) -> None:
    """Write a log of about n_events / 10 users and n_events * 0.45 / 14 items."""
    import polars as pl

    rng = np.random.default_rng(0)
    n_users, n_items = n_events // 10, n_events * 45 // 1400
    activity = np.cumsum(rng.lognormal(0.0, 1.0, n_users))
    popularity = np.cumsum(1.0 / np.arange(10, n_items + 10) ** 0.7)
    users = rng.permutation(n_users)[np.searchsorted(activity, rng.random(n_events) * activity[-1])]
    items = rng.permutation(n_items)[np.searchsorted(popularity, rng.random(n_events) * popularity[-1])]
    log = pl.DataFrame(
        {
            "user_id": users.astype(np.int64) * 7919 + 10**12,
            "item_id": items.astype(np.int64) + 10**8,
            "timestamp": np.sort(rng.integers(1_000_000_000, 1_600_000_000, n_events)),
        }
    ).with_columns(pl.format("A{}", "user_id").alias("user_id"), pl.format("B{}", "item_id").alias("item_id"))
    log.write_parquet(path) if path.suffix == ".parquet" else log.write_csv(path)


class Stopwatch:
    """Notes when each stage told of its end."""

    def __init__(self) -> None:
        self.start, self.stages = time.perf_counter(), dict[str, float]()

    def say(self, message: str) -> None:
        self.stages[message.split(":")[0]] = round(time.perf_counter() - self.start, 1)


def measure(path: Path) -> None:
    """Prepare one log, and print what it took as JSON."""
    from tesserec.data import PrepareConfig, leave_one_out, prepare

    watch = Stopwatch()
    dataset = prepare(path, config=PrepareConfig(k_core=5), out=path.with_suffix(".prepared"), progress=watch)
    split = leave_one_out(dataset)
    seconds = time.perf_counter() - watch.start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "seconds": seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "gigabytes": usage.ru_maxrss / 1e6,
        "kept": [len(dataset.user_ids), len(dataset.catalogue), dataset.n_interactions],
        "cases": len(split.test),
        "stages": watch.stages,
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 3, 7, 14])
    parser.add_argument("--kind", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    print(f"{len(os.sched_getaffinity(0))} cores, {arguments.kind}")
    print("| events | file | seconds | CPU seconds | peak memory | users, items, events in the 5-core |")
    print("|---:|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        for millions in arguments.millions:
            path = Path(folder) / f"log{millions}.{arguments.kind}"
            generate(path, millions * 1_000_000)
            command = [sys.executable, __file__, "--measure", str(path)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            kept = ", ".join(f"{count:,}" for count in result["kept"])
            print(
                f"| {millions} M | {path.stat().st_size / 1e6:.0f} MB | {result['seconds']:.1f} "
                f"| {result['cpu']:.1f} | {result['gigabytes']:.2f} GB | {kept} |",
                flush=True,
            )
            print(f"seconds at the end of each stage: {result['stages']}", file=sys.stderr)


if __name__ == "__main__":
    main()
