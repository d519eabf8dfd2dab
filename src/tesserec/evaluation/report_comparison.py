"""Reports of several methods, a few seeds each, compared user by user: what differs, and whether that could be chance.

Two things vary: who is asked, and how training fell out. Deviations are over the seeds. Intervals and tests are over
the users: each user's values are averaged over a method's seeds first, then users are resampled (intervals) or their
differences change sign (tests), the same for all methods. They speak of another draw of users for these trained models.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tesserec.config import choose, to_dict
from tesserec.errors import ConfigError
from tesserec.evaluation.beyond_accuracy import beyond_accuracy
from tesserec.evaluation.report import Report
from tesserec.evaluation.report_checks import align, require_items_of, require_one_protocol
from tesserec.evaluation.slices import FEW_USERS, Slice, slices_of
from tesserec.functional.metrics import parse_metric
from tesserec.functional.statistics import bootstrap_means, holm, percentile_interval, sign_flip_p_values
from tesserec.text.embeddings import Embeddings
from tesserec.types import FloatArray

METRICS = ("recall@10", "ndcg@10")
BEAM = re.compile(r"beam of (\d+)")  # in words of how places were found
COMPARED_SEEDS = 3  # with fewer, a deviation over seeds says little


@dataclass(frozen=True)
class StatisticsConfig:
    """How intervals and tests are made."""

    level: float = 0.95  # of the intervals; wins are marked at 1 - level
    n_resamples: int = 10_000  # of the users, for intervals
    n_flips: int = 10_000  # of the signs, for tests: the smallest p-value is 1 / (n_flips + 1)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.n_resamples < 1 or self.n_flips < 1:
            raise ConfigError(
                f"level is {self.level}, n_resamples {self.n_resamples}, n_flips {self.n_flips}. Use a level between "
                "0 and 1, and 1 resample and 1 flip or more."
            )


@dataclass(frozen=True)
class OverSeeds:
    """A figure of every seed."""

    mean: float
    deviation: float | None  # standard deviation of a seed, from the sample (n - 1); None of a single seed
    seeds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "OverSeeds":
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), deviation, tuple(values))


@dataclass(frozen=True)
class Interval:
    """A mean over users, and where it would be for other draws of users."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A method's mean less that of the reference, paired by user.

    `p` is of the sign-flip test, `p_holm` holds for all tests of the comparison together. `verdict` says "above" or
    "below" only where `p_holm` is at most 1 - level.
    """

    relative: float | None  # to the reference's mean; None where that is 0
    p: float
    p_holm: float
    verdict: Literal["above", "below", ""]


@dataclass(frozen=True)
class SliceValue:
    """A metric on some of the cases: no test, as slices are for looking."""

    value: Interval
    difference: Interval | None  # less the reference; None for the reference itself


@dataclass(frozen=True)
class Cost:
    """What a method took, as means over its seeds; None where its reports do not say, or there is nothing to say."""

    parameters: float
    training_seconds: float | None
    ranked_per_second: float | None  # cases, lists included
    training_peak_bytes: float | None  # of the GPU's memory where one was used, else of the process's
    ranking_peak_bytes: float | None
    hardware: tuple[str, ...]  # distinct
    versions: tuple[str, ...]  # of the library and of what computed, distinct


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What the reports of one method say together.

    Attributes:
        seeds: of its reports; None for a method that has none.
        ranking: how its places were found, such as "beam of 50, constrained".
        metrics: every metric of the card and those compared, over seeds.
        intervals: the compared metrics over users.
        differences: the compared metrics against the reference; empty for the reference itself.
        slices: label of the slice -> compared metric -> value.
        beyond: figures of the lists that are no hits, such as `coverage@10`, over seeds; empty where the reports keep
            no lists.
        cost: what it took.
    """

    seeds: tuple[int | None, ...]
    ranking: str
    metrics: dict[str, OverSeeds]
    intervals: dict[str, Interval]
    differences: dict[str, Difference]
    slices: dict[str, dict[str, SliceValue]]
    beyond: dict[str, OverSeeds]
    cost: Cost


