"""What every entry of TOKENIZERS keeps to."""

import json
from typing import Any

import numpy as np
import pytest

from tesserec.config import build, to_dict
from tesserec.data.catalogue import Catalogue
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers import TOKENIZERS, load_tokenizer, make_tokenizer, tokenizer_class
from tesserec.tokenizers.base import ItemTokenizer
from toy_items import clustered, embeddings_of

SMALL: dict[str, Any] = {"n_levels": 2, "codebook_size": 8}
NETWORK: dict[str, Any] = {"hidden": [16], "latent_width": 6, "epochs": 12, "batch_size": 32, "precision": "fp32"}
EXTRA: dict[str, dict[str, Any]] = {
    "rqvae": NETWORK,
    "letter": {**NETWORK, "alpha": 0.0, "collisions": "extra-level"},  # with collaborative vectors: test_letter.py
}
RESIDUAL = ("rkmeans", "rqvae", "letter")

residual_methods = pytest.mark.parametrize("method", RESIDUAL)
every_method = pytest.mark.parametrize("method", TOKENIZERS)
methods_over_texts = pytest.mark.parametrize("method", [method for method in TOKENIZERS if method != "random"])


def make(method: str, **settings: Any) -> ItemTokenizer:
    return make_tokenizer(method, {**SMALL, **EXTRA.get(method, {}), **settings})


@every_method
def test_configuration_survives_being_written_as_json(method: str) -> None:
    config = make(method, seed=3).config
    assert build(tokenizer_class(method).config_class, json.loads(json.dumps(to_dict(config))), where="") == config


