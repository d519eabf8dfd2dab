"""A causal language model whose vocabulary holds the codes: loading, adapters, loss, saving.

The transformer and its weights are the library's; what is ours is which rows of the token table are new and how they
start, that the output product is computed for labelled positions only, and one temperature for loss and scores.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tesserec.environment import require_library
from tesserec.errors import ConfigError
from tesserec.functional.losses import log_normalizer, softmax_cross_entropy
from tesserec.hugging_face import no_bars
from tesserec.language.codes import CodeTokens, initialise_rows, text_means
from tesserec.training.seeds import seed_of, seeded
from tesserec.types import IntArray

PURPOSE = "A language model"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Low-rank adapters (LoRA) beside frozen weights; the rows of the codes are trained in full."""

    rank: int = 8
    alpha: float = 32.0  # the adapters' product is scaled by alpha / rank
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"rank is {self.rank}, alpha {self.alpha}, dropout {self.dropout}. Use a rank of 1 or more, an alpha "
                "above 0 and a dropout from 0 up to, but below, 1."
            )
        if not self.targets:
            raise ConfigError("targets names no layer. Name the linear layers that get adapters, such as q_proj.")


@dataclass(frozen=True, eq=False)
class TextBatch:
    """Token sequences of similar length, and what is to be predicted in them."""

    tokens: Tensor  # (B, T) int64, filled up on the right
    lengths: Tensor  # (B,) int64 tokens of each row
    rows: Tensor  # (n,) int64 and
    places: Tensor  # (n,) int64: the state at tokens[rows[i], places[i]] predicts
    labels: Tensor  # (n,) int64 the next token

    def to(self, device: torch.device) -> "TextBatch":
        return TextBatch(
            *(getattr(self, name).to(device) for name in ("tokens", "lengths", "rows", "places", "labels"))
        )


