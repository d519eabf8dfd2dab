"""The rows that LC-Rec learns from: which facts a task asks about, and how many of them an epoch has.

Paper: Zheng et al., ICDE 2024 (arXiv 2311.09049), section III-C. Sources of the rows:

    seqrec               every (history, next item) pair of the training part
    item2index           every item, `item_repeats` times
    index2item           every item, `item_repeats` times
    fusion               a random subset of the pairs of seqrec, drawn once
    itemsearch           one per user: the last item of the training part, with all before it as history
    preference           one per user: the items before the last one of the training part
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tesserec.config import choose
from tesserec.data.samples import Samples
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.language.interests import Interests
from tesserec.language.prompts import TASKS, Facts, PromptBuilder
from tesserec.training.seeds import seed_of
from tesserec.types import IntArray


@dataclass(frozen=True, eq=False)
class TaskRows:
    """All rows of an epoch, task after task."""

    tasks: tuple[str, ...]
    pairs: Samples  # the pairs of seqrec
    rows: tuple[IntArray, ...]  # for each task the pairs, items or users that its rows are about
    n_items: int
    user_ids: Sequence[str]
    interests: Interests
    seed: int

    @classmethod
    def of(
        cls,
        split: Split,
        tasks: Sequence[str],
        interests: Interests,
        *,
        fusion_rows: int | None,
        item_repeats: int = 1,
        seed: int,
    ) -> "TaskRows":
        """
        Args:
            tasks: names of `TASKS`.
            item_repeats: rows of each item in item2index and index2item, each with a template of its own.
            fusion_rows: at most so many pairs for fusion, drawn by the seed; None: all.

        Raises:
            ConfigError: an unknown task, one named twice, or none.
            DataError: no user has two items to train on.
        """
        check_tasks(tasks)
        pairs, random = Samples.of(split.train), np.random.default_rng(seed)
        n_pairs = len(pairs.users)
        if fusion_rows is None or fusion_rows >= n_pairs:
            subset = np.arange(n_pairs)
        else:
            subset = np.sort(random.choice(n_pairs, fusion_rows, replace=False))
        last = np.flatnonzero(np.append(pairs.users[1:] != pairs.users[:-1], True))  # the last pair of each user
        of_task = {
            "seqrec": np.arange(n_pairs),
            "item2index": np.tile(np.arange(split.n_items), item_repeats),
            "index2item": np.tile(np.arange(split.n_items), item_repeats),
            "fusion": subset,
            "itemsearch": last,
            "preference": last,
        }
        rows = tuple(of_task[task] for task in tasks)
        return cls(tuple(tasks), pairs, rows, split.n_items, split.dataset.user_ids, interests, seed)

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @property
    def counts(self) -> dict[str, int]:
        """Rows of an epoch by task."""
        return {task: len(rows) for task, rows in zip(self.tasks, self.rows)}

    def sample(self, row: int, epoch: int, builder: PromptBuilder) -> tuple[IntArray, IntArray] | None:
        """The tokens of a row's request and of its answer, with the template (and query) of this epoch.

        A function of (seed, epoch, row): drawn anew in every epoch, the same in every process and after every resume.

        Returns:
            None where nothing is known that the task could ask about, such as the text of an item without one.
        """
        random = np.random.default_rng(seed_of(self.seed, epoch, row))
        task, facts = self._facts(row, random)
        usable = builder.fillable(task, facts)
        if not usable:
            return None
        return builder.sample(task, usable[int(random.integers(len(usable)))], facts)

    def _facts(self, row: int, random: np.random.Generator) -> tuple[str, Facts]:
        starts = np.cumsum([0, *map(len, self.rows)])
        number = int(np.searchsorted(starts, row, side="right")) - 1
        task, source = self.tasks[number], int(self.rows[number][row - starts[number]])
        if task in ("item2index", "index2item"):
            return task, Facts(item=source)
        pairs = self.pairs
        history = pairs.values[pairs.starts[source] : pairs.targets[source]]
        item, user = int(pairs.values[pairs.targets[source]]), self.user_ids[pairs.users[source]]
        if task in ("seqrec", "fusion"):
            return task, Facts(history, item)
        preference = self.interests.preference(user, history, random)
        if task == "preference":
            return task, Facts(history, preference=preference)
        return task, Facts(history, item, query=self.interests.query(user, item, random), preference=preference)


def check_tasks(tasks: Sequence[str]) -> None:
    """Refuse task names that there are not.

    Raises:
        ConfigError: an unknown name, one given twice, or seqrec is missing.
    """
    for task in tasks:
        choose(task, TASKS, what="task")
    if len(set(tasks)) < len(tasks):
        raise ConfigError(f"tasks names one twice: {', '.join(tasks)}. Name each once.")
    if "seqrec" not in tasks:
        raise ConfigError(f"tasks is {', '.join(tasks) or 'empty'}. Name seqrec, which recommending relies on.")
