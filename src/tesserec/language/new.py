"""A small language model from nothing: a byte-pair tokenizer of the items' own words, and random weights.

What it writes is an ordinary Hugging Face folder. From there on it is loaded as any pre-trained model is, so that all
of the language path runs, and can be tested, without a download.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tesserec.artifacts import write_artifact
from tesserec.config import to_dict
from tesserec.environment import require_library
from tesserec.errors import ConfigError, DataError
from tesserec.hugging_face import no_bars
from tesserec.training.seeds import seeded
from tesserec.types import PathLike

PAD, END = "<|pad|>", "<|end|>"
KIND = "language-model"


@dataclass(frozen=True, kw_only=True)
class NewModelConfig:
    """Sizes of a model that is made from nothing."""

    architecture: Literal["qwen3", "llama"] = "qwen3"
    width: int = 128
    ff_width: int = 384
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 4  # heads of keys and values; fewer than n_heads share them
    words: int = 8000  # byte-pair tokens, at most
    max_tokens: int = 1024  # of a sequence
    tied: bool = True  # one table for reading and writing tokens

    def __post_init__(self) -> None:
        for name in ("width", "ff_width", "n_layers", "n_heads", "n_kv_heads", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if self.words < 300:
            raise ConfigError(f"words is {self.words}. Use 300 or more: 256 bytes, the end, and some words.")
        if self.width % self.n_heads or self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"width {self.width} must be a multiple of n_heads {self.n_heads}, and that of n_kv_heads "
                f"{self.n_kv_heads}."
            )
        if self.width // self.n_heads % 2:
            raise ConfigError(
                f"width / n_heads is {self.width // self.n_heads}. Use an even number: positions turn pairs of numbers."
            )


def new_model(texts: Sequence[str], folder: PathLike, config: NewModelConfig | None = None, *, seed: int = 0) -> None:
    """Train a tokenizer on the texts and write it with an untrained causal language model into a folder.

    Args:
        texts: of the items, and whatever else the model is to read or write.
        folder: becomes a model folder that transformers loads, and an artefact of kind `language-model`.

    Raises:
        DataError: there is no text.
        MissingDependencyError: transformers is not installed.
    """
    config = config or NewModelConfig()
    transformers = require_library("transformers", extra="llm", purpose="A new language model")
    if not any(text.strip() for text in texts):
        raise DataError("There is no text to learn words from. Prepare the data with item texts.")
    with write_artifact(folder, kind=KIND, config=to_dict(config), seed=seed) as staging, no_bars():
        n_tokens = _write_tokenizer(texts, staging, config)
        sizes = {
            "vocab_size": n_tokens,
            "hidden_size": config.width,
            "intermediate_size": config.ff_width,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "num_key_value_heads": config.n_kv_heads,
            "head_dim": config.width // config.n_heads,
            "max_position_embeddings": config.max_tokens,
            "tie_word_embeddings": config.tied,
            "bos_token_id": None,
        }
        kind = {"qwen3": "Qwen3Config", "llama": "LlamaConfig"}[config.architecture]
        with seeded(seed):
            model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes))
        model.config.eos_token_id = model.generation_config.eos_token_id = n_tokens - 1
        model.config.pad_token_id = model.generation_config.pad_token_id = n_tokens - 2
        model.save_pretrained(staging)


def _write_tokenizer(texts: Sequence[str], folder: Path, config: NewModelConfig) -> int:
    """Train and save the tokenizer as this architecture will load it; returns its number of tokens."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=config.words - 2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for text in texts if text.strip()), trainer)
    tokenizer.add_special_tokens([PAD, END])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    fast.save_pretrained(folder)
    return len(fast)
