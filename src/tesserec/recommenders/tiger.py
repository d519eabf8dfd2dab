"""TIGER: read the semantic IDs of the history, generate the semantic ID of the next item.

An encoder-decoder of T5's kind reads the codes of a user's latest items as one token sequence and emits the L codes of
the next item one after another; beam search inside the catalogue's trie turns this into ranked items. Because similar
items share their first codes, what is learned of one item helps its neighbours.

Paper: Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023 (arXiv 2305.05065), section 3.2.

Differences from the paper:
- Decoding is constrained to the catalogue (the paper filters invalid IDs afterwards): no slot of a list is wasted.
- One output head per level is the default; the paper's vocabulary shared by all levels is `output = "shared"`.
- The user token is off by default: GRID and the paper's own table find no reliable gain from it. With it, one in ten
  training samples carries an "unknown user" token, which then serves histories of users that were not trained on.
- No end-of-sequence token: all IDs are equally long.
- `temperature` is LETTER's ranking-guided generation loss (arXiv 2405.07314): not of this paper, and 1 by default.
- Every prefix of a training sequence is a sample (the paper does not say; all reproductions that reach its numbers do).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesserec.artifacts import fingerprint_bytes
from tesserec.config import build, to_dict
from tesserec.data.samples import Samples
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError
from tesserec.functional.losses import log_normalizer
from tesserec.networks.t5 import T5, Memory, Past, T5Config
from tesserec.progress import Progress
from tesserec.recommenders.generative import GenerativeRecommender
from tesserec.recommenders.validation import train_by_validation
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.batching import parts_by_length
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device, resolve_precision
from tesserec.training.loop import Step, StepsOfRows, TrainingLog
from tesserec.training.saving import read_network, write_network
from tesserec.training.seeds import seed_of, seeded
from tesserec.types import IntArray

START = 0  # the decoder's first input, and what pads the encoder's
UNKNOWN_USER_SHARE = 0.1  # of the training samples, where there are user tokens
ROW_MULTIPLE = 16  # rows of a training batch,
ROW_MULTIPLE_DECODING = 8  # rows that are encoded together, and
LENGTHS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20])  # its items per row: few shapes (see parts_by_length)


@dataclass(frozen=True, kw_only=True)
class TigerConfig(T5Config):
    """The network's sizes (by default the paper's), what is read, and how items are ranked."""

    max_items: int = 20  # latest items of the history that are read
    output: Literal["per-level", "shared"] = "per-level"  # one head per level, or one softmax over all tokens
    user_buckets: int = 0  # user tokens (users are hashed into so many), 0: none
    temperature: float = 1.0  # divides all logits, in training and in scores; below 1, near misses weigh more (LETTER)
    beam_width: int = 50  # hypotheses kept per user; at least k are kept in any case
    users_per_batch: int = 128  # that are decoded together

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_items < 1 or self.beam_width < 1 or self.users_per_batch < 1 or self.user_buckets < 0:
            raise ConfigError("max_items, beam_width and users_per_batch must be at least 1, user_buckets at least 0.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}. Use a value above 0; LETTER's lie from 0.7 to 1.2.")


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers: START, then the codes of level 0, of level 1, ..., then the user buckets and the unknown user."""

    codebook_sizes: tuple[int, ...]
    n_users: int = 0  # user tokens, the unknown user included
    first_code: int = START + 1

    @property
    def offsets(self) -> tuple[int, ...]:
        """The token of code 0 of each level."""
        return tuple(self.first_code + sum(self.codebook_sizes[:level]) for level in range(len(self.codebook_sizes)))

    @property
    def first_user(self) -> int:
        return self.first_code + sum(self.codebook_sizes)

    def __len__(self) -> int:
        return self.first_user + self.n_users


@dataclass(frozen=True)
class Batch:
    """Samples of similar length."""

    tokens: Tensor  # (B, T) int64, padded on the right with START
    lengths: Tensor | None  # (B,) tokens of each row; None: no row is padded
    targets: Tensor  # (B, L) int64 codes; empty (0, L) when decoding


