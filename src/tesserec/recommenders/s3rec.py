"""S3-Rec: a SASRec that first learns what items and sequences have to do with their attributes.

Pre-training has four tasks on a transformer that sees both sides of a place: guess the attributes of a visible item
(AAP) and of a hidden one (MAP), a hidden item (MIP), and a hidden stretch of a sequence (SP). Item embeddings and
transformer then go on as a SASRec, with a causal mask.

Paper: Zhou et al. 2020, S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information
Maximization (arXiv 2008.07873).

Differences from the paper (its public code where the paper is silent), each with its reason:

- MIP and SP compare scores as they are. The public code takes a logistic function of each score before that of their
  difference, so that the loss cannot fall below 0.3133 and its gradient vanishes; `reference=True` does that.
- SP's wrong stretch is one of the training part, within one user: the public code's pool of stretches has the
  validation and test items in it, and runs across users.
- A user has one random prefix, or the whole sequence (`prefixes=False`), per epoch, not all prefixes.
- Attributes come from any data set: words of the item texts by default, or values of columns. Items without any are
  left out of AAP and MAP: nothing being known is not the same as nothing being true.
- Losses are sums over places, as in the public code, divided by the number of items in the batch: their weights do not
  depend on the batch size.
- The blocks are SASRec's of this library in both stages, positions count from the start in both; fine-tuning has its
  loss over all items by default, `loss="bce"` is the paper's. Without pre-training it is SASRec bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.artifacts import fingerprint_json, read_manifest
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.functional.losses import labels_cross_entropy, other_items
from tesserec.networks.transformer import Packed, pack, small_weights
from tesserec.progress import Progress
from tesserec.recommenders.cloze import (
    ClozeNetwork,
    ClozeSteps,
    check_room,
    closed_up,
    covered,
    joined,
    masked_places,
    random_prefixes,
)
from tesserec.recommenders.item_table import ItemTableNetwork, ItemTableSettings, PretrainedItemTable
from tesserec.recommenders.next_item import PART_OVERHEAD
from tesserec.text.attributes import Attributes, column_attributes, word_attributes
from tesserec.training.batching import parts_by_length
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import autocast, resolve_precision
from tesserec.training.loop import Step, train
from tesserec.training.seeds import seeded
from tesserec.types import BoolArray, IntArray

CHECKED = 1024  # sequences whose loss says when pre-training stops


@dataclass(frozen=True, kw_only=True)
class S3RecConfig(ItemTableSettings):
    """The network, its pre-training and the loss of its fine-tuning."""

    attributes: Literal["words", "columns"] = "words"  # of the items: frequent words of their texts, or column values
    columns: tuple[str, ...] = ()  # of attributes = "columns"
    separator: str = ","  # between values in one field; "": a field is one value
    n_attributes: int = 1000  # at most: the most frequent ones
    pretrain_epochs: int = 30  # 0: none
    pretrain_batch_size: int = 256  # users per step
    pretrain_learning_rate: float = 1e-3
    mask_ratio: float = 0.2  # of the items of a sequence are hidden, and the last one
    prefixes: bool = True  # a random prefix of each user per epoch instead of the whole sequence
    aap: float = 0.2  # weights of the four tasks; 0: not done
    mip: float = 1.0
    map: float = 1.0
    sp: float = 0.5
    reference: bool = False  # MIP and SP with the logistic function twice, as the public code has it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_room(self.max_length)
        for name in ("pretrain_epochs", "aap", "mip", "map", "sp"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 0 or more.")
        for name in ("n_attributes", "pretrain_batch_size", "pretrain_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use a value above 0.")
        if not 0 <= self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}. Use 0 or more, and less than 1.")
        if self.pretrain_epochs and not any(self.weights.values()):
            raise ConfigError("All tasks of pre-training have weight 0. Set pretrain_epochs to 0 to do without it.")
        if (self.attributes == "columns") != bool(self.columns):
            raise ConfigError(
                f"attributes is {self.attributes!r} and columns are {', '.join(self.columns) or 'none'}. Name the "
                "columns for attributes = 'columns', and for no other."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Task -> weight, of those that are done."""
        tasks = {"aap": self.aap, "mip": self.mip, "map": self.map, "sp": self.sp}
        return {task: weight for task, weight in tasks.items() if weight > 0}

    @property
    def reads_attributes(self) -> bool:
        """Whether a task of the pre-training needs them."""
        return self.pretrain_epochs > 0 and (self.aap > 0 or self.map > 0)


