"""Full-ranking evaluation: every target against the whole catalogue, with the card that says how."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import numpy as np

from tesserec import environment
from tesserec.artifacts import require_same
from tesserec.config import choose
from tesserec.data.splits import Cases, Split
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation.report import Report
from tesserec.evaluation.slices import is_repeat, target_popularity
from tesserec.functional.list_statistics import list_means, mid_percentiles
from tesserec.memory import MemoryMeter, PeakMemory
from tesserec.progress import SILENT, Progress
from tesserec.recommenders.base import Recommender

CUTOFFS = (1, 5, 10, 20, 50)
LIST_LENGTH = 10  # best items kept of every case, for what they are like apart from hits
TIE_RULE = "tied items and items of one semantic ID share their places: expectation over all orders"


def evaluate(
    recommender: Recommender,
    split: Split,
    *,
    part: str = "test",
    exclude_seen: bool = False,
    cutoffs: Sequence[int] = CUTOFFS,
    exact: bool = False,
    beam_width: int | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Rank the target of every case of a part against the whole catalogue.

    Args:
        recommender: fitted on the training part of this very data set.
        part: `test` or `validation`.
        exclude_seen: items of the history are no candidates. A target that the user had taken before then counts as
            a miss; the report says how many there are.
        cutoffs: the K of the metrics.
        exact: generative models: rank by scoring every item instead of by beam. Others are always exact.
        beam_width: generative models: hypotheses of the beam; None: as the recommender is configured.

    Raises:
        ConfigError: a value is none of the above (see `check_ranking`), or a way of ranking is asked of a model that
            does not generate.
        ArtifactError: the recommender was fitted on other data.
        DataError: the part has no cases.
    """
    cases = cases_of(split, part)
    check_ranking(cutoffs, exact, beam_width)
    require_fitted_on(recommender, split)
    dataset = split.dataset
    with _ranking_by(recommender, exact, beam_width):
        memory, started = MemoryMeter(), time.perf_counter()
        ranks = recommender.rank(cases, exclude_seen=exclude_seen, list_length=LIST_LENGTH, progress=progress)
        seconds = time.perf_counter() - started
        card = protocol_card(recommender, split, part, exclude_seen, cutoffs, seconds, memory.peak())
    item_ids, user_ids = np.array(dataset.catalogue.item_ids), np.array(dataset.user_ids)
    about_cases = {
        "user_id": user_ids[cases.users],
        "target_id": item_ids[cases.targets],
        "history_length": cases.histories.lengths,
        "target_count": split.train_counts[cases.targets],
        "target_popularity": target_popularity(split, cases),
        "repeat": is_repeat(cases),
    }
    if ranks.lists is not None:
        about_cases["list_popularity"] = list_means(ranks.lists, mid_percentiles(split.train_counts))
    return Report(card, about_cases, ranks)


def check_ranking(cutoffs: Sequence[int], exact: bool, beam_width: int | None) -> None:
    """Refuse settings that no evaluation can have, so that nobody learns of them after the training.

    Raises:
        ConfigError: no cut-off, one below 1 or given twice; an exact ranking by a beam, or a beam without hypotheses.
    """
    if not cutoffs or min(cutoffs) < 1 or len(set(cutoffs)) < len(cutoffs):
        raise ConfigError(f"cutoffs is {list(cutoffs)}. Give one whole number or more, each at least 1 and only once.")
    if beam_width is not None and (exact or beam_width < 1):
        raise ConfigError(f"exact is {exact} and beam_width {beam_width}. Choose one of them, a width of 1 or more.")


def require_fitted_on(recommender: Recommender, split: Split) -> None:
    """Refuse a data set that the recommender was not fitted on.

    Raises:
        ArtifactError: they do not belong together.
    """
    require_same("The recommender", recommender.dataset_fingerprint, "the data set", split.dataset.fingerprint,
                 remedy="Give the data set that it was trained on, or train on this one.")  # fmt: skip


def require_generative(recommender: Recommender | type[Recommender]) -> None:
    """Refuse a way of ranking (`exact`, `beam_width`) for a method that has only one.

    Raises:
        ConfigError: the method scores every item.
    """
    if not recommender.is_generative:
        raise ConfigError(
            f"{recommender.method} scores every item, so its ranking is always exact: it has no beam that could be set "
            "(exact, beam_width) or lose anything."
        )