class TigerNetwork(nn.Module):
    """Token embedding, encoder-decoder and output head."""

    def __init__(self, config: T5Config, vocabulary: Vocabulary, output: str, temperature: float = 1.0) -> None:
        super().__init__()
        self.vocabulary, self.output, self.temperature = vocabulary, output, temperature
        self.register_buffer("offsets", torch.tensor(vocabulary.offsets), persistent=False)
        self.embedding = nn.Embedding(len(vocabulary), config.width)
        self.t5 = T5(config)
        if output == "per-level":
            self.heads = nn.ModuleList(nn.Linear(config.width, size, bias=False) for size in vocabulary.codebook_sizes)

    offsets: Tensor  # (L,)

    def forward(self, batch: Batch) -> Tensor:
        """The summed cross-entropy of all codes of the batch's targets, divided by L."""
        n_levels = len(self.vocabulary.codebook_sizes)
        memory = self.t5.encode(self.embedding(batch.tokens), batch.lengths)
        states = self.t5.decode(self.chains(batch.targets[:, None, :-1]), memory)[:, 0]  # (B, L, D)
        states = states / self.temperature  # and with them the logits
        if self.output == "shared":
            tokens = batch.targets + self.offsets
            logits = F.linear(self._output_states(states.flatten(0, 1)), self.embedding.weight).float()
            return F.cross_entropy(logits, tokens.flatten(), reduction="sum") / n_levels
        losses = [
            F.cross_entropy(head(states[:, level]).float(), batch.targets[:, level], reduction="sum")
            for level, head in enumerate(self.heads)
        ]
        loss: Tensor = torch.stack(losses).sum() / n_levels
        return loss

    def chains(self, codes: Tensor) -> Tensor:
        """Decoder inputs of chains of codes (B, W, l): (B, W, l + 1, D), the start token first."""
        tokens = codes + self.offsets[: codes.shape[-1]]
        embedded: Tensor = self.embedding(F.pad(tokens, (1, 0), value=START))
        return embedded

    def log_probs(self, states: Tensor, level: int) -> Tensor:
        """(..., D) -> (..., K_level) float32: log-softmax over the head, or over the whole shared vocabulary."""
        states = states / self.temperature  # and with them the logits
        if self.output == "per-level":
            logits: Tensor = self.heads[level](states)
            return F.log_softmax(logits.float(), dim=-1)
        first = self.vocabulary.offsets[level]
        codes = self.embedding.weight[first : first + self.vocabulary.codebook_sizes[level]]
        rows = self._output_states(states.flatten(0, -2))
        log_probs = F.linear(rows, codes).float() - log_normalizer(rows, self.embedding.weight)[:, None]
        return log_probs.view(*states.shape[:-1], -1)

    def _output_states(self, states: Tensor) -> Tensor:
        """What T5's tied output multiplies with the token embeddings: states scaled by 1 / sqrt(D)."""
        return states * (1 / math.sqrt(states.shape[-1]))


class TigerDecoder:
    """A batch of users whose histories are encoded (a `Decoder`)."""

    def __init__(self, network: TigerNetwork, batches: Sequence[Batch]) -> None:
        """The users of all batches, in their order."""
        self.network = network
        self.memory = Memory.join(
            [network.t5.encode(network.embedding(batch.tokens), batch.lengths) for batch in batches]
        )
        self.past: Past = network.t5.begin(self.memory)
        self.n_users = sum(len(batch.tokens) for batch in batches)

    def step(self, level: int, parents: Tensor | None, codes: Tensor | None) -> Tensor:
        """One step of a beam search; see `tesserec.functional.beam.Step`."""
        tokens = torch.full((self.n_users, 1), START, device=self.network.offsets.device)
        if codes is not None:
            tokens = codes + self.network.offsets[level - 1]
        states, self.past = self.network.t5.extend(self.network.embedding(tokens), parents, self.past, self.memory)
        return self.network.log_probs(states, level)

    def node_log_probs(self, level: int, prefixes: Tensor) -> Tensor:
        """All nodes of a level at once; see `tesserec.functional.exact.NodeLogProbs`."""
        chains = self.network.chains(prefixes[None].expand(self.n_users, -1, -1))
        return self.network.log_probs(self.network.t5.decode(chains, self.memory)[:, :, -1], level)