# -- pre-training: network and tasks -----------------------------------------------------------------------------------


class Known(NamedTuple):
    """Some of the tokens of a part, and their attributes as a list."""

    places: Tensor  # (m,) tokens with an attribute at least
    rows: Tensor  # (p,) row of `places`, for each pair of a token and an attribute of its item
    labels: Tensor  # (p,) the attribute


class Pretext(NamedTuple):
    """B sequences of n items in all: once with hidden items, and three times more for the hidden stretch."""

    inputs: Packed  # hidden, then context, right stretch, wrong stretch: 4 n tokens, or n where there is no SP
    hidden: Tensor  # (m,) tokens of the first form that are MASK
    targets: Tensor  # (m,) what they were
    aap: Known  # of visible tokens
    map: Known  # of hidden ones
    ends: Tensor  # (3, B) last tokens of the other three forms; (3, 0) where there is no SP

    def to(self, device: torch.device) -> "Pretext":
        moved: list[Any] = [
            Known(*(t.to(device) for t in part)) if isinstance(part, Known) else part.to(device) for part in self
        ]
        return Pretext(*moved)


def information(positive: Tensor, negative: Tensor, *, twice: bool) -> Tensor:
    """sum -log s(positive - negative), s the logistic function; with `twice`, of s(positive) and s(negative)."""
    difference = positive.sigmoid() - negative.sigmoid() if twice else positive - negative
    return -F.logsigmoid(difference.float()).sum()


