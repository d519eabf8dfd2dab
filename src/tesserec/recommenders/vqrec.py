"""VQ-Rec: an item is the mean of the embeddings of its codes, so that items of any shop share one table.

Codes of the item's text look up learned embeddings, whose mean is the item's vector; a causal transformer reads the
vectors of a history and ranks by cosine. Trained on one data set, or in three steps: contrastive training on several
domains, codes of the new domain matched to the old code embeddings by a learned permutation, code embeddings tuned.

Paper: Hou, He, McAuley, Zhao 2023, Learning Vector-Quantized Item Representation for Transferable Sequential
Recommenders (arXiv 2210.12316).

Differences from the paper, each with its reason:

- Any semantic IDs do as codes, residual ones and an extra level too: "SASRec on codes" compares tokenizers.
- The permutation is learned. In the released code no gradient reaches it (a `ceil` ends the chain), what it hands over
  is a random map under which a fifth of the code embeddings are lost; `alignment = "reference"` draws such a map.
- In pre-training, rows of the same target are no negatives of each other; the released code leaves each a weight of
  exp(0). Processes share one batch and its gradients; in the released code each trains a model of its own.
- One pass per user trains all positions, and the vectors of a step's items are made once, instead of a row of 50 places
  for each prefix.
- Dropout is on what each layer adds, not on attention weights, so that fused attention kernels apply.
- No row of the table stands for padding, and padding is no class of the loss.
- From scratch everything is trained. The released trainer would freeze a random transformer after five epochs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tesserec.artifacts import read_json, write_json
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.functional.sinkhorn import best_permutation, doubly_stochastic, gumbel, sinkhorn
from tesserec.networks.transformer import SequenceEncoder, small_weights
from tesserec.progress import Progress
from tesserec.recommenders.item_vectors import (
    CatalogueNextItem,
    ItemFeatures,
    ItemVectorNetwork,
    ItemVectorRecommender,
    ItemVectorSettings,
    Output,
)
from tesserec.recommenders.next_item import Part
from tesserec.recommenders.validation import train_by_validation
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device
from tesserec.training.loop import Objective, Step, Steps, TrainingLog
from tesserec.training.saving import write_network
from tesserec.training.seeds import seeded
from tesserec.types import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class VQRecConfig(ItemVectorSettings):
    """The network, its loss, and what happens to a model of another domain before and while it is trained on."""

    width: int = 128  # of code embeddings, item vectors and states
    temperature: float | None = 0.07
    corruption: float = 0.0  # in-batch: share of a target's codes that its semi-synthetic negative has redrawn; 0: none
    alignment: Literal["none", "learned", "reference"] = "none"  # how codes find the code embeddings of `pretrained`
    alignment_epochs: int = 5  # in which only the permutations are trained
    alignment_rate: float = 0.1  # learning rate of them
    alignment_plan: Literal["soft", "straight-through"] = "soft"  # what training makes the item vectors with, then
    alignment_noise: float = 0.3  # scale of the Gumbel noise on the logits
    alignment_temperature: float = 0.7  # of the plans, in the units of the logits
    alignment_final_temperature: float = 0.1  # soft: what it falls to, epoch by epoch
    sinkhorn_passes: int = 50
    tuned: Literal["all", "codes", "nothing"] = "all"  # "codes": code embeddings and the norm of what the blocks read
    # `zero_shot` takes the weights of `pretrained` as they are: nothing is aligned, nothing tuned.

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads(self.width)
        if not 0 <= self.corruption <= 1:
            raise ConfigError(f"corruption is {self.corruption}. Use a share from 0 to 1, such as 0.75.")
        if self.corruption and self.loss != "in-batch":
            raise ConfigError(
                f"corruption is {self.corruption}, but semi-synthetic negatives belong to loss = in-batch, not "
                f"{self.loss}. Set recommender.loss to in-batch, or corruption to 0."
            )
        if self.alignment_noise < 0:
            raise ConfigError(f"alignment_noise is {self.alignment_noise}. Use 0 or more.")
        for name in ("alignment_rate", "alignment_temperature", "alignment_final_temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use a value above 0.")
        if self.alignment_epochs < 1:
            raise ConfigError(f"alignment_epochs is {self.alignment_epochs}. Use 1 or more, or alignment = none.")
        if self.sinkhorn_passes < 20:
            raise ConfigError(
                f"sinkhorn_passes is {self.sinkhorn_passes}. Use 20 or more: with fewer, rows do not sum to 1."
            )


# -- network -----------------------------------------------------------------------------------------------------------


class Alignment(nn.Module):
    """Which row of a level's code embeddings each code reads: a learned permutation for every level.

    A plan P is a doubly stochastic matrix of logits and Gumbel noise; H is the permutation of the largest logits,
    without noise. In training codes read

        E'_l = P_l E_l    ("soft"), at a temperature that falls, or    E'_l = H_l E_l + (P_l - sg(P_l)) E_l,

    and H_l E_l in evaluation mode, which is what is handed over at the end.

    Args:
        sizes: L codebook sizes.
        config: its `alignment_*` settings.
    """

    def __init__(self, sizes: Sequence[int], config: VQRecConfig) -> None:
        super().__init__()
        self.sizes, self.config, self.temperature = list(sizes), config, config.alignment_temperature
        # Code k starts at row k: right if one tokenizer coded both catalogues, and else as good as any other row.
        self.logits = nn.ParameterList(torch.eye(size) for size in sizes)

    def forward(self, table: Tensor) -> Tensor:
        """(V, D) code embeddings, level after level, as codes read them."""
        soft = self.config.alignment_plan == "soft"
        aligned = table[self.rows] if not (self.training and soft) else torch.zeros_like(table)
        if not self.training:
            return aligned
        with torch.autocast(table.device.type, enabled=False):
            plans = [plan if soft else plan - plan.detach() for plan in self.plans()]
            moved = [plan @ rows for plan, rows in zip(plans, torch.split(table.float(), self.sizes))]
        return aligned + torch.cat(moved)

    def plans(self) -> list[Tensor]:
        """L matrices (K_l, K_l) that are doubly stochastic, drawn anew in each call."""
        noise, passes = self.config.alignment_noise, self.config.sinkhorn_passes
        return [
            doubly_stochastic(logits + noise * gumbel(logits), temperature=self.temperature, n_iters=passes)
            for logits in self.logits
        ]

    @property
    def rows(self) -> Tensor:
        """(V,) the row of the table that each code reads, without noise; every row occurs once."""
        starts = np.cumsum([0, *self.sizes[:-1]]).tolist()
        return torch.cat([start + best_permutation(logits) for start, logits in zip(starts, self.logits)])


def reference_rows(sizes: Sequence[int]) -> Tensor:
    """(V,) the random map of the released code: in each row the largest entry of a plan of noise after three passes.

    About a fifth of a level's rows are read by no code, others by several: it is no permutation.
    """
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    rows = list[Tensor]()
    for start, size in zip(starts, sizes):
        noise = torch.randn(size, size)
        rows.append(start + sinkhorn(-(noise + gumbel(noise)), temperature=0.7, n_iters=3).argmax(dim=1))
    return torch.cat(rows)


class CodeItems(nn.Module):
    """Item vectors: means of code embeddings.

    Args:
        sizes: L codebook sizes, V codes in all.
    """

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.table = nn.Parameter(torch.zeros(sum(sizes), width))
        self.alignment: Alignment | None = None

    def forward(self, items: Tensor, codes: Tensor) -> Tensor:
        """(U, D) vectors, from the rows of the table (U, L) that the codes name; `items` are not looked at."""
        table = self.table if self.alignment is None else self.alignment(self.table)
        return F.embedding_bag(codes, table, mode="mean")

    @torch.no_grad()
    def rearrange(self, rows: Tensor) -> None:
        """Make the table what codes read under an alignment, which is over with that."""
        self.table.copy_(self.table[rows.to(self.table.device)])
        self.alignment = None


class VQRecNetwork(ItemVectorNetwork):
    """Pooled code embeddings, and histories of them -> a state after each item."""

    items: CodeItems

    def __init__(self, sizes: Sequence[int], config: VQRecConfig) -> None:
        super().__init__(CodeItems(sizes, config.width), SequenceEncoder(config.width, config), config.temperature)
        small_weights(self.items, self.encoder)

    def forward(
        self, parts: Sequence[Part], items: Tensor, features: Sequence[Tensor], corrupted: Tensor | None = None
    ) -> Output:
        """As for all item vectors; `corrupted` codes (n, L), if any, become the last n of the vectors."""
        codes = features[0] if corrupted is None else torch.cat([features[0], corrupted])
        return super().forward(parts, items, [codes])


# -- training ----------------------------------------------------------------------------------------------------------


def corrupted(codes: IntArray, sizes: Sequence[int], share: float, random: np.random.Generator) -> IntArray:
    """Copies of items in which codes are redrawn uniformly, each with probability `share`; a draw may be the old code.

    Args:
        codes: (n, L) rows of a table that holds the codebooks one after the other.
        sizes: L codebook sizes.

    Source: Hou et al. 2023 (VQ-Rec, arXiv 2210.12316), section 3.2.2.
    """
    starts = np.cumsum([0, *sizes[:-1]])
    drawn = starts + random.integers(np.array(sizes), size=codes.shape)
    return np.where(random.random(codes.shape) < share, drawn, codes)


class CodesNextItem(CatalogueNextItem):
    """Objective: every item of a sequence predicts the next one; semi-synthetic negatives where there are any."""

    config: VQRecConfig

    def __init__(
        self,
        sequences: Sequences,
        features: Sequence[Tensor],
        n_items: int,
        config: VQRecConfig,
        training: TrainingConfig,
        *,
        network: VQRecNetwork,
        item_domains: IntArray | None = None,
    ) -> None:
        super().__init__(sequences, features, n_items, config, training, item_domains=item_domains)
        self.codes: IntArray = features[0].cpu().numpy()  # (N, L)
        self.items = network.items

    def steps(self, epoch: int) -> Steps:
        if self.items.alignment is not None and self.config.alignment_plan == "soft":
            first, last = self.config.alignment_temperature, self.config.alignment_final_temperature
            way = epoch / max(self.config.alignment_epochs - 1, 1)
            self.items.alignment.temperature = first * (last / first) ** way
        return super().steps(epoch)

    def step(self, rows: IntArray) -> Step:
        """Codes are drawn for the whole step, from the seed and the sequences, in the order of the events."""
        step = super().step(rows)
        if not self.config.corruption:
            return step
        events = [torch.cat([part.events for part in bundle.parts]).numpy() for bundle in step.parts]
        targets = np.concatenate([np.concatenate([part.targets.numpy() for part in b.parts]) for b in step.parts])
        order = np.argsort(np.concatenate(events))
        random = np.random.default_rng((self.training.seed, *rows.tolist()))
        drawn = corrupted(self.codes[targets[order]], self.items.sizes, self.config.corruption, random)
        every = np.concatenate(events)[order]
        return Step(
            [
                bundle._replace(extra=(torch.from_numpy(drawn[np.searchsorted(every, own)]),))
                for bundle, own in zip(step.parts, events)
            ],
            step.n_targets,
        )


@contextmanager
def only_trained(network: nn.Module, *prefixes: str) -> Iterator[None]:
    """Inside the block, only weights whose names start so have a gradient."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    try:
        yield
    finally:
        network.requires_grad_(True)