class TigerObjective:
    """The steps of an epoch: a random order of all samples, cut into batches, each in parts of similar length."""

    def __init__(self, tiger: "Tiger", split: Split) -> None:
        self.tiger, self.samples = tiger, Samples.of(split.train)
        self.batch_size, self.seed = tiger.training.batch_size, tiger.training.seed
        device = resolve_device(tiger.training.device)
        dtype = resolve_precision(tiger.training.precision, device)
        self.few_shapes = device.type == "cpu" and dtype != torch.float32

    def n_steps(self, epoch: int) -> int:
        return -(-len(self.samples.users) // self.batch_size)

    def steps(self, epoch: int) -> StepsOfRows:
        order = np.random.default_rng(seed_of(self.seed, epoch)).permutation(len(self.samples.users))
        return StepsOfRows(
            order, self.batch_size, lambda rows, index: self.step(rows, seed_of(self.seed, int(rows[0]), index))
        )

    def step(self, rows: IntArray, seed: int) -> Step:
        """The chosen samples as one optimiser step."""
        samples, tiger = self.samples, self.tiger
        histories = Sequences(samples.values, samples.starts[rows], samples.targets[rows])
        targets = samples.values[samples.targets[rows]]
        users = tiger.user_tokens(samples.users[rows])
        if users is not None:
            unknown = np.random.default_rng(seed).random(len(users)) < UNKNOWN_USER_SHARE
            users = np.where(unknown, len(tiger.vocabulary) - 1, users)
        max_tokens = tiger.training.tokens_per_part
        batches = tiger.batches(histories, users, targets, max_tokens, few_shapes=self.few_shapes)
        return Step([batch for _, batch in batches], len(rows))

    def loss(self, model: nn.Module, part: Batch, device: torch.device) -> Tensor:
        loss: Tensor = model(to_device(part, device))
        return loss


class Tiger(GenerativeRecommender):
    """Generative retrieval over any semantic IDs."""

    method = "tiger"
    config_class = TigerConfig
    is_trained = True

    def __init__(
        self,
        semantic_ids: SemanticIds,
        config: TigerConfig | None = None,
        training: TrainingConfig | None = None,
    ) -> None:
        config, training = config or TigerConfig(), training or TrainingConfig()
        super().__init__(config, semantic_ids)
        self.training = training
        self.vocabulary = Vocabulary(semantic_ids.codebook_sizes, config.user_buckets + 1 if config.user_buckets else 0)
        with seeded(training.seed):
            self.network = TigerNetwork(config, self.vocabulary, config.output, config.temperature)
        self.log = TrainingLog()
        self._user_bucket: IntArray = np.zeros(0, dtype=np.int64)  # (U,) of the users of the training data
        self._item_tokens = semantic_ids.codes + np.array(self.vocabulary.offsets)  # (N, L)

    # -- fitting ---------------------------------------------------------------------------------------------------

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        self.require_own_ids(split)
        if self.config.user_buckets:
            self._user_bucket = np.array(
                [user_bucket(user, self.config.user_buckets) for user in split.dataset.user_ids]
            )
        objective = TigerObjective(self, split)
        self.log = train_by_validation(
            self, self.network, objective, split, self.training, checkpoints=checkpoints, progress=progress
        )

    def user_tokens(self, users: IntArray | None) -> IntArray | None:
        """(B,) the user token of each row of the training data's users; the unknown user for None; None without any."""
        if not self.config.user_buckets or users is None:
            return None
        return self.vocabulary.first_user + self._user_bucket[users]

    def batches(
        self,
        histories: Sequences,
        users: IntArray | None,
        targets: IntArray | None,
        max_tokens: int,
        *,
        few_shapes: bool = True,
    ) -> Iterator[tuple[IntArray, Batch]]:
        """Histories as token batches of similar length.

        Args:
            histories: B sequences of item rows; the latest `max_items` of each are read.
            users: (B,) user tokens, or None: the unknown user, where there are user tokens.
            targets: (B,) item rows, or None when decoding.
            max_tokens: of a batch, about.
            few_shapes: fill up rows and lengths to few different ones, for kernels that are compiled for every shape;
                otherwise a batch is as long as its longest history.

        Yields:
            The rows that a batch holds, and the batch.
        """
        recent = histories.last(self.config.max_items)
        n_levels, lengths = self.semantic_ids.n_levels, recent.lengths
        front = 1 if self.config.user_buckets else 0
        tokens_per_row = np.maximum(lengths * n_levels + front, 1)
        multiple = 1
        if few_shapes:
            multiple = ROW_MULTIPLE if targets is not None else ROW_MULTIPLE_DECODING
        for rows in parts_by_length(tokens_per_row, max_tokens=max_tokens, multiple=multiple):
            part, n_items = recent.take(rows), int(lengths[rows].max())
            n_items = self._padded_length(n_items) if few_shapes else n_items
            column = np.arange(n_items)
            real = column < lengths[rows, None]
            items = part.values[np.where(real, part.starts[:, None] + column, 0)]
            tokens = np.where(real[..., None], self._item_tokens[items], START).reshape(len(rows), n_items * n_levels)
            if front:
                first = users[rows] if users is not None else np.full(len(rows), len(self.vocabulary) - 1)
                tokens = np.concatenate([first[:, None], tokens], axis=1)
            if not tokens.shape[1]:  # nothing is known of these users: one START token stands for that
                tokens = np.full((len(rows), 1), START)
            padded = not real.all()
            yield (
                rows,
                Batch(
                    torch.from_numpy(tokens),
                    torch.from_numpy(tokens_per_row[rows]) if padded else None,
                    torch.from_numpy(
                        self.semantic_ids.codes[targets[rows]] if targets is not None else np.zeros((0, n_levels))
                    ),
                ),
            )

    def _padded_length(self, n_items: int) -> int:
        """The next of LENGTHS, as far as `max_items` allows."""
        longer = LENGTHS[n_items <= LENGTHS]
        return min(int(longer[0]), self.config.max_items) if len(longer) and n_items else n_items

    # -- answering -------------------------------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def device(self) -> torch.device:
        return self.network.offsets.device

    def decoders(self, histories: Sequences, users: IntArray | None) -> Iterator[tuple[IntArray, TigerDecoder]]:
        self.network.eval()
        for rows, batches in self.decoding_batches(histories, self.user_tokens(users)):
            yield rows, TigerDecoder(self.network, [to_device(batch, self.device) for batch in batches])

    def decoding_batches(
        self, histories: Sequences, users: IntArray | None = None
    ) -> Iterator[tuple[IntArray, list[Batch]]]:
        """Users that are decoded together, those of similar history length first, and what is encoded together of them.

        Encoding costs what its padded tokens cost, so it is done in parts of one length; a step of decoding costs the
        same for all users, so it is done at once.

        Args:
            histories, users: as for `batches`.

        Yields:
            (R,) rows, at most `users_per_batch`, and their batches, which hold them in this order.
        """
        order = np.argsort(histories.lengths, kind="stable")
        for start in range(0, len(order), self.config.users_per_batch):
            group = order[start : start + self.config.users_per_batch]
            part_users = users[group] if users is not None else None
            parts = list(self.batches(histories.take(group), part_users, None, self.training.tokens_per_part))
            yield group[np.concatenate([rows for rows, _ in parts])], [batch for _, batch in parts]

    # -- saving ----------------------------------------------------------------------------------------------------

    @classmethod
    def _from_manifest(cls, folder: Path, config: dict[str, Any]) -> Self:
        semantic_ids = SemanticIds.load(folder / "semantic_ids")
        return cls(
            semantic_ids,
            build(TigerConfig, config["recommender"], where=f"{folder}, recommender"),
            build(TrainingConfig, config["training"], where=f"{folder}, training"),
        )

    def _extra_config(self) -> dict[str, Any]:
        return {"training": to_dict(self.training), "codebook_sizes": list(self.semantic_ids.codebook_sizes)}

    def _write(self, folder: Path) -> None:
        write_network(folder, self.network, self.log)
        self.semantic_ids.save(folder / "semantic_ids")
        np.save(folder / "user_buckets.npy", self._user_bucket)

    def _read(self, folder: Path) -> None:
        self.log = read_network(folder, self.network)
        self.network.to(resolve_device())
        self._user_bucket = np.load(folder / "user_buckets.npy")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch's tensors on the device."""
    lengths = batch.lengths.to(device) if batch.lengths is not None else None
    return Batch(batch.tokens.to(device), lengths, batch.targets.to(device))


def user_bucket(user_id: str, n_buckets: int) -> int:
    """A user's token bucket: the same in every process, which Python's own hash of text is not."""
    return int(fingerprint_bytes(user_id.encode()), 16) % n_buckets
