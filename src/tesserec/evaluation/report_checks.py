"""Which reports go into one comparison, and their users in one order."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tesserec.artifacts import require_same
from tesserec.config import without_seeds
from tesserec.errors import ConfigError, DataError
from tesserec.evaluation.report import RANK_COLUMNS, Report, require_same_protocol
from tesserec.text.embeddings import Embeddings


def require_one_protocol(reports: Mapping[str, Sequence[Report]], may_repeat: Collection[str] = ()) -> None:
    """Refuse reports that do not go into one comparison.

    Args:
        reports: name of a method -> reports of its seeds.
        may_repeat: methods whose reports may be those of another method.

    Raises:
        ConfigError: there are none; they follow different protocols (the fields are named); one report or seed is there
            twice; those of one method differ in more than their seed.
    """
    if not reports or not all(reports.values()):
        raise ConfigError("There are no reports to compare. Give one or more of every method.")
    labelled = [
        (f"{name} (seed {report.card['model']['seed']})", name, report)
        for name, of_method in reports.items()
        for report in of_method
    ]
    (first_label, _, first), *others = labelled
    for label, _, report in others:
        require_same_protocol(
            f"The reports of {first_label}", first.card["protocol"], f"those of {label}", report.card["protocol"]
        )
    for place, (label, name, report) in enumerate(labelled):
        for other_label, other_name, other in labelled[:place]:
            if _same(report, other) and (name == other_name or not {name, other_name} & set(may_repeat)):
                raise ConfigError(f"One report was given twice, as {other_label} and as {label}. Leave one out.")
            if name == other_name:
                _require_seeds_of_one_method(name, other, report)


def require_items_of(embeddings: Embeddings, reports: Mapping[str, Sequence[Report]]) -> None:
    """Refuse embeddings of another catalogue than that of the reports.

    Raises:
        ArtifactError: they do not belong together.
    """
    for name, of_method in reports.items():
        for report in of_method:
            require_same("The embeddings", embeddings.catalogue.fingerprint, f"a report of {name}",
                         report.card["model"]["sources"]["catalogue"],
                         remedy="Give embeddings of the items of these reports.")  # fmt: skip


def _same(one: Report, other: Report) -> bool:
    return one.card == other.card and all(
        np.array_equal(getattr(one.ranks, column), getattr(other.ranks, column)) for column in RANK_COLUMNS
    )


def _require_seeds_of_one_method(name: str, one: Report, other: Report) -> None:
    first, second = one.card["model"], other.card["model"]
    if (first["config"], first["sources"], first["ranking"]) == (
        second["config"],
        second["sources"],
        second["ranking"],
    ):
        raise ConfigError(
            f"Two reports of {name} have the same settings, inputs and seed ({first['seed']}), so they are no two "
            "draws. Leave one out, or give it a name of its own."
        )
    asked, also = ({**without_seeds(model["config"]), "ranking": model["ranking"]} for model in (first, second))
    if found := differing(asked, also):
        raise ConfigError(f"Reports of {name} differ in more than their seed ({found}). Give them names of their own.")


def differing(one: Any, other: Any, at: str = "") -> str:
    """Where two plain values differ first, and how; "" if they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = (differing(one.get(key), other.get(key), f"{at}.{key}" if at else key) for key in {**one, **other})
        return next((place for place in found if place), "")
    return "" if one == other else f"{at}: {one} and {other}"


def align(reports: Mapping[str, Sequence[Report]]) -> dict[str, list[Report]]:
    """The same reports, all with the users in the order of the first one.

    Raises:
        DataError: they are of different users or targets.
    """
    first_name, first_reports = next(iter(reports.items()))
    first = first_reports[0]
    return {
        name: [_ordered(report, first, name, first_name) for report in of_method] for name, of_method in reports.items()
    }


def _ordered(report: Report, first: Report, name: str, first_name: str) -> Report:
    users, wanted = report.cases["user_id"], first.cases["user_id"]
    if not np.array_equal(users, wanted):
        missing, more = np.setdiff1d(wanted, users), np.setdiff1d(users, wanted)
        if len(missing) or len(more) or len(users) != len(wanted):
            some = ", ".join(map(str, [*missing[:3], *more[:3]]))
            raise DataError(
                f"{len(missing)} users of {first_name} are not in a report of {name}, {len(more)} are only there "
                f"({some}). Compare reports of the same users."
            )
        place = np.empty(len(wanted), dtype=np.int64)
        place[np.argsort(wanted, kind="stable")] = np.argsort(users, kind="stable")
        report = report.take(place)
    differing = np.flatnonzero(report.cases["target_id"] != first.cases["target_id"])
    if len(differing):
        row = differing[0]
        raise DataError(
            f"{len(differing)} users have another target in a report of {name} than in one of {first_name}, the first "
            f"is {wanted[row]}: {report.cases['target_id'][row]} and {first.cases['target_id'][row]}. Compare reports "
            "of one split."
        )
    return report
