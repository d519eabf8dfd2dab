"""Why a generative model missed: where beams lost the targets, and whether a wider one would have kept them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from tesserec.artifacts import open_artifact, read_json, write_artifact, write_json
from tesserec.config import choose
from tesserec.data.splits import Cases, Split
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation.evaluate import check_ranking, require_fitted_on, require_generative
from tesserec.functional.beam_trace import trace_targets
from tesserec.functional.exact import prefix_ranks
from tesserec.progress import SILENT, Progress
from tesserec.recommenders.base import Candidates, Recommender, blocks
from tesserec.recommenders.generative import GenerativeRecommender
from tesserec.tables import format_table
from tesserec.types import BoolArray, FloatArray, IntArray, PathLike

WIDTHS = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # of the curve
TOP = 10  # places of a list that people look at
KIND, SUMMARY, PER_USER = "misses", "misses.json", "per_user.parquet"


@dataclass(frozen=True)
class LevelOfBeam:
    """What happened on one level of the IDs, 0 being the first.

    Attributes:
        reached: users whose target's prefix was in the beam before this level.
        lost: of these, users whose target's prefix fell out on it.
        median_rank: of the lost prefixes among the children of the beam's hypotheses; None if none was lost.
        loss: mean of -log p of the target's code, its codes before being given, over all users, in nats.
        chance: ln of the codebook's size, the loss of a model that knows nothing.
    """

    reached: int
    lost: int
    median_rank: float | None
    loss: float
    chance: float


@dataclass(frozen=True, eq=False)
class Misses:
    """A beam search seen from the target of each of M users.

    Attributes:
        card: what was looked at: data set, split, part, what was masked, how many users were drawn, and by which seed;
            of the recommender its method and sources.
        beam_width: hypotheses kept.
        codebook_sizes: L sizes.
        users: (M,) their ids.
        lost_at: (M,) the level on which the target's prefix left the beam; L: it never did.
        ranks: (M, L) rank from 1 of the target's prefix among the children of the beam's hypotheses, itself included.
            After it has left the beam, too: then it is where the prefix would stand had it been let in.
        log_probs: (M, L) of the target's code, its codes before being given. Their sum is the exact log-probability of
            the target's ID, whatever the beam did.
        above: (M,) IDs in the final beam that are more likely than the target's.
        exact_ranks: (M, L) rank from 1 of the target's prefix among all prefixes of the catalogue of that length, the
            last being the place of its ID in exact ranking; None where that was not asked for.
        not_candidates: further cases whose target could not be recommended (it was masked).
    """

    card: dict[str, Any]
    beam_width: int
    codebook_sizes: tuple[int, ...]
    users: npt.NDArray[Any]
    lost_at: IntArray
    ranks: IntArray
    log_probs: FloatArray
    above: IntArray
    exact_ranks: IntArray | None
    not_candidates: int

    def __len__(self) -> int:
        return len(self.lost_at)

    @property
    def lost(self) -> BoolArray:
        """(M,) whether the final beam does not hold the target's ID."""
        return self.lost_at < len(self.codebook_sizes)

    @property
    def estimated_widths(self) -> IntArray:
        """(M,) a width that might have kept the target: its worst rank over the levels in this beam.

        Equal to or below `beam_width` for those kept and above it for those lost. For the lost it is an estimate from
        below, often far below, as a wider beam brings further competitors on every level but the first: no share of
        kept targets is made from it beyond the beam's own width.
        """
        widths: IntArray = self.ranks.max(axis=1)
        return widths

    @property
    def certain_widths(self) -> IntArray | None:
        """(M,) any beam of this width or more keeps the target: its worst rank among all prefixes of each length.

        A narrower one may keep it, too, if it drops the right competitors early. None where `exact` was not asked for.
        """
        return self.exact_ranks.max(axis=1) if self.exact_ranks is not None else None

    @property
    def lost_to_search(self) -> BoolArray:
        """(M,) lost, though the list of the beam's width should hold the ID; the other lost ones the model lost.

        With `exact_ranks` that is so by the place in exact ranking. Without, it is so where fewer IDs of the final beam
        than its width are more likely: none is forgotten, but some are counted whose exact place is further behind.
        """
        return self._lost_from_top(self.beam_width)

    def _lost_from_top(self, k: int) -> BoolArray:
        place = self.above + 1 if self.exact_ranks is None else self.exact_ranks[:, -1]
        lost: BoolArray = self.lost & (place <= k)
        return lost

    @property
    def levels(self) -> tuple[LevelOfBeam, ...]:
        """One for each level of the IDs."""
        found = list[LevelOfBeam]()
        for level, size in enumerate(self.codebook_sizes):
            lost = self.lost_at == level
            found.append(
                LevelOfBeam(
                    reached=int((self.lost_at >= level).sum()),
                    lost=int(lost.sum()),
                    median_rank=float(np.median(self.ranks[lost, level])) if lost.any() else None,
                    loss=float(-self.log_probs[:, level].astype(np.float64).mean()),
                    chance=float(np.log(size)),
                )
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-user values, as plain JSON values."""
        n_users, certain = len(self), self.certain_widths
        return {
            "beam_width": self.beam_width,
            "users": n_users,
            "not_candidates": self.not_candidates,
            "levels": [asdict(level) for level in self.levels],
            "kept": int((~self.lost).sum()),
            "lost_to_search": int(self.lost_to_search.sum()),
            f"lost_to_search_from_top_{TOP}": int(self._lost_from_top(TOP).sum()),
            "loss": float(-self.log_probs.astype(np.float64).sum(axis=1).mean()),
            "widths": [
                {
                    "width": width,
                    "estimated": float((self.estimated_widths <= width).mean()) if width <= self.beam_width else None,
                    "certain": None if certain is None else float((certain <= width).mean()),
                }
                for width in WIDTHS
            ],
            "card": self.card,
        }

    def text(self) -> str:
        """For a terminal."""
        found, n_users = self.to_dict(), len(self)
        rows = [["level", "reached", "lost", "of all users", "median rank", "loss", "chance"]]
        for number, level in enumerate(self.levels):
            rank = "-" if level.median_rank is None else f"{level.median_rank:,.0f}"
            rows.append([str(number), f"{level.reached:,}", f"{level.lost:,}", f"{level.lost / n_users:.1%}", rank,
                         f"{level.loss:.3f}", f"{level.chance:.3f}"])  # fmt: skip
        curve = [["width", *(f"{point['width']:,}" for point in found["widths"])]]
        for name in ("estimated", "certain"):
            shares = [point[name] for point in found["widths"]]
            curve.append([name, *("-" if share is None else f"{share:.1%}" for share in shares)])
        search, top = found["lost_to_search"], found[f"lost_to_search_from_top_{TOP}"]
        bound = "" if self.exact_ranks is not None else "at most "
        lines = [
            f"beam of {self.beam_width}, {n_users:,} users",
            f"targets whose ID is in the final beam: {found['kept']:,} ({found['kept'] / n_users:.1%})",
            "",
            "where the target's prefix left the beam, its rank there, and the loss of its code over all users (nats)",
            format_table(rows, align="r"),
            "",
            f"lost by the search from the best {self.beam_width} IDs: {bound}{search:,} ({search / n_users:.1%})",
            f"lost by the search from the best {TOP} IDs: {bound}{top:,} ({top / n_users:.1%})",
            "",
            "targets that a beam of each width keeps (estimated: by ranks in this one; certain: among all prefixes)",
            format_table(curve, align="lr"),
        ]
        if self.not_candidates:
            lines.append(f"\nleft out, as their targets were no candidates: {self.not_candidates:,}")
        return "\n".join(lines)

    def save(self, folder: PathLike, *, sources: Mapping[str, str] | None = None) -> None:
        """Write as an artefact of kind `misses`: `misses.json`, and `per_user.parquet` with a row per user.

        Args:
            folder: becomes the artefact.
            sources: fingerprints, by name, of what the card does not name.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"user_id": self.users, "lost_at": self.lost_at, "above": self.above}
        for level in range(len(self.codebook_sizes)):
            columns[f"rank_{level}"] = self.ranks[:, level]
            columns[f"log_prob_{level}"] = self.log_probs[:, level]
            if self.exact_ranks is not None:
                columns[f"exact_rank_{level}"] = self.exact_ranks[:, level]
        known = {**self.card["sources"], **(sources or {})}
        with write_artifact(folder, kind=KIND, config=self.card, sizes={"users": len(self)}, sources=known) as staging:
            pq.write_table(pa.table(columns), staging / PER_USER)
            write_json(staging / SUMMARY, {**self.to_dict(), "codebook_sizes": list(self.codebook_sizes)})

    @classmethod
    def load(cls, folder: PathLike) -> Self:
        """Open what `save` has written.

        Raises:
            ArtifactError: the folder holds something else, or it is damaged.
        """
        import pyarrow.parquet as pq

        with open_artifact(folder, kind=KIND) as (path, manifest):
            found, table = read_json(path / SUMMARY), pq.read_table(path / PER_USER)
            if len(table) != manifest.sizes["users"]:
                raise ValueError(f"{len(table)} rows, not {manifest.sizes['users']}")
            levels = range(len(found["codebook_sizes"]))

            def by_level(name: str) -> npt.NDArray[Any]:
                return np.stack([table[f"{name}_{level}"].to_numpy() for level in levels], axis=1)

            return cls(
                card=found["card"],
                beam_width=found["beam_width"],
                codebook_sizes=tuple(found["codebook_sizes"]),
                users=table["user_id"].to_numpy(),
                lost_at=table["lost_at"].to_numpy(),
                ranks=by_level("rank"),
                log_probs=by_level("log_prob"),
                above=table["above"].to_numpy(),
                exact_ranks=by_level("exact_rank") if "exact_rank_0" in table.column_names else None,
                not_candidates=found["not_candidates"],
            )