class PretextNetwork(ClozeNetwork):
    """The bidirectional form of a SASRec, with a table of attributes and a matrix for each task that is done."""

    def __init__(self, n_items: int, n_attributes: int, config: S3RecConfig) -> None:
        super().__init__(n_items, config)
        self.config = config
        width = config.width
        self.attributes = nn.Embedding(n_attributes, width) if n_attributes else None
        self.tasks = nn.ModuleDict({task: nn.Linear(width, width, bias=False) for task in config.weights})
        small_weights(self.tasks, *([self.attributes] if self.attributes is not None else []))

    def forward(self, packed: Packed, part: Pretext | None = None, negatives: Tensor | None = None) -> Any:
        """The summed loss of a part, with an item to compare with for each hidden one.

        AAP, MAP   sum_a BCE(W h . v_a, a applies)
        MIP        -log s(W h . e_item - W h . e_other)
        SP         -log s(W c . g_right - W c . g_wrong),   c, g states of the last tokens
        """
        if part is None or negatives is None:
            return super().forward(packed)
        states, config = self.states(packed), self.config
        loss = states.new_zeros((), dtype=torch.float32)
        for task, weight in config.weights.items():
            query = self.tasks[task](states)  # (P, D), of all tokens: a CPU compiles its products for every new number
            if task in ("aap", "map"):
                assert self.attributes is not None
                known = part.aap if task == "aap" else part.map
                asked = query[known.places]  # (m, D)
                loss = loss + weight * labels_cross_entropy(asked, self.attributes.weight, known.rows, known.labels)
            elif task == "mip":
                right, wrong = self.items(part.targets), self.items(negatives)
                loss = loss + weight * self.compared(query[part.hidden], right, wrong)
            else:
                context, right, wrong = part.ends  # (B,) each
                loss = loss + weight * self.compared(query[context], states[right], states[wrong])
        return loss

    def compared(self, query: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        """A scalar, of rows (m, D)."""
        return information((query * right).sum(dim=1), (query * wrong).sum(dim=1), twice=self.config.reference)


class Pretraining(ClozeSteps):
    """Objective: the four tasks, of which each has its own weight."""

    def __init__(
        self,
        sequences: Sequences,
        n_items: int,
        attributes: Attributes | None,
        config: S3RecConfig,
        training: TrainingConfig,
    ) -> None:
        super().__init__(sequences, n_items, config.max_length, training)
        self.n_items, self.attributes, self.config = n_items, attributes, config
        pool = closed_up(sequences)
        rows, index = pool.positions()
        self.pool = pool.values  # (E,)
        left = pool.stops[rows] - index  # (E,) how many items a stretch from here can have
        self.starts = np.argsort(left, kind="stable")
        self.left = left[self.starts]  # ascending

    def hide(self, sequences: Sequences, random: np.random.Generator) -> Step:
        config = self.config
        cut = np.full(len(sequences), config.prefixes)
        sequences = closed_up(random_prefixes(sequences, cut, random))
        hidden = masked_places(sequences, config.mask_ratio, random)
        hidden[sequences.stops - 1] = True
        forms = [covered(sequences, hidden, self.mask)]
        if config.sp > 0:
            forms += self.stretches(sequences, random)
        parts = parts_by_length(
            sequences.lengths, max_tokens=self.training.tokens_per_part // len(forms), overhead=PART_OVERHEAD
        )
        made = [self.part([form.take(part) for form in forms], sequences.take(part)) for part in parts]
        return Step(made, len(sequences.values))

    def stretches(self, sequences: Sequences, random: np.random.Generator) -> list[Sequences]:
        """Context, right and wrong stretch: up to half the items of each sequence, or all but these, are hidden.

        The wrong one has equally many items, in the same places, of a place drawn from all of the training part.
        """
        lengths = sequences.lengths
        sizes = 1 + (random.random(len(lengths)) * (lengths // 2)).astype(np.int64)
        first = sequences.starts + (random.random(len(lengths)) * (lengths - sizes + 1)).astype(np.int64)
        longer = np.searchsorted(self.left, sizes)  # from here on, stretches can be long enough
        drawn = longer + (random.random(len(lengths)) * (len(self.left) - longer)).astype(np.int64)
        rows, index = sequences.positions()
        inside = (index >= first[rows]) & (index < (first + sizes)[rows])
        wrong = sequences.values.copy()
        wrong[inside] = self.pool[(self.starts[drawn][rows] + index - first[rows])[inside]]
        others = Sequences(wrong, sequences.starts, sequences.stops)
        return [
            covered(sequences, inside, self.mask),
            covered(sequences, ~inside, self.mask),
            covered(others, ~inside, self.mask),
        ]

    def part(self, forms: Sequence[Sequences], originals: Sequences) -> Pretext:
        """The forms of some sequences as tensors, and what is asked of them."""
        items, _ = originals.flat()
        packed = pack(joined(forms))
        hidden = packed.items[: len(items)].numpy() == self.mask
        ends = np.cumsum(np.concatenate([originals.lengths] * len(forms))) - 1
        return Pretext(
            packed,
            torch.from_numpy(np.flatnonzero(hidden)),
            torch.from_numpy(items[hidden].astype(np.int64)),
            self.known(items, ~hidden, self.config.aap),
            self.known(items, hidden, self.config.map),
            torch.from_numpy(ends[len(originals) :].reshape(3, -1)),
        )

    def known(self, items: IntArray, asked: BoolArray, weight: float) -> Known:
        """Attributes of the items (n,) in some of the places (n,); nothing where the task is not done."""
        if self.attributes is None or weight == 0:
            return Known(*(torch.zeros(0, dtype=torch.int64) for _ in Known._fields))
        of_items = self.attributes.of_items
        places = np.flatnonzero(asked & (of_items.lengths[items] > 0))
        rows, index = of_items.take(items[places]).positions()
        labels = of_items.values[index].astype(np.int64)
        return Known(torch.from_numpy(places), torch.from_numpy(rows), torch.from_numpy(labels))

    def loss(self, model: nn.Module, part: Pretext, device: torch.device) -> Tensor:
        part = part.to(device)
        loss: Tensor = model(part.inputs, part, other_items(part.targets, self.n_items))
        return loss

    @torch.no_grad()
    def fixed_loss(self, model: nn.Module) -> float:
        """Mean loss on one batch of training sequences, the same places hidden in every call."""
        device = next(model.parameters()).device
        random = np.random.default_rng((self.training.seed, 1))
        rows = random.permutation(len(self.sequences))[:CHECKED]
        with seeded(self.training.seed), autocast(device, resolve_precision(self.training.precision, device)):
            step = self.hide(self.sequences.take(rows), random)
            return float(sum(self.loss(model, part, device) for part in step.parts)) / step.n_targets


# -- recommender -------------------------------------------------------------------------------------------------------


class S3Rec(PretrainedItemTable):
    """Next items by a causal transformer that was pre-trained on the attributes of items."""

    method = "s3rec"
    config_class = S3RecConfig
    network: ItemTableNetwork | None

    def __init__(self, config: S3RecConfig | None = None, training: TrainingConfig | None = None) -> None:
        super().__init__(config, training)  # the "validation" of its pre-training is minus the loss on some sequences
        self._attributes_fingerprint = ""  # "": none were read

    def _pretrain(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        """Item embeddings and encoder as the four tasks leave them."""
        attributes = item_attributes(split, self.config) if self.config.reads_attributes else None
        self._attributes_fingerprint = attributes.fingerprint if attributes is not None else ""
        training = pretraining_config(self.config, self.training)
        objective = Pretraining(split.train, split.n_items, attributes, self.config, training)
        with seeded(training.seed, 1):
            network = PretextNetwork(split.n_items, len(attributes.names) if attributes else 0, self.config)
        self.pretraining_log = train(
            network,
            objective,
            training,
            validate=lambda _: -objective.fixed_loss(network),
            checkpoints=checkpoints,
            identity=fingerprint_json([self.full_config, self.sources, split.name]),
            measure="minus loss",
            progress=progress,
        )
        self._fitted_network.items.load_state_dict(network.items.state_dict())
        self._fitted_network.encoder.load_state_dict(network.encoder.state_dict())

    def _make_network(self, n_items: int) -> ItemTableNetwork:
        return ItemTableNetwork(n_items, self.config)

    @property
    def _fitted_network(self) -> ItemTableNetwork:
        return self._fitted(self.network)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _extra_sources(self) -> dict[str, str]:
        return {"attributes": self._attributes_fingerprint} if self._attributes_fingerprint else {}

    def _read(self, folder: Path) -> None:
        super()._read(folder)
        self._attributes_fingerprint = read_manifest(folder).sources.get("attributes", "")


def item_attributes(split: Split, config: S3RecConfig) -> Attributes:
    """Attributes of the items of a data set.

    Raises:
        ConfigError: it has no texts, or no such columns.
        DataError: no attribute is shared by two items.
    """
    items = split.dataset.items
    if config.attributes == "words":
        return word_attributes(items, at_most=config.n_attributes)
    return column_attributes(items, config.columns, separator=config.separator, at_most=config.n_attributes)


def pretraining_config(config: S3RecConfig, training: TrainingConfig) -> TrainingConfig:
    """How pre-training runs: as fine-tuning does, but for its own length, batches and learning rate."""
    return replace(
        training,
        epochs=config.pretrain_epochs,
        max_steps=None,
        batch_size=config.pretrain_batch_size,
        learning_rate=config.pretrain_learning_rate,
    )
