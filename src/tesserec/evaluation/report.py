"""A report: the rank of every user's target, the metrics that follow from it, and the card that says what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tesserec.artifacts import open_artifact, read_json, write_artifact, write_json
from tesserec.errors import ConfigError
from tesserec.functional.metrics import GAINS, expected_metric, id_metric
from tesserec.recommenders.base import Ranks
from tesserec.tables import format_table
from tesserec.types import FloatArray, IntArray, PathLike

RANK_COLUMNS = ("found", "ahead", "tied", "id_rank")
LISTS = "list"


@dataclass(frozen=True, eq=False)
class Report:
    """How well a recommender ranks the targets of M cases.

    Attributes:
        card: the protocol card. `card["protocol"]` must be equal for two reports to be compared; `card["model"]` and
            `card["made"]` say what was evaluated, on what and when.
        cases: who and what each case is, M values each: `user_id`, `target_id`, `history_length` (items before the
            target), `target_count` (events of the target in training: 0 is a cold item), `target_popularity` (the third
            of the training events that the target is in: 0 head, 1 mid, 2 tail, 3 never trained), `repeat` (whether the
            target is in the history), `list_popularity` (mean percentile of the list's items by training events).
        ranks: where the target of each case stands, and the best items of each case.
    """

    card: dict[str, Any]
    cases: dict[str, npt.NDArray[Any]]
    ranks: Ranks

    def __len__(self) -> int:
        return len(self.ranks.found)

    @property
    def cutoffs(self) -> tuple[int, ...]:
        return tuple(self.card["protocol"]["cutoffs"])

    def values(self, metric: str) -> FloatArray:
        """(M,) a metric of every case, such as `ndcg@10`, or `id_ndcg@10` for the papers' way of counting.

        Any cut-off that lies within the list that was ranked can be asked for, not only those of the card.
        """
        if metric.startswith("id_"):
            return id_metric(metric, self.ranks.found, self.ranks.id_rank)
        return expected_metric(metric, self.ranks.found, self.ranks.ahead, self.ranks.tied)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Mean of every metric at every cut-off."""
        names = [f"{prefix}{gain}@{k}" for prefix in ("", "id_") for gain in GAINS for k in self.cutoffs]
        return {name: float(self.values(name).mean()) for name in names}

    @cached_property
    def standard_errors(self) -> dict[str, float]:
        """Of the means, over users: what another draw of users would change, not what another seed would."""
        return {name: float(self.values(name).std() / np.sqrt(len(self))) for name in self.metrics}

    @cached_property
    def from_ties(self) -> dict[str, float]:
        """How much comes from targets that share their place: by an equal score or, in a generative model, semantic ID.

        `cases` is their share among the ranked cases; for every metric, the share of its value that they earned.
        """
        tied = self.ranks.found & (self.ranks.tied > 1)
        shares = {"cases": float(tied.sum() / max(self.ranks.found.sum(), 1))}
        for name, value in self.metrics.items():
            shares[name] = float(self.values(name)[tied].sum() / len(self) / value) if value else 0.0
        return shares

    def take(self, rows: IntArray) -> "Report":
        """The same report of some of its cases, in this order."""
        return Report(self.card, {name: column[rows] for name, column in self.cases.items()}, self.ranks.take(rows))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-user values, as plain JSON values."""
        exact = self.ranks.exact
        return {
            "metrics": self.metrics,
            "standard_errors": self.standard_errors,
            "cases": len(self),
            "unranked_targets": int((~self.ranks.found).sum()),
            "certified_beams": None if exact is None else int(exact.sum()),
            "from_ties": self.from_ties,
            "card": self.card,
        }

    def text(self) -> str:
        """The report for a terminal."""
        protocol, model = self.card["protocol"], self.card["model"]
        gains = [f"{prefix}{gain}" for prefix in ("", "id_") for gain in GAINS]
        rows = [[gain, *(f"{self.metrics[f'{gain}@{k}']:.4f}" for k in self.cutoffs)] for gain in gains]
        lines = [
            f"{model['config']['method']}: {protocol['part']} part of {protocol['split']}, {len(self):,} users",
            f"candidates: {protocol['candidates']}; ranking: {model['ranking']}",
            "",
            format_table([["", *(f"@{k}" for k in self.cutoffs)], *rows], align="lr"),
            "",
            "id_: any item with the target's semantic ID (or its very score) is a hit, as most papers count.",
            f"targets without a rank: {(~self.ranks.found).sum():,} of {len(self):,}",
        ]
        if self.ranks.exact is not None:
            lines.append(f"beams proven equal to exact ranking: {self.ranks.exact.sum():,} of {len(self):,}")
        if self.from_ties["cases"]:
            shares = ", ".join(f"{self.from_ties[f'{gain}@{self.cutoffs[-1]}']:.1%} of {gain}" for gain in GAINS)
            lines.append(f"earned by targets that share their place with others: {shares} @{self.cutoffs[-1]}")
        if protocol["seen_targets"]:
            lines.append(f"targets that the user had taken before: {protocol['seen_targets']:,}")
        return "\n".join(lines)

    def save(self, folder: PathLike) -> None:
        """Write as an artefact of kind `report`: `report.json`, and `per_user.parquet` with a row per case."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {**self.cases, **{name: getattr(self.ranks, name) for name in RANK_COLUMNS}}
        if self.ranks.exact is not None:
            columns["exact"] = self.ranks.exact
        if (lists := self.ranks.lists) is not None:
            columns[LISTS] = pa.FixedSizeListArray.from_arrays(lists.astype(np.int32).flatten(), lists.shape[1])
        sources = self.card["model"]["sources"]
        with write_artifact(
            folder, kind="report", config=self.card, sizes={"cases": len(self)}, sources=sources
        ) as staging:
            pq.write_table(pa.table(columns), staging / "per_user.parquet")
            write_json(staging / "report.json", self.to_dict())

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open a saved report.

        Raises:
            ArtifactError: the folder holds no report, or a damaged one.
        """
        import pyarrow.parquet as pq

        with open_artifact(folder, kind="report") as (path, manifest):
            card = read_json(path / "report.json")["card"]
            table = pq.read_table(path / "per_user.parquet")
            columns = {name: table[name].to_numpy() for name in table.column_names if name != LISTS}
            ranks = Ranks(
                **{name: columns.pop(name) for name in (*RANK_COLUMNS, "exact") if name in columns},
                lists=_lists(table[LISTS]) if LISTS in table.column_names else None,
            )
            if len(table) != manifest.sizes["cases"]:
                raise ValueError(f"{len(table)} rows, not {manifest.sizes['cases']}")
            return cls(card, columns, ranks)


def _lists(column: Any) -> IntArray:
    """(M, k) item rows from a column of lists that are equally long."""
    lists: IntArray = column.combine_chunks().flatten().to_numpy().reshape(len(column), column.type.list_size)
    return lists


def require_same_protocol(
    first: str, one: Mapping[str, Any], second: str, other: Mapping[str, Any], *, remedy: str = ""
) -> None:
    """Refuse two protocols that are not equal, naming where they differ.

    Args:
        first, second: what follows them.
        one, other: as the cards of reports have them.
        remedy: what to do; "": evaluate again.

    Raises:
        ConfigError: they differ.
    """
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if differing:
        found = "; ".join(f"{key}: {one.get(key)} and {other.get(key)}" for key in differing)
        raise ConfigError(
            f"{first} and {second} follow different protocols ({found}), so they do not go into one table. "
            f"{remedy or 'Evaluate both again in the same way.'}"
        )