def why_missed(
    recommender: Recommender,
    split: Split,
    *,
    part: str = "validation",
    exclude_seen: bool = False,
    beam_width: int | None = None,
    exact: bool = False,
    n_users: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Misses:
    """Follow the target of every case through the beam search.

    Args:
        recommender: generative, fitted on the training part of this very data set.
        part: `validation` or `test`. What is learned here decides beam widths and tokenizers, hence the default.
        exclude_seen: items of the history are no candidates; targets among them are left out.
        beam_width: None: as the recommender is configured.
        exact: also score every prefix of the catalogue, which tells the exact place of every target and the width from
            which on it is certainly kept. Costs as much as exact ranking.
        n_users: so many cases, drawn by the seed; None, or more than there are: all.
        seed: of the draw.
        progress: who listens.

    Raises:
        ConfigError: the method scores every item; or a value is none of the above.
        ArtifactError: the recommender was fitted on other data.
        DataError: the part has no cases.
    """
    cases: Cases = choose(part, {"test": split.test, "validation": split.validation}, what="part")
    require_generative(recommender)
    width = recommender.config.beam_width if beam_width is None else beam_width
    check_ranking((1,), False, width)
    if n_users is not None and n_users < 1:
        raise ConfigError(f"n_users is {n_users}. Look at 1 user or more.")
    if seed < 0:
        raise ConfigError(f"seed is {seed}. Use 0 or more.")
    require_fitted_on(recommender, split)
    if n_users is not None and n_users < len(cases):
        cases = cases.take(np.sort(np.random.default_rng(seed).choice(len(cases), n_users, replace=False)))
    assert isinstance(recommender, GenerativeRecommender)
    index = recommender.index
    shape = len(cases), index.n_levels
    opened = np.zeros(len(cases), dtype=np.bool_)
    above, lost_at = np.zeros((2, len(cases)), dtype=np.int64)
    ranks, exact_ranks = np.zeros((2, *shape), dtype=np.int64)
    log_probs = np.zeros(shape, dtype=np.float32)
    with progress.task("following targets", len(cases)) as task:
        for block in blocks(len(cases)):
            some = cases.take(np.arange(len(cases))[block])
            candidates = Candidates(denied=some.histories if exclude_seen else None)
            for rows, decoder, restriction in recommender.decodings(some.histories, some.users, candidates):
                at, targets = block.start + rows, torch.from_numpy(some.targets[rows]).to(index.device)
                trace = trace_targets(decoder.step, index, targets, beam_width=width, restriction=restriction)
                opened[at], lost_at[at] = trace.open.cpu().numpy(), trace.kept.sum(dim=1).cpu().numpy()
                ranks[at], log_probs[at] = trace.ranks.cpu().numpy(), trace.log_probs.cpu().numpy()
                above[at] = trace.above.cpu().numpy()
                if exact:
                    found = prefix_ranks(decoder.node_log_probs, index, targets, restriction=restriction)
                    exact_ranks[at] = found.cpu().numpy()
                task.advance(len(rows))
    if not opened.any():
        raise DataError(f"The {part} part of the split {split.name} has no cases whose target is a candidate.")
    card = {
        "dataset": split.dataset.fingerprint,
        "split": split.name,
        "part": part,
        "exclude_seen": exclude_seen,
        "beam_width": width,
        "n_users": n_users,
        "seed": seed,
        "method": recommender.method,
        "sources": recommender.sources,
    }
    return Misses(
        card=card,
        beam_width=width,
        codebook_sizes=index.codebook_sizes,
        users=np.array(split.dataset.user_ids)[cases.users][opened],
        lost_at=lost_at[opened],
        ranks=ranks[opened],
        log_probs=log_probs[opened],
        above=above[opened],
        exact_ranks=exact_ranks[opened] if exact else None,
        not_candidates=int((~opened).sum()),
    )