class LanguageModel(nn.Module):
    """Wraps a causal language model of transformers, with or without adapters.

    Attributes:
        causal: the model; with adapters, they are inside.
        tokenizer: knows the codes.
        codes: their tokens.
    """

    def __init__(self, causal: Any, tokenizer: Any, codes: CodeTokens, temperature: float, adapted: Any = None) -> None:
        super().__init__()
        self.causal, self.tokenizer, self.codes, self.temperature = causal, tokenizer, codes, temperature
        self._adapted = (adapted,)  # peft's view of the same modules; in a tuple, so that it is no submodule
        for level, tokens in enumerate(codes.tokens):
            self.register_buffer(f"code_tokens_{level}", torch.from_numpy(tokens), persistent=False)
        self._require_plain_head()

    @property
    def has_adapters(self) -> bool:
        return self._adapted[0] is not None

    @property
    def device(self) -> torch.device:
        return self.code_tokens(0).device

    def code_tokens(self, level: int) -> Tensor:
        """(K_level,) int64."""
        tokens: Tensor = getattr(self, f"code_tokens_{level}")
        return tokens

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's layers, which processes may cut into shards one by one."""
        layers: Sequence[nn.Module] = self.causal.base_model.layers
        return layers

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """The output table (V, D) and bias (V,): with adapters, the trained rows are in it."""
        head = self.causal.get_output_embeddings()
        return head.weight, getattr(head, "bias", None)

    def states(self, tokens: Tensor, **arguments: Any) -> Any:
        """The transformer's output for tokens (B, T), with `last_hidden_state` (B, T, D)."""
        return self.causal.base_model(input_ids=tokens, **arguments)

    def forward(self, batch: TextBatch) -> Tensor:
        """The summed cross-entropy of the labelled tokens over the whole vocabulary.

        Rows are filled up on the right and attention is causal, so no mask is needed; the output product is computed
        at labelled positions only.
        """
        states = self.states(batch.tokens, use_cache=False).last_hidden_state[batch.rows, batch.places]
        table, bias = self.head
        states = states / self.temperature  # and with them the logits
        if bias is None:
            return softmax_cross_entropy(states, table, batch.labels)
        logits = F.linear(states, table, bias / self.temperature).float()
        return F.cross_entropy(logits, batch.labels, reduction="sum")

    def log_probs(self, states: Tensor, level: int) -> Tensor:
        """(..., D) -> (..., K_level) float32 log-probabilities of a level's codes among the whole vocabulary."""
        table, bias = self.head
        rows, codes = (states / self.temperature).flatten(0, -2), self.code_tokens(level)
        if bias is None:
            log_probs = F.linear(rows, table[codes]).float() - log_normalizer(rows, table)[:, None]
        else:
            log_probs = F.log_softmax(F.linear(rows, table, bias / self.temperature).float(), dim=-1)[:, codes]
        return log_probs.view(*states.shape[:-1], -1)

    @torch.no_grad()
    def _require_plain_head(self) -> None:
        """Refuse models that do something to the logits after the output product, which we would leave out."""
        training = self.causal.training
        self.causal.eval()
        tokens = torch.from_numpy(self.codes.all[:4])[None].to(self.causal.device)
        table, bias = self.head
        ours = F.linear(self.states(tokens, use_cache=False).last_hidden_state, table, bias).float()
        theirs = self.causal(input_ids=tokens, use_cache=False).logits.float()
        self.causal.train(training)
        if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
            raise ConfigError(
                f"{type(self.causal).__name__} changes its logits after the output product (by a cap or a factor), "
                "which is not supported. Use a model of the Llama or Qwen kind."
            )

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write tokenizer and weights, or with adapters these alone, as a Hugging Face folder."""
        folder.mkdir(exist_ok=True)
        with no_bars():
            self.tokenizer.save_pretrained(folder)
            if self.has_adapters:
                self._adapted[0].save_pretrained(folder, save_embedding_layers=False)
            else:
                self.causal.save_pretrained(folder)


def begin_language_model(
    source: str,
    codebook_sizes: Sequence[int],
    *,
    temperature: float = 1.0,
    adapters: AdapterConfig | None = None,
    item_words: "tuple[Sequence[str], IntArray] | None" = None,
    checkpointing: bool = False,
    seed: int = 0,
) -> LanguageModel:
    """A model to be tuned: loaded, its vocabulary extended by all codes that it lacks, and adapters added if asked for.

    Args:
        source: a folder or the name of a causal language model.
        codebook_sizes: L sizes; every level x code gets a token, so that new items need no further one.
        adapters: freeze the weights and train adapters and the codes' rows; None: train everything.
        item_words: (N texts, codes (N, L)): start the codes' rows from the words of their items; None: from the mean.
        checkpointing: recompute activations in the backward pass: less memory, a third more time.
        seed: of new rows and adapters.

    Raises:
        ConfigError: the model cannot be loaded, or adapters fit none of its layers.
    """
    tokenizer, causal = _load(source)
    n_old = len(tokenizer)
    codes = CodeTokens.add(tokenizer, codebook_sizes)
    _make_room(causal, tokenizer)
    tables = [causal.get_input_embeddings().weight]
    if not _is_tied(causal):
        tables.append(causal.get_output_embeddings().weight)
    is_new = codes.all >= n_old  # a model that was tuned on these codes before keeps their rows
    for number, table in enumerate(tables if is_new.any() else []):
        means = None
        if item_words is not None:
            words = [tokenizer(text, add_special_tokens=False).input_ids for text in item_words[0]]
            means = text_means(
                table.detach(), [torch.tensor(one).numpy() for one in words], item_words[1], codebook_sizes
            )[torch.from_numpy(is_new)]
        initialise_rows(table, n_old, codes.all[is_new], means, seed_of(seed, number))
    if checkpointing:
        # transformers renames this method in version 6
        renamed = getattr(causal, "activation_checkpointing_enable", None)
        enable = renamed or causal.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        causal.enable_input_require_grads()  # without which frozen rows leave the first block without a gradient
    adapted = _adapt(causal, codes, adapters, seed) if adapters is not None else None
    return LanguageModel(causal, tokenizer, codes, temperature, adapted)


def open_language_model(
    folder: Path, codebook_sizes: Sequence[int], *, base: str | None, temperature: float = 1.0
) -> LanguageModel:
    """What `LanguageModel.save` wrote.

    Args:
        base: the folder or name of the model that adapters belong to; None: the folder has all weights.

    Raises:
        ConfigError: the base model cannot be loaded, or the codes do not fit.
        OSError, ValueError: files are missing or damaged.
    """
    tokenizer, causal = _load(base or str(folder), tokenizer_source=str(folder))
    codes = CodeTokens.find(tokenizer, codebook_sizes)
    adapted = None
    if base is not None:
        peft = require_library("peft", extra="llm", purpose="A model with adapters")
        _make_room(causal, tokenizer)
        with _peft_quiet():
            adapted = peft.PeftModel.from_pretrained(causal, folder)
        causal = adapted.get_base_model()
    model = LanguageModel(causal, tokenizer, codes, temperature, adapted)
    return model.eval()


def _load(source: str, *, tokenizer_source: str | None = None) -> tuple[Any, Any]:
    transformers = require_library("transformers", extra="llm", purpose=PURPOSE)
    from safetensors import SafetensorError

    folder = Path(source)
    if folder.is_dir():
        _require_model_files(folder, tokenizer=tokenizer_source is None)
    elif folder.is_absolute() or source.startswith("."):
        raise ConfigError(
            f"recommender.model: there is no folder {source}. Check the path, or put the model back there."
        )
    try:
        with no_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_source or source)
            attention = "sdpa" if torch.cuda.is_available() else "eager"  # a CPU's fused bfloat16 gradient is slow
            causal = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, attn_implementation=attention
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        kind = "folder" if folder.exists() else "model name"
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"recommender.model: the {kind} {source!r} cannot be loaded ({reason}). Give the folder of a causal "
            "language model, a model's name while there is a network, or 'new' for a small one made from item texts."
        ) from None
    return tokenizer, causal


def _require_model_files(folder: Path, *, tokenizer: bool) -> None:
    """Say which part of a model folder is missing, which the library's own errors leave to guessing."""
    needed = {
        "config.json": ("config.json",),
        "weights (model.safetensors)": ("*.safetensors", "pytorch_model*.bin"),
    }
    if tokenizer:
        needed["tokenizer (tokenizer.json)"] = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
    missing = [what for what, patterns in needed.items() if not any(any(folder.glob(name)) for name in patterns)]
    if missing:
        raise ConfigError(
            f"The model folder {folder} has no {' and no '.join(missing)}. Copy all files of the model there, or make "
            "a small one with `tesserec lm new`."
        )