@every_method
def test_a_reloaded_tokenizer_gives_the_same_ids_to_new_items_too(method: str, tmp_path) -> None:
    fitted = make(method).fit(clustered())
    fitted.save(tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    for items in (clustered(), clustered(seed=1)):
        np.testing.assert_array_equal(loaded.encode(items).codes, fitted.encode(items).codes)
        np.testing.assert_array_equal(loaded.reconstruct(fitted.encode(items).codes),
                                      fitted.reconstruct(fitted.encode(items).codes))  # fmt: skip
    assert loaded.embeddings_fingerprint == clustered().fingerprint


@every_method
def test_one_seed_gives_the_same_codes(method: str) -> None:
    first, second = (make(method, seed=5).fit(clustered()).encode(clustered()) for _ in range(2))
    assert first.fingerprint == second.fingerprint


@every_method
def test_embeddings_on_disk_do_as_well_as_those_in_memory(method: str, tmp_path) -> None:
    clustered().save(tmp_path / "embeddings")
    on_disk = Embeddings.load(tmp_path / "embeddings")
    codes = make(method).fit(on_disk).encode(on_disk).codes
    np.testing.assert_array_equal(codes, make(method).fit(clustered()).encode(clustered()).codes)


@every_method
def test_a_catalogue_encodes_as_its_items_do_one_by_one(method: str) -> None:
    items = clustered()
    fitted = make(method, collisions="share").fit(items)
    together = fitted.encode(items).codes
    for row in range(0, len(together), 7):
        alone = Embeddings(Catalogue([items.catalogue.item_ids[row]]), items.vectors[row : row + 1])
        np.testing.assert_array_equal(fitted.encode(alone).codes[0], together[row])


@every_method
def test_appended_items_never_change_the_ids_of_earlier_ones(method: str) -> None:
    items = clustered()
    fitted = make(method).fit(items)
    before = fitted.encode(items)
    extended = embeddings_of(np.concatenate([items.vectors, clustered(seed=1).vectors, items.vectors[:20]]))
    after = fitted.encode(extended)
    np.testing.assert_array_equal(after.codes[: len(before.codes)], before.codes)
    assert after.codebook_sizes == before.codebook_sizes
    assert after.group_sizes.max() == 1


@methods_over_texts
def test_equal_vectors_share_their_codes_and_the_extra_level_tells_them_apart(method: str) -> None:
    vectors = clustered().vectors
    items = embeddings_of(np.concatenate([vectors, vectors[:5]]))
    fitted = make(method).fit(items)
    codes = fitted.encode(items).codes
    np.testing.assert_array_equal(codes[-5:, :-1], codes[:5, :-1])
    assert (codes[-5:, -1] > codes[:5, -1]).all()


@methods_over_texts
def test_codes_explain_most_of_clustered_embeddings(method: str) -> None:
    items = clustered(n_clusters=8)
    fitted = make(method, **({"epochs": 150} if "epochs" in EXTRA.get(method, {}) else {})).fit(items)
    x = items.vectors
    error = ((x - fitted.reconstruct(fitted.encode(items).codes)) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    assert error < 0.35


@methods_over_texts
def test_codebooks_have_a_row_per_codeword(method: str) -> None:
    ids = make(method).fit(clustered()).encode(clustered())
    assert [len(table) for table in ids.codebooks] == [8, 8]
    assert ids.codebook_sizes == (8, 8, 256)
    assert ids.config["method"] == method


@every_method
def test_an_unfitted_tokenizer_says_so(method: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match="has not been fitted"):
        make(method).encode(clustered())
    with pytest.raises(ConfigError, match="has not been fitted"):
        make(method).save(tmp_path / "tokenizer")


@every_method
def test_wrong_vectors_are_refused(method: str) -> None:
    fitted = make(method).fit(clustered())
    with pytest.raises(DataError, match="7 wide, but the tokenizer was fitted on width 10"):
        fitted.encode(clustered(width=7))
    attributes = Embeddings(Catalogue(["a", "b"]), np.ones((2, 3, 10), dtype=np.float32), ("x", "y", "z"))
    with pytest.raises(DataError, match=r"one vector per item, not 3 attributes|have 3 attributes per item"):
        fitted.encode(attributes)


@every_method
def test_too_few_items_for_the_codebook_are_refused(method: str) -> None:
    with pytest.raises(DataError, match="5 items cannot fill a codebook of 8"):
        make(method).fit(clustered(n_items=5))


@methods_over_texts
def test_a_group_larger_than_the_extra_level_is_refused(method: str) -> None:
    items = embeddings_of(np.concatenate([clustered().vectors, np.ones((9, 10))]))
    with pytest.raises(DataError, match=r"share the codes \[\d+, \d+\].*extra_level_size"):
        make(method, extra_level_size=8, codebook_size=8).fit(items).encode(items)


@every_method
def test_equal_embeddings_are_refused(method: str) -> None:
    with pytest.raises(DataError, match="All 20 embeddings are equal"):
        make(method).fit(embeddings_of(np.ones((20, 10))))


@residual_methods
@pytest.mark.parametrize("policy", ["sinkhorn", "assignment"])
def test_other_last_codes_separate_items_and_leave_prefixes_alone(method: str, policy: str) -> None:
    items = clustered(60)
    shared = make(method, collisions="share").fit(items).encode(items)
    separated = make(method, collisions=policy).fit(items).encode(items)
    np.testing.assert_array_equal(separated.codes[:, :-1], shared.codes[:, :-1])
    assert separated.collision_policy == policy
    assert separated.codebook_sizes == (8, 8)
    assert len(separated.group_sizes) > len(shared.group_sizes)
    left = int(separated.group_sizes[separated.group_sizes > 1].sum())
    assert separated.config["remaining_collisions"] == {"items": left, "identical": 0}


@residual_methods
def test_assignment_leaves_no_collision_where_prefixes_have_no_more_items_than_codewords(method: str) -> None:
    items = clustered(60)
    ids = make(method, collisions="assignment", n_levels=3).fit(items).encode(items)
    _, prefix, sizes = np.unique(ids.codes[:, :-1], axis=0, return_inverse=True, return_counts=True)
    in_small = (sizes <= 8)[prefix.reshape(-1)]
    assert in_small.sum() > 30
    assert (ids.group_sizes[ids.group_of_item[in_small]] == 1).all()


@pytest.mark.parametrize("method", sorted(set(TOKENIZERS) - set(RESIDUAL)))
def test_independent_codes_have_no_last_one_to_give_away(method: str) -> None:
    for policy in ("sinkhorn", "assignment"):
        with pytest.raises(ConfigError, match="independent, so none is the finest"):
            make(method, collisions=policy)


@every_method
def test_a_damaged_artefact_is_refused(method: str, tmp_path) -> None:
    make(method).fit(clustered()).save(tmp_path / "tokenizer")
    payload = next(path for path in (tmp_path / "tokenizer").iterdir() if path.name != "manifest.json")
    for damage in (
        lambda: payload.write_bytes(payload.read_bytes()[:100]),
        lambda: payload.write_bytes(b""),
        payload.unlink,
    ):
        damage()
        with pytest.raises(ArtifactError, match="damaged"):
            load_tokenizer(tmp_path / "tokenizer")


def test_an_unknown_method_or_setting_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'rkmeans'"):
        make_tokenizer("rk-means")
    with pytest.raises(ConfigError, match="Did you mean 'n_levels'"):
        make_tokenizer("rkmeans", {"levels": 3})
    with pytest.raises(ConfigError, match="power of two"):
        make_tokenizer("pq", {"codebook_size": 100})


def test_a_tokenizer_is_loaded_by_its_own_class(tmp_path) -> None:
    make("pq").fit(clustered()).save(tmp_path / "tokenizer")
    with pytest.raises(ArtifactError, match="holds a pq tokenizer"):
        tokenizer_class("rkmeans").load(tmp_path / "tokenizer")
