"""What recommended lists are like apart from their hits."""

from collections.abc import Sequence

import numpy as np

from tesserec.evaluation.report import Report
from tesserec.functional.list_statistics import coverage, exposure_gini, mean_distances
from tesserec.text.embeddings import Embeddings


def beyond_accuracy(reports: Sequence[Report], embeddings: Embeddings | None = None) -> dict[str, list[float]]:
    """Figures of the lists of a method's seeds, a value for each seed; nothing where a report keeps no lists.

    Args:
        reports: of one method.
        embeddings: of the items' texts; attributes are taken side by side.

    Returns:
        coverage@k: share of the catalogue in any list.
        gini@k: how unevenly items share the places of the lists; 0 evenly, towards 1 all by one item.
        popularity@k: mean percentile of the listed items by their training events; 0.5 for items at random.
        text_distance@k: mean cosine distance of the pairs in a list, 0 for equal texts; only with embeddings.
    """
    lists = [report.ranks.lists for report in reports if report.ranks.lists is not None]
    if len(lists) < len(reports) or len({found.shape[1] for found in lists}) > 1:
        return {}
    n_items, length = reports[0].card["protocol"]["dataset_sizes"]["items"], lists[0].shape[1]
    figures = {
        "coverage": [coverage(found, n_items) for found in lists],
        "gini": [exposure_gini(found, n_items) for found in lists],
        "popularity": [float(np.nanmean(report.cases["list_popularity"])) for report in reports],
    }
    if embeddings is not None:
        vectors = embeddings.vectors.reshape(len(embeddings.vectors), -1)
        figures["text_distance"] = [float(np.nanmean(mean_distances(found, vectors))) for found in lists]
    return {f"{name}@{length}": values for name, values in figures.items()}