def _make_room(causal: Any, tokenizer: Any) -> None:
    """As many rows as the tokenizer has words; a table that is larger for round numbers stays as it is."""
    if len(tokenizer) > causal.get_input_embeddings().weight.shape[0]:
        causal.resize_token_embeddings(len(tokenizer), mean_resizing=False)


@contextmanager
def _peft_quiet() -> Iterator[None]:
    """Without peft's use of a name that transformers is about to drop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def _is_tied(causal: Any) -> bool:
    return causal.get_output_embeddings().weight is causal.get_input_embeddings().weight


def _adapt(causal: Any, codes: CodeTokens, config: AdapterConfig, seed: int) -> Any:
    """Freeze the model and put adapters into it, in place; the codes' rows are trained where the table is used."""
    peft = require_library("peft", extra="llm", purpose="Tuning with adapters")
    names = {id(module): name.rpartition(".")[2] for name, module in causal.named_modules()}
    tables = [causal.get_input_embeddings()]
    if not _is_tied(causal):
        tables.append(causal.get_output_embeddings())
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        trainable_token_indices={names[id(table)]: codes.all.tolist() for table in tables},
        task_type="CAUSAL_LM",
    )
    try:
        with seeded(seed), _peft_quiet():
            return peft.get_peft_model(causal, settings)
    except ValueError as error:
        raise ConfigError(
            f"recommender.adapters.targets: {', '.join(config.targets)} do not fit {type(causal).__name__} "
            f"({str(error).splitlines()[0]}). Name linear layers of this model."
        ) from None