class _Generative(Protocol):
    """A recommender that is generative."""

    beam_width: int
    exact: bool


@contextmanager
def _ranking_by(recommender: Recommender, exact: bool, beam_width: int | None) -> Iterator[None]:
    """The recommender ranks in this way inside the block, and as before after it."""
    if not exact and beam_width is None:
        yield
        return
    require_generative(recommender)
    ranker = cast(_Generative, recommender)
    before = ranker.exact, ranker.beam_width
    ranker.exact, ranker.beam_width = exact, beam_width or ranker.beam_width
    try:
        yield
    finally:
        ranker.exact, ranker.beam_width = before


def protocol_card(
    recommender: Recommender,
    split: Split,
    part: str,
    exclude_seen: bool,
    cutoffs: Sequence[int],
    seconds: float,
    memory: PeakMemory,
) -> dict[str, Any]:
    """Everything one must know to read a number, written by the machine that made it.

    `protocol` must be equal for two reports to be compared, `model` is what was evaluated, `made` is where and when.
    """
    config = recommender.full_config
    training = config.get("training") or {}
    logs = recommender.training_logs
    return {
        "protocol": protocol(split, part, exclude_seen, cutoffs, told=recommender.told(recommender.config)),
        "model": {
            "config": config,
            "parameters": recommender.n_parameters,
            "sizes": recommender.sizes,
            "sources": recommender.sources,
            "ranking": recommender.ranking,
            "selected_by": selected_by(training) if logs else "nothing was selected",
            "seed": training.get("seed"),
        },
        "made": {
            "library": environment.library(),
            "versions": environment.installed("numpy", "torch", "faiss-cpu"),
            "hardware": environment.hardware(),
            "training_seconds": round(sum(log.seconds for log in logs), 3) if logs else None,
            "training_memory": largest_memory([log.memory for log in logs]),
            "ranking_seconds": round(seconds, 3),
            "ranking_memory": memory.to_dict(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def protocol(split: Split, part: str, exclude_seen: bool, cutoffs: Sequence[int], *, told: str) -> dict[str, Any]:
    """All that reports must agree on to be compared: what was asked, of whom, among what, counted how.

    Args:
        told: what the recommender knows of a target beyond its history (`Recommender.told`); a field where it is any.
    """
    cases, dataset = cases_of(split, part), split.dataset
    masking = "less the user's own history" if exclude_seen else "nothing masked"
    return {
        "dataset": dataset.fingerprint,
        "dataset_sizes": {
            "users": len(dataset.user_ids),
            "items": split.n_items,
            "interactions": dataset.n_interactions,
        },
        "split": split.name,
        "part": part,
        "cases": len(cases),
        "candidates": f"all {split.n_items} items, {masking}",
        "seen_targets": int(is_repeat(cases).sum()),
        "cutoffs": list(cutoffs),
        "metric_level": "items; id_ metrics: semantic IDs",
        "tie_rule": TIE_RULE,
        **({"told": told} if told else {}),
    }


def cases_of(split: Split, part: str) -> Cases:
    """The cases of `test` or `validation`.

    Raises:
        ConfigError: there is no such part.
        DataError: it has no cases.
    """
    cases: Cases = choose(part, {"test": split.test, "validation": split.validation}, what="part")
    if not len(cases):
        raise DataError(f"The {part} part of the split {split.name} has no cases. Choose another split or part.")
    return cases


def selected_by(training: dict[str, Any]) -> str:
    """What chose the weights, in words; `training` is a configuration as manifests hold it."""
    masking = ", less the user's own history" if training.get("exclude_seen") else ""
    return f"validation {training['metric']}{masking}"


def largest_memory(peaks: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The peak of several trainings one after another; None if there are none, or one did not measure."""
    known = [peak for peak in peaks if peak is not None]
    if not known or len(known) < len(peaks):
        return None
    return max(known, key=lambda peak: (peak["gpu_bytes"] or 0, peak["process_bytes"] or 0))