@dataclass(frozen=True, eq=False)
class ReportComparison:
    """Methods by name, in the order in which they were given.

    Attributes:
        protocol: the part of the cards that all reports have in common.
        metrics: those that were compared.
        reference: the method that the others are compared with.
        methods: name -> what its reports say.
        slices: label -> cases in it.
        statistics: how intervals and tests were made.
        n_tests: the family that Holm's correction is over: every other method on every compared metric.
        notes: what a reader must know to read the figures, a sentence each.
    """

    protocol: dict[str, Any]
    metrics: tuple[str, ...]
    reference: str
    methods: dict[str, MethodResult]
    slices: dict[str, int]
    statistics: StatisticsConfig
    n_tests: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without the protocol's being repeated for every method."""
        return {
            "protocol": self.protocol,
            "metrics": list(self.metrics),
            "reference": self.reference,
            "methods": {name: to_dict(method) for name, method in self.methods.items()},
            "slices": self.slices,
            "statistics": to_dict(self.statistics),
            "n_tests": self.n_tests,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The comparison for a terminal: tables with a row for each method."""
        from tesserec.evaluation.report_comparison_text import as_text

        return as_text(self)

    def markdown(self) -> str:
        """The same tables in Markdown."""
        from tesserec.evaluation.report_comparison_text import as_markdown

        return as_markdown(self)


def compare_reports(
    reports: Mapping[str, Sequence[Report]],
    *,
    metrics: Sequence[str] = METRICS,
    reference: str | None = None,
    statistics: StatisticsConfig | None = None,
    embeddings: Embeddings | None = None,
    may_repeat: Collection[str] = (),
) -> ReportComparison:
    """Compare methods by the reports of their seeds.

    Args:
        reports: name of a method -> its reports, one for each seed. All follow one protocol, but may list their users
            in different orders.
        metrics: for which intervals and tests are made, such as `ndcg@10`; each enlarges the family of tests.
        reference: the method that the others are compared with; None: the one whose first metric is largest.
        statistics: how.
        embeddings: of the items' texts, in which the items of a list are alike or not, the same for all methods; None:
            nothing is said of that.
        may_repeat: methods whose reports may be those of another, as a search may find another method's settings.

    Raises:
        ConfigError: there is nothing to compare; there is no such metric, or it is given twice; no method is called
            `reference`; reports follow different protocols (the fields are named); one report or seed was given twice;
            reports of one method differ in more than their seed.
        DataError: reports of one protocol are of different users or targets.
        ArtifactError: the embeddings are of other items.
    """
    config = statistics or StatisticsConfig()
    if not metrics or len(set(metrics)) < len(metrics):
        raise ConfigError(f"metrics is {list(metrics)}. Name one metric or more, each once.")
    require_one_protocol(reports, may_repeat)
    if embeddings is not None:
        require_items_of(embeddings, reports)
    aligned = align(reports)
    first = next(iter(aligned.values()))[0]
    values = {  # (M, metrics) of a user, over a method's seeds
        name: np.mean([[one.values(metric) for metric in metrics] for one in of_method], axis=0).T
        for name, of_method in aligned.items()
    }
    names = list(values)
    chosen = reference is not None
    if reference is None:
        reference = max(names, key=lambda name: float(values[name][:, 0].mean()))
    choose(reference, reports, what="method")
    n_tests = require_testable(len(names), len(metrics), config)
    stacked = np.stack(list(values.values()), axis=1)  # (M, methods, metrics)
    at = names.index(reference)
    intervals, differences = _intervals(stacked, at, config)
    cases = {key: column for of_method in aligned.values() for one in of_method for key, column in one.cases.items()}
    slices = slices_of(cases)
    in_slices = {part.label: _intervals(stacked[part.rows], at, config) for part in slices}
    tested = _tests(stacked, at, differences, config)

    def result(row: int, name: str) -> MethodResult:
        of_method = aligned[name]
        shown = dict.fromkeys([*first.metrics, *metrics])
        return MethodResult(
            seeds=tuple(one.card["model"]["seed"] for one in of_method),
            ranking=of_method[0].card["model"]["ranking"],
            metrics={metric: OverSeeds.of([float(one.values(metric).mean()) for one in of_method]) for metric in shown},
            intervals=dict(zip(metrics, intervals[row])),
            differences=dict(zip(metrics, tested[row])) if row != at else {},
            slices={label: _slice_values(metrics, *found, row, at) for label, found in in_slices.items()},
            beyond={key: OverSeeds.of(of) for key, of in beyond_accuracy(of_method, embeddings).items()},
            cost=cost_of(of_method),
        )

    methods = {name: result(row, name) for row, name in enumerate(names)}
    notes = _notes(reports, metrics, "" if chosen else reference, slices)
    if embeddings is not None and any(method.beyond for method in methods.values()):
        space = embeddings.config.get("encoder", "embeddings")
        notes.append(f"text distances are those of {space} vectors (fingerprint {embeddings.fingerprint})")
    return ReportComparison(
        protocol=first.card["protocol"],
        metrics=tuple(metrics),
        reference=reference,
        methods=methods,
        slices={part.label: len(part.rows) for part in slices},
        statistics=config,
        n_tests=n_tests,
        notes=tuple(notes),
    )


def require_testable(n_methods: int, n_metrics: int, config: StatisticsConfig) -> int:
    """Refuse so many tests that Holm's correction leaves none a chance; return their number.

    Raises:
        ConfigError: the smallest p there is, times the number of tests, is above the level.
    """
    n_tests = (n_methods - 1) * n_metrics
    if n_tests > (config.n_flips + 1) * (1 - config.level):
        raise ConfigError(
            f"{n_tests} tests ({n_methods} methods, {n_metrics} metrics) with {config.n_flips} flips each could never "
            "be significant after Holm. Compare fewer metrics or methods, or use more flips (StatisticsConfig.n_flips)."
        )
    return n_tests


Rows = list[list[Interval]]  # a row for each method, an entry for each compared metric


def _intervals(values: FloatArray, reference: int, config: StatisticsConfig) -> tuple[Rows, Rows]:
    """Means over users (M, methods, metrics) with their intervals, and the same of differences from the reference."""
    n_users, n_methods, n_metrics = values.shape
    flat = values.reshape(n_users, -1)
    means = bootstrap_means(flat, n_resamples=config.n_resamples, seed=config.seed).reshape(-1, n_methods, n_metrics)
    mean = values.mean(axis=0)
    return (
        _rows(mean, means, config),
        _rows(mean - mean[reference], means - means[:, reference : reference + 1], config),
    )


def _rows(mean: FloatArray, resampled: FloatArray, config: StatisticsConfig) -> Rows:
    low, high = percentile_interval(resampled, config.level)
    n_methods, n_metrics = mean.shape
    return [
        [Interval(float(mean[m, c]), float(low[m, c]), float(high[m, c])) for c in range(n_metrics)]
        for m in range(n_methods)
    ]


def _tests(values: FloatArray, reference: int, differences: Rows, config: StatisticsConfig) -> list[list[Difference]]:
    """Every method on every metric against the reference; the reference's own row says nothing."""
    paired = values - values[:, reference : reference + 1]  # (M, methods, metrics)
    p = sign_flip_p_values(paired.reshape(len(values), -1), n_flips=config.n_flips, seed=config.seed)
    p = p.reshape(paired[0].shape)
    others = np.arange(len(p)) != reference
    corrected = np.ones_like(p)
    corrected[others] = holm(p[others].flatten()).reshape(p[others].shape)
    base = values[:, reference].mean(axis=0)

    def difference(row: int, column: int) -> Difference:
        found = differences[row][column]
        relative = found.mean / float(base[column]) if base[column] else None
        verdict: Literal["above", "below", ""] = ""
        if corrected[row, column] <= 1 - config.level:
            verdict = "above" if found.mean > 0 else "below"
        ends = found.mean, found.low, found.high
        return Difference(*ends, relative, float(p[row, column]), float(corrected[row, column]), verdict)

    return [[difference(row, column) for column in range(p.shape[1])] for row in range(len(p))]


def _slice_values(
    metrics: Sequence[str], intervals: Rows, differences: Rows, row: int, reference: int
) -> dict[str, SliceValue]:
    return {
        metric: SliceValue(value, difference if row != reference else None)
        for metric, value, difference in zip(metrics, intervals[row], differences[row])
    }


def cost_of(reports: Sequence[Report]) -> Cost:
    """Means over the seeds of a method."""
    made = [report.card["made"] for report in reports]
    hardware = [", ".join([one["hardware"]["cpu"], *one["hardware"]["gpus"]]) for one in made]
    ranked = [len(report) / max(one["ranking_seconds"], 1e-9) for report, one in zip(reports, made)]
    return Cost(
        parameters=float(np.mean([report.card["model"]["parameters"] for report in reports])),
        training_seconds=_mean([one.get("training_seconds") for one in made]),
        ranked_per_second=_mean(ranked),
        training_peak_bytes=_mean([_peak(one.get("training_memory")) for one in made]),
        ranking_peak_bytes=_mean([_peak(one.get("ranking_memory")) for one in made]),
        hardware=tuple(dict.fromkeys(hardware)),
        versions=tuple(dict.fromkeys(_versions(one) for one in made)),
    )


def _versions(made: Mapping[str, Any]) -> str:
    """Such as "tesserec 0.1.0 (0123456789ab), torch 2.13.0"."""
    library, used = made["library"], made["versions"]
    commit = f" ({library['commit']})" if library["commit"] else ""
    others = [f"{name} {version}" for name, version in used.items() if version]
    return ", ".join([f"tesserec {library['version']}{commit}", *others])


def _peak(memory: Mapping[str, Any] | None) -> float | None:
    """What decides whether a machine is large enough: its GPU's memory where one was used, else its own."""
    if memory is None:
        return None
    peak = memory["gpu_bytes"] or memory["process_bytes"]
    return None if peak is None else float(peak)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _by_word(reports: Mapping[str, Sequence[Report]], field: str) -> dict[str, list[str]]:
    """What the cards say of the models -> the methods of which they say it."""
    words = dict[str, list[str]]()
    for name, of_method in reports.items():
        words.setdefault(of_method[0].card["model"][field], []).append(name)
    return words


def _notes(
    reports: Mapping[str, Sequence[Report]], metrics: Sequence[str], best: str, slices: Sequence[Slice]
) -> list[str]:
    """best: the reference, where it was chosen for being best."""
    notes = list[str]()
    if best and len(reports) > 1:
        notes.append(
            f"{best} is the reference because it is best on these very users, which flatters its differences; name the "
            "reference beforehand for a claim"
        )
    few = [  # a method without a seed has but one outcome
        name
        for name, of_method in reports.items()
        if len(of_method) < COMPARED_SEEDS and of_method[0].card["model"]["seed"] is not None
    ]
    if few:
        notes.append(
            f"fewer than {COMPARED_SEEDS} seeds of {', '.join(few)}: intervals and tests are over users and say "
            "nothing of other seeds"
        )
    ways, selections = _by_word(reports, "ranking"), _by_word(reports, "selected_by")
    selections.pop("nothing was selected", None)
    for what, words in (("ranked in different ways", ways), ("weights selected by different figures", selections)):
        if len(words) > 1:
            notes.append(f"{what}: " + "; ".join(f"{word}: {', '.join(of)}" for word, of in words.items()))
    furthest = max(
        [*next(iter(reports.values()))[0].cutoffs, *(parse_metric(one.removeprefix("id_"))[1] for one in metrics)]
    )
    for way, of in ways.items():
        beam = BEAM.match(way)
        if beam and int(beam[1]) < furthest:
            notes.append(
                f"a beam of {beam[1]} ends there: at larger cut-offs, targets behind it are misses of {', '.join(of)}"
            )
    card = next(iter(reports.values()))[0].card["protocol"]
    if card["part"] == "validation" and selections:
        chosen = ", ".join(name for of in selections.values() for name in of)
        notes.append(
            f"these users selected the weights of {chosen}, which flatters them beside the others; compare on the test "
            "part"
        )
    if card["cases"] < FEW_USERS:
        notes.append(f"fewer than {FEW_USERS} users: all intervals are far too narrow")
    if any(len(part.rows) < FEW_USERS for part in slices):
        notes.append(f"slices of fewer than {FEW_USERS} users have no intervals, which would be far too narrow there")
    if {part.group for part in slices} < {"popularity", "history", "repeat"}:
        notes.append("no slices by popularity and repeats: these reports do not say them; evaluate again for them")
    return notes
