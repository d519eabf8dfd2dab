"""LC-Rec: a language model whose words include the codes, tuned to answer questions about items, users and IDs.

Every code becomes a word. The model learns to continue a user's list of IDs, and, so that it knows what the codes
mean, to name an item from its text, to write an item's text from its ID, and more; it recommends by beam search over
the codes inside the catalogue's trie. A temperature below 1 is LETTER's ranking-guided generation loss.

Paper: Zheng et al., "Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation", ICDE
2024 (arXiv 2311.09049). The semantic IDs of the paper are an RQ-VAE with uniform mapping of the last level: tokenizer
`rqvae` with `collisions = "sinkhorn"`, or `"assignment"`, which needs fewer changes for the same end.

Differences from the paper and its released code:
- Decoding follows the trie of the catalogue. The released code allows every code of the level, so that tuples that
  name no item take places in the beam.
- The loss covers the answers alone, padding and requests never (there, a flag).
- Prompt and answer are split into tokens apart and joined, so that where the answer begins is exact; a long history
  is shortened and never the answer. The test prompt is one template, the same in validation, test and serving; the
  paper reports the mean of the metrics of all templates.
- All codes of all levels are words, also those that no item has yet; their rows start as spread as the others'.
- Wishes and likings come from a file or from the texts of items by a rule (`tesserec.language.interests`), not from a
  commercial language model; the report says which.
- The weights of the best validation ranking are kept (there: of the least validation loss).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from tesserec.artifacts import fingerprint_folder, read_json, require_same, write_json
from tesserec.config import build, to_dict
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split
from tesserec.errors import ConfigError, DataError
from tesserec.language.decoding import PromptDecoder
from tesserec.language.interests import Interests
from tesserec.language.model import (
    AdapterConfig,
    LanguageModel,
    TextBatch,
    begin_language_model,
    open_language_model,
)
from tesserec.language.new import NewModelConfig, new_model
from tesserec.language.prompts import TASKS, Facts, PromptBuilder, corpus
from tesserec.language.tasks import TaskRows, check_tasks
from tesserec.language.texts import ItemTexts, item_texts
from tesserec.progress import Progress
from tesserec.recommenders.base import Recommendations
from tesserec.recommenders.generative import GenerativeRecommender
from tesserec.recommenders.validation import train_by_validation
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.batching import parts_by_length
from tesserec.training.config import TrainingConfig
from tesserec.training.devices import resolve_device, resolve_precision
from tesserec.training.loop import Step, StepsOfRows, TrainingLog
from tesserec.training.saving import LOG
from tesserec.training.seeds import seed_of
from tesserec.types import IntArray

NEW = "new"
PROBED = 200  # rows of a task that are looked at before training, to see whether it can ask anything
ROW_MULTIPLE, LENGTH_MULTIPLE = 8, 8  # of training batches in bfloat16 on a CPU: few shapes (see parts_by_length)


@dataclass(frozen=True, kw_only=True)
class LCRecConfig:
    """Which model, what it is asked, and how items are ranked."""

    model: str = NEW  # folder or name of a causal language model; "new": a small one made from the items' texts
    new: NewModelConfig = field(default_factory=NewModelConfig)  # its sizes
    tuning: Literal["full", "adapters"] = "full"  # all weights, or LoRA adapters and the codes' rows
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    code_rows: Literal["random", "texts"] = "random"  # how the codes' rows start: spread, or near their items' words
    tasks: tuple[str, ...] = tuple(TASKS)
    item_repeats: int = 1  # rows of each item in item2index and index2item: more, where items are few
    fusion_rows: int | None = 20_000  # pairs for the task fusion, drawn once; None: all
    title: str | None = None  # template of an item's title; None: the column title or name, else first words
    description: str | None = None  # template of its description; None: all other text columns
    interests: str | None = None  # JSON file of what users like and look for; None: by rule from texts
    reviews: str | None = None  # JSON lines of reviews, for that rule; None: from the items' texts alone
    max_items: int = 20  # latest items of the history that are read
    max_tokens: int = 512  # of prompt and answer
    text_tokens: int = 64  # of a title, a description, a query, a preference
    template: int = 0  # of task seqrec, for validation, test and serving
    temperature: float = 1.0  # divides all logits, in training and in scores; below 1, near misses weigh more (LETTER)
    beam_width: int = 20  # hypotheses kept per user; at least k are kept in any case
    users_per_batch: int = 64  # that are decoded together
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third more time

    def __post_init__(self) -> None:
        for name in ("item_repeats", "max_items", "max_tokens", "text_tokens", "beam_width", "users_per_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if self.fusion_rows is not None and self.fusion_rows < 1:
            raise ConfigError(f"fusion_rows is {self.fusion_rows}. Use 1 or more, or none for all.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}. Use a value above 0; LETTER's lie from 0.7 to 1.2.")
        if not 0 <= self.template < len(TASKS["seqrec"]):
            raise ConfigError(f"template is {self.template}. Use 0 to {len(TASKS['seqrec']) - 1}.")
        if self.model == NEW and self.tuning == "adapters":
            raise ConfigError(
                "tuning is 'adapters', but the model is 'new' and has learned nothing yet. Use tuning = 'full', or "
                "name a model."
            )
        if self.interests is not None and self.reviews is not None:
            raise ConfigError("Both interests and reviews are set. Set one: ready texts, or reviews to make them from.")
        check_tasks(self.tasks)


class LCRecObjective:
    """The steps of an epoch: a random order of all tasks' rows, cut into batches, each in parts of similar length."""

    def __init__(self, rows: TaskRows, builder: PromptBuilder, training: TrainingConfig) -> None:
        self.rows, self.builder, self.training = rows, builder, training
        device = resolve_device(training.device)
        self.few_shapes = device.type == "cpu" and resolve_precision(training.precision, device) != torch.float32

    def n_steps(self, epoch: int) -> int:
        return -(-len(self.rows) // self.training.batch_size)

    def steps(self, epoch: int) -> StepsOfRows:
        order = np.random.default_rng(seed_of(self.training.seed, epoch)).permutation(len(self.rows))
        return StepsOfRows(order, self.training.batch_size, lambda rows, _: self.step(rows, epoch))

    def step(self, rows: IntArray, epoch: int) -> Step:
        """The chosen rows as one optimiser step; the loss is the mean over the answers' tokens."""
        drawn = [self.rows.sample(int(row), epoch, self.builder) for row in rows]
        samples = [sample for sample in drawn if sample is not None]
        if not samples:  # an optimiser step must have a target: the first pair of seqrec always can be asked
            first = self.rows.sample(self.first_pair, epoch, self.builder)
            assert first is not None
            samples = [first]
        lengths = np.array([len(request) + len(answer) - 1 for request, answer in samples])
        multiple = ROW_MULTIPLE if self.few_shapes else 1
        parts = parts_by_length(lengths, max_tokens=self.training.tokens_per_part, multiple=multiple)
        batches = [self._batch([samples[row] for row in part]) for part in parts]
        return Step(batches, sum(len(answer) for _, answer in samples))

    @property
    def first_pair(self) -> int:
        """The row number of the first pair of seqrec."""
        before = self.rows.tasks.index("seqrec")
        return sum(map(len, self.rows.rows[:before]))

    def _batch(self, samples: Sequence[tuple[IntArray, IntArray]]) -> TextBatch:
        lengths = np.array([len(request) + len(answer) - 1 for request, answer in samples])
        longest = int(lengths.max())
        longest += -longest % LENGTH_MULTIPLE if self.few_shapes else 0
        tokens = np.zeros((len(samples), longest), dtype=np.int64)
        for row, (request, answer) in enumerate(samples):
            tokens[row, : lengths[row]] = np.concatenate([request, answer[:-1]])
        n_labels = np.array([len(answer) for _, answer in samples])
        rows = np.repeat(np.arange(len(samples)), n_labels)
        places = np.concatenate([np.arange(length - n, length) for length, n in zip(lengths, n_labels)])
        labels = np.concatenate([answer for _, answer in samples])
        return TextBatch(*map(torch.from_numpy, (tokens, lengths, rows, places, labels)))

    def loss(self, model: nn.Module, part: TextBatch, device: torch.device) -> Tensor:
        loss: Tensor = model(part.to(device))
        return loss


class LCRec(GenerativeRecommender):
    """A language model over any semantic IDs."""

    method = "lcrec"
    config_class = LCRecConfig
    is_trained = True

    def __init__(
        self, semantic_ids: SemanticIds, config: LCRecConfig | None = None, training: TrainingConfig | None = None
    ) -> None:
        super().__init__(config or LCRecConfig(), semantic_ids)
        self.training = training or TrainingConfig()
        self.network: LanguageModel | None = None  # set by fit and load
        self.builder: PromptBuilder | None = None
        self.log = TrainingLog()
        self.asked: dict[str, Any] = {}  # fingerprint of the prompts, rows by task, where users' interests are from
        self.base: str | None = None  # fingerprint of the model folder that adapters belong to

    @classmethod
    def reads(cls, config: LCRecConfig) -> tuple[str, ...]:
        local = [config.model] if config.model != NEW and Path(config.model).exists() else []
        return (*local, *(path for path in (config.interests, config.reviews) if path))

    # -- fitting ---------------------------------------------------------------------------------------------------

    def _fit(self, split: Split, checkpoints: Path | None, progress: Progress) -> None:
        self.require_own_ids(split)
        texts = item_texts(split.dataset.items, self.config.title, self.config.description)
        interests = self._interests(texts, split)
        rows = TaskRows.of(
            split,
            self.config.tasks,
            interests,
            fusion_rows=self.config.fusion_rows,
            item_repeats=self.config.item_repeats,
            seed=self.training.seed,
        )
        self.network = self._begin(texts)
        builder = self._builder(texts)
        require_rows(rows, builder)
        self.asked = {"prompts": builder.fingerprint, "rows": rows.counts, "interests": interests.source}
        self.base = self._base_fingerprint()
        progress.say(f"rows of an epoch: {', '.join(f'{n:,} {task}' for task, n in rows.counts.items())}")
        progress.say(f"what users want and like: {interests.source}")
        objective = LCRecObjective(rows, builder, self.training)
        self.builder = self._builder(None)
        self.log = train_by_validation(
            self, self.network, objective, split, self.training, checkpoints=checkpoints, progress=progress
        )

    def _base_fingerprint(self) -> str | None:
        """Of the folder that saved adapters need; None for a name, whose content the hub answers for."""
        base = Path(self.config.model)
        return fingerprint_folder(base) if self.config.tuning == "adapters" and base.is_dir() else None

    def _interests(self, texts: ItemTexts, split: Split) -> Interests:
        if not {"itemsearch", "preference"} & set(self.config.tasks):
            return Interests("none are used")
        if self.config.interests is not None:
            return Interests.from_file(Path(self.config.interests), texts)
        if self.config.reviews is not None:
            return Interests.from_reviews(Path(self.config.reviews), texts, split)
        return Interests.from_texts(texts)

    def _begin(self, texts: ItemTexts) -> LanguageModel:
        config, seed = self.config, self.training.seed
        item_words = None
        if config.code_rows == "texts":
            words = [f" {title} {text}" for title, text in zip(texts.titles, texts.descriptions)]
            item_words = (words, self.semantic_ids.codes)
        with TemporaryDirectory() as made:
            source = config.model
            if source == NEW:
                source = str(Path(made) / "model")
                new_model(corpus(texts), source, config.new, seed=seed)
            return begin_language_model(
                source,
                self.semantic_ids.codebook_sizes,
                temperature=config.temperature,
                adapters=config.adapters if config.tuning == "adapters" else None,
                item_words=item_words,
                checkpointing=config.gradient_checkpointing,
                seed=seed,
            )

    def _builder(self, texts: ItemTexts | None) -> PromptBuilder:
        config, network = self.config, self.fitted_network
        limit = getattr(network.causal.config, "max_position_embeddings", None)
        if limit is not None and limit < config.max_tokens:
            raise ConfigError(
                f"max_tokens is {config.max_tokens}, but the model reads {limit} at most. Set recommender.max_tokens "
                "to that or less."
            )
        return PromptBuilder(
            network.tokenizer,
            network.codes,
            self.semantic_ids.codes,
            texts,
            max_items=config.max_items,
            max_tokens=config.max_tokens,
            text_tokens=config.text_tokens,
        )

    # -- answering -------------------------------------------------------------------------------------------------

    @property
    def fitted_network(self) -> LanguageModel:
        """The language model, once fitted or loaded."""
        return self._fitted(self.network)

    @property
    def fitted_builder(self) -> PromptBuilder:
        """What makes prompts, once fitted or loaded."""
        return self._fitted(self.builder)

    @property
    def device(self) -> torch.device:
        return self.fitted_network.device

    @property
    def n_parameters(self) -> int:
        return sum(one.numel() for one in self.fitted_network.parameters() if one.requires_grad)

    @property
    def sizes(self) -> dict[str, float]:
        return {"parameters of the whole model": sum(one.numel() for one in self.fitted_network.parameters())}

    def decoders(self, histories: Sequences, users: IntArray | None) -> Iterator[tuple[IntArray, PromptDecoder]]:
        prompts = [self.history_prompt(histories[row]) for row in range(len(histories))]
        yield from self._decoders(prompts)

    def history_prompt(self, history: IntArray) -> IntArray:
        """The tokens of the question for the next item; of an empty history (answered by popularity) any."""
        known = history if len(history) else np.zeros(1, dtype=np.int64)
        return self.fitted_builder.prompt("seqrec", self.config.template, Facts(known))

    def _decoders(self, prompts: Sequence[IntArray]) -> Iterator[tuple[IntArray, PromptDecoder]]:
        """Prompts of similar length are read in together."""
        network = self.fitted_network.eval()
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        for start in range(0, len(order), self.config.users_per_batch):
            rows = order[start : start + self.config.users_per_batch]
            yield rows, PromptDecoder(network, [prompts[row] for row in rows])

    @torch.inference_mode()
    def find(
        self, texts: Sequence[str], k: int = 10, *, kind: Literal["title", "description"] = "title"
    ) -> Recommendations:
        """The items that fit each text best, by the task item2index: the text need not be that of any item.

        Args:
            texts: M titles or descriptions.
            k: items per text.
            kind: which of the two they are.

        Raises:
            ConfigError: k < 1, an empty text, or the model was not tuned on item2index.
        """
        self.require_task("item2index")
        if k < 1 or not all(text.strip() for text in texts):
            raise ConfigError("Give one text or more, none of them empty, and a k of 1 or more.")
        builder, index = self.fitted_builder, self.index
        prompts = [builder.question("item2index", _named(kind, text), "index") for text in texts]
        items = np.full((len(texts), k), -1, dtype=np.int64)
        scores = np.full((len(texts), k), -np.inf, dtype=np.float32)
        for rows, decoder in self._decoders(prompts):
            items[rows], scores[rows] = self._best_items(decoder, index, None, k)
        return Recommendations(self.fitted_catalogue, items, scores)

    def describe(self, item_ids: Sequence[str], *, kind: Literal["title", "description"] = "title") -> list[str]:
        """What the model writes of each item, from its semantic ID alone, by the task index2item (greedily).

        Raises:
            ConfigError: the model was not tuned on index2item.
            DataError: an id that the catalogue does not have.
        """
        self.require_task("index2item")
        facts = [Facts(item=self.fitted_catalogue.index_of(item)) for item in item_ids]
        return [self._write_text("index2item", one, kind) for one in facts]

    def likings(self, histories: Sequence[Sequence[str]]) -> list[str]:
        """What the model writes of each user's taste, from the IDs of the history, by the task preference (greedily).

        Raises:
            ConfigError: the model was not tuned on preference.
            DataError: a history without an item that the catalogue has.
        """
        self.require_task("preference")
        known = [np.array(self.fitted_catalogue.known(history), dtype=np.int64) for history in histories]
        if not all(len(history) for history in known):
            raise DataError("A history has no item of the catalogue. Give item ids that the model was trained on.")
        return [self._write_text("preference", Facts(history), "preference") for history in known]

    def require_task(self, task: str) -> None:
        """Refuse a question that the model was not tuned on."""
        if task not in self.config.tasks:
            raise ConfigError(
                f"This model was tuned on {', '.join(self.config.tasks)}, not on {task}. Train one with that task."
            )

    @torch.inference_mode()
    def _write_text(self, task: str, facts: Facts, answer: str) -> str:
        """Greedy generation by the library, with every setting given."""
        network = self.fitted_network.eval()
        prompt = torch.from_numpy(self.fitted_builder.question(task, facts, answer))[None].to(self.device)
        tokens = network.causal.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=self.config.text_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=network.tokenizer.eos_token_id,
            pad_token_id=network.tokenizer.eos_token_id,
        )
        text: str = network.tokenizer.decode(tokens[0, prompt.shape[1] :], skip_special_tokens=True)
        return text.strip()

    # -- saving ----------------------------------------------------------------------------------------------------

    @classmethod
    def _from_manifest(cls, folder: Path, config: dict[str, Any]) -> Self:
        recommender = cls(
            SemanticIds.load(folder / "semantic_ids"),
            build(LCRecConfig, config["recommender"], where=f"{folder}, recommender"),
            build(TrainingConfig, config["training"], where=f"{folder}, training"),
        )
        recommender.asked, recommender.base = config["asked"], config.get("base")
        return recommender

    def _extra_config(self) -> dict[str, Any]:
        codebook_sizes = list(self.semantic_ids.codebook_sizes)
        training = to_dict(self.training)
        return {"training": training, "codebook_sizes": codebook_sizes, "asked": self.asked, "base": self.base}

    def _write(self, folder: Path) -> None:
        self.fitted_network.save(folder / "model")
        write_json(folder / LOG, asdict(self.log))
        self.semantic_ids.save(folder / "semantic_ids")

    def _read(self, folder: Path) -> None:
        self.log = TrainingLog(**read_json(folder / LOG))
        if self.base is not None and (found := self._base_fingerprint()) is not None:
            remedy = "Put the model back that was tuned, or tune this one."
            require_same("The adapters' model", self.base, f"the one in {self.config.model}", found, remedy=remedy)
        self.network = open_language_model(
            folder / "model",
            self.semantic_ids.codebook_sizes,
            base=self.config.model if self.config.tuning == "adapters" else None,
            temperature=self.config.temperature,
        ).to(resolve_device())
        self.builder = self._builder(None)
        require_same(
            "The prompts that this model was trained on",
            self.asked["prompts"],
            "those of this version",
            self.builder.fingerprint,
            remedy="Train it again, or use the version that trained it.",
        )


def _named(kind: Literal["title", "description"], text: str) -> Facts:
    return Facts(title=text) if kind == "title" else Facts(description=text)


def require_rows(rows: TaskRows, builder: PromptBuilder) -> None:
    """Refuse a task that can ask nothing of this data.

    Raises:
        DataError: none of some hundred rows of a task has what one of its templates asks for.
    """
    before = 0
    for task, n_rows in rows.counts.items():
        probed = np.unique(np.linspace(before, before + n_rows - 1, num=min(PROBED, n_rows)).astype(int))
        if all(rows.sample(int(row), 0, builder) is None for row in probed):
            raise DataError(
                f"The items' texts give the task {task} nothing to ask. Leave it out of recommender.tasks, or set "
                "recommender.title and recommender.description to columns that have texts."
            )
        before += n_rows