# -- recommender -------------------------------------------------------------------------------------------------------

CODES, ALIGNMENT_LOG = "codes.npy", "alignment_log.json"


class VQRec(ItemVectorRecommender):
    """Next items by a causal transformer over pooled code embeddings."""

    method = "vqrec"
    config_class: ClassVar[type[VQRecConfig]] = VQRecConfig
    config: VQRecConfig
    needs_semantic_ids = True
    network: VQRecNetwork | None

    def __init__(self, *args: Any, **features: Any) -> None:
        super().__init__(*args, **features)
        self.alignment_log = TrainingLog()
        self._codes: IntArray = np.zeros((0, 0), dtype=np.int64)  # (N, L) rows of the table
        self._of_id: IntArray | None = None  # (N,) the first item with the same codes; None: all differ

    @property
    def codebook_sizes(self) -> list[int]:
        """L sizes of the codes that the model reads."""
        return self.feature_shapes["semantic_ids"]

    # -- fitting -------------------------------------------------------------------------------------------------------

    @classmethod
    def reads(cls, config: VQRecConfig) -> tuple[str, ...]:
        """
        Raises:
            ConfigError: the configuration needs another model to start from, and names none.
        """
        wanted = f"alignment is {config.alignment!r}" if config.alignment != "none" else f"tuned is {config.tuned!r}"
        if not config.pretrained and (config.alignment != "none" or config.tuned != "all"):
            raise ConfigError(
                f"{wanted}, which needs a model of other data to start from, but pretrained is not set. Name its run: "
                "--set recommender.pretrained=RUN."
            )
        return super().reads(config)

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        self.reads(self.config)
        super()._fit(split, checkpoints, progress)

    def _make_network(self, n_items: int) -> VQRecNetwork:
        return VQRecNetwork(self.codebook_sizes, self.config)

    def _tables(self, features: ItemFeatures) -> list[Tensor]:
        """(N, L) rows of the table that holds the code embeddings of all levels, one after the other."""
        return [torch.from_numpy(_table_rows(_ids_of(features)))]

    def _start_from(self, other: Self) -> None:
        if other.codebook_sizes != self.codebook_sizes:
            raise ArtifactError(
                f"{self.config.pretrained} reads codes of the sizes {_sizes(other.codebook_sizes)}, these items have "
                f"{_sizes(self.codebook_sizes)}. Give the tokenizer the settings of that run (n_levels, codebook_size, "
                "collisions), or use the very same: tokenizer=fitted."
            )
        super()._start_from(other)

    def _objective(self, split: Split, tables: Sequence[Tensor]) -> Objective:
        return self._codes_objective(split, tables, self.training)

    def _codes_objective(self, split: Split, tables: Sequence[Tensor], training: TrainingConfig) -> CodesNextItem:
        return CodesNextItem(
            split.train,
            tables,
            split.n_items,
            self.config,
            training,
            network=self._fitted_network,
            item_domains=self._item_domains(split),
        )

    def _train(
        self, split: Split, tables: Sequence[Tensor], checkpoints: Path | None, progress: Progress
    ) -> TrainingLog:
        config, network = self.config, self._fitted_network
        if config.alignment == "reference":
            with seeded(self.training.seed):
                network.items.rearrange(reference_rows(self.codebook_sizes))
        elif config.alignment == "learned":
            progress.say("alignment: which code embeddings the codes of this catalogue read")
            self._align(split, tables, checkpoints / "alignment" if checkpoints else None, progress)
        if config.tuned == "nothing":
            network.to(resolve_device(self.training.device)).eval()
            return TrainingLog(stopped="nothing to train")
        if config.tuned == "all":
            return super()._train(split, tables, checkpoints, progress)
        with only_trained(network, "items.table", "encoder.input_norm"):
            return super()._train(split, tables, checkpoints, progress)

    def _align(self, split: Split, tables: Sequence[Tensor], checkpoints: Path | None, progress: Progress) -> None:
        """Learn the permutations while all else stays as it is, and rearrange the code embeddings by the best ones."""
        network, epochs = self._fitted_network, self.config.alignment_epochs
        network.items.alignment = alignment = Alignment(self.codebook_sizes, self.config)
        training = replace(
            self.training,
            epochs=epochs,
            max_steps=None,
            learning_rate=self.config.alignment_rate,
            weight_decay=0.0,
            schedule="constant",
            warmup_steps=0,
            validate_every=1,
            patience=epochs,
        )
        with only_trained(network, "items.alignment"):
            self.alignment_log = train_by_validation(
                self,
                network,
                self._codes_objective(split, tables, training),
                split,
                training,
                checkpoints=checkpoints,
                progress=progress,
                before_ranking=lambda: self._settle(tables, split.n_items),
            )
        network.items.rearrange(alignment.rows)

    def _settle(self, tables: Sequence[Tensor], n_items: int) -> None:
        super()._settle(tables, n_items)
        self._keep_codes(tables[0].cpu().numpy())

    def _keep_codes(self, codes: IntArray) -> None:
        if codes is self._codes or np.array_equal(codes, self._codes):
            return
        self._codes = codes
        _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
        self._of_id = first[inverse.reshape(-1)] if len(first) < len(codes) else None

    # -- answering -----------------------------------------------------------------------------------------------------

    def score(self, histories: Sequences) -> FloatArray:
        """Items with equal codes have exactly equal scores."""
        scores = super().score(histories)
        return scores if self._of_id is None else scores[:, self._of_id]

    def with_items(self, *, embeddings: Embeddings | None = None, semantic_ids: SemanticIds | None = None) -> Self:
        """As for all item vectors.

        Raises:
            DataError: most of the items that the model knows have other codes now.
        """
        if semantic_ids is not None and list(semantic_ids.codebook_sizes) == self.codebook_sizes:
            old = self._rows_here(semantic_ids.catalogue)
            known = old >= 0
            changed = int((self._codes[old[known]] != _table_rows(semantic_ids)[known]).any(axis=1).sum())
            if changed > known.sum() / 2:  # sinkhorn and assignment may give some items another last code
                raise DataError(
                    f"{changed} of {known.sum()} items that this model knows have other codes now, so these IDs come "
                    "from another tokenizer, whose codes mean other things. Encode all items with that of the training."
                )
        return super().with_items(embeddings=embeddings, semantic_ids=semantic_ids)

    @property
    def _fitted_network(self) -> VQRecNetwork:
        return self._fitted(self.network)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _write(self, folder: Path) -> None:
        write_network(folder, self._fitted_network, self.log)
        np.save(folder / CODES, self._codes.astype(np.int32))
        if self.alignment_log.rows:
            write_json(folder / ALIGNMENT_LOG, asdict(self.alignment_log))

    def _read_vectors(self, folder: Path) -> Tensor:
        codes = np.load(folder / CODES).astype(np.int64)
        self._keep_codes(codes)
        if (folder / ALIGNMENT_LOG).exists():
            self.alignment_log = TrainingLog(**read_json(folder / ALIGNMENT_LOG))
        return self._fitted_network.catalogue([torch.from_numpy(codes)], len(codes))


def _ids_of(features: ItemFeatures) -> SemanticIds:
    assert features.semantic_ids is not None
    return features.semantic_ids


def _table_rows(ids: SemanticIds) -> IntArray:
    """(N, L) rows of a table that holds the codebooks one after the other."""
    starts = np.cumsum([0, *ids.codebook_sizes[:-1]])
    rows: IntArray = ids.codes + starts
    return rows


def _sizes(sizes: Sequence[int]) -> str:
    """32 x 256, or 256, 256, 1024."""
    return f"{len(sizes)} x {sizes[0]}" if len(set(sizes)) == 1 else ", ".join(map(str, sizes))
