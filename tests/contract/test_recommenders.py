"""What every recommender promises, asked of each entry of the registry."""

import json

import numpy as np
import polars as pl
import pytest

from tesserec.artifacts import MANIFEST
from tesserec.config import build, to_dict
from tesserec.data import Dataset
from tesserec.data.sequences import Sequences
from tesserec.data.splits import Split, leave_one_out
from tesserec.errors import ArtifactError, ConfigError, DataError
from tesserec.evaluation import why_missed
from tesserec.recommenders import RECOMMENDERS, load_recommender, make_recommender, recommender_class
from tesserec.recommenders.base import Recommender
from tesserec.text.embeddings import Embeddings
from tesserec.tokenizers.semantic_ids import SemanticIds
from tesserec.training.config import TrainingConfig

N_ITEMS = 24
UNSEEN = "item-23"  # in the catalogue, in no sequence
TRAINING = TrainingConfig(device="cpu", precision="fp32", epochs=2, batch_size=32, learning_rate=0.01)
SETTINGS = {  # small networks; other methods as they are
    "sasrec": {"width": 16, "n_layers": 1, "n_heads": 1, "max_length": 8},
    "bsarec": {"width": 16, "n_layers": 1, "n_heads": 1, "max_length": 8},
    "hstu": {"width": 16, "n_layers": 1, "n_heads": 1, "head_width": 8, "max_length": 8},
    "bert4rec": {"width": 16, "n_layers": 1, "n_heads": 1, "max_length": 8},
    "s3rec": {"width": 16, "n_layers": 1, "n_heads": 1, "max_length": 8, "pretrain_epochs": 1},
    "recguru": {"width": 16, "n_layers": 1, "n_heads": 1, "max_length": 8, "pretrain_epochs": 1},
    "tiger": {"width": 16, "ff_width": 32, "n_layers": 1, "n_heads": 2, "head_width": 8, "beam_width": 24},
    "lcrec": {
        "new": {"width": 16, "ff_width": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "words": 400},
        "tasks": ("seqrec", "item2index"),
        "beam_width": 24,
    },
    "sasrec-text": {"width": 16, "n_layers": 1, "max_length": 8},
    "unisrec": {"width": 16, "n_experts": 3, "n_layers": 1, "max_length": 8},
    "zesrec": {"width": 16, "n_layers": 1, "max_length": 8},
    "fdsa": {"width": 16, "n_layers": 1, "max_length": 8},
    "ccfrec": {"width": 16, "n_layers": 1, "fusion_layers": 1, "max_length": 8},
    "unified": {"codebook_size": 4, "latent_width": 12, "id_width": 4, "hidden": (16,), "n_layers": 1, "max_length": 8},
    "vqrec": {"width": 16, "n_layers": 1, "max_length": 8},
}
HISTORIES = [["item-1", "item-2"], ["item-5"], [f"item-{row}" for row in range(15)], ["item-9", "item-3", "item-9"]]


@pytest.fixture(scope="module")
def split() -> Split:
    random = np.random.default_rng(0)
    sequences = [(random.integers(23) + np.arange(random.integers(4, 12))) % 23 for _ in range(60)]
    items = pl.DataFrame({
        "item_id": [f"item-{row}" for row in range(N_ITEMS)],
        "title": [f"thing {'abcd'[row % 4] * 3} {row // 4}0" for row in range(N_ITEMS)],
        "domain": pl.Series([f"{'ab'[row // 12]}" for row in range(N_ITEMS)], dtype=pl.Enum(["a", "b"])),
    })  # fmt: skip
    return leave_one_out(Dataset(items, tuple(f"user-{row}" for row in range(60)), Sequences.from_lists(sequences)))


@pytest.fixture(scope="module")
def semantic_ids(split) -> SemanticIds:
    rows = np.arange(N_ITEMS)
    return SemanticIds(split.dataset.catalogue, np.stack([rows % 4, rows // 4], axis=1), (4, 6))


@pytest.fixture(scope="module")
def embeddings(split) -> Embeddings:
    return Embeddings(split.dataset.catalogue, np.random.default_rng(0).normal(size=(N_ITEMS, 6)).astype(np.float32))


def made(method: str, semantic_ids: SemanticIds, embeddings: Embeddings) -> Recommender:
    return make_recommender(method, SETTINGS.get(method), TRAINING, semantic_ids, embeddings)


@pytest.fixture(scope="module", params=RECOMMENDERS)
def fitted(request, split, semantic_ids, embeddings) -> Recommender:
    return made(request.param, semantic_ids, embeddings).fit(split)


def test_the_registry_names_classes_by_their_method():
    assert RECOMMENDERS
    assert {method: recommender_class(method).method for method in RECOMMENDERS} == {m: m for m in RECOMMENDERS}


@pytest.mark.parametrize("method", RECOMMENDERS)
def test_a_configuration_survives_plain_values(method):
    config_class = recommender_class(method).config_class
    config = build(config_class, SETTINGS.get(method, {}), where="test")
    assert build(config_class, json.loads(json.dumps(to_dict(config))), where="test") == config


def test_an_unknown_method_or_setting_names_the_nearest():
    with pytest.raises(ConfigError, match=r"no recommender called 'sasrek'. Did you mean 'sasrec'\?"):
        make_recommender("sasrek")
    with pytest.raises(ConfigError, match=r"recommender: there is no setting 'widht'. Did you mean 'width'\?"):
        make_recommender("sasrec", {"widht": 3})


def test_a_method_over_semantic_ids_asks_for_them():
    with pytest.raises(ConfigError, match=r"tiger recommends by semantic IDs. Add a tokenizer"):
        make_recommender("tiger")


def test_a_method_over_embeddings_asks_for_them():
    with pytest.raises(ConfigError, match=r"unified reads item embeddings. Encode the items' texts"):
        make_recommender("unified")


def test_a_reload_recommends_and_ranks_the_same(fitted, split, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = load_recommender(tmp_path / "model")
    assert type(loaded) is type(fitted)
    assert loaded.config == fitted.config
    before, after = fitted.recommend(HISTORIES, k=10), loaded.recommend(HISTORIES, k=10)
    assert np.array_equal(before.items, after.items)
    assert np.array_equal(before.scores, after.scores)
    assert np.array_equal(fitted.rank(split.test).ahead, loaded.rank(split.test).ahead)
    assert loaded.n_parameters == fitted.n_parameters
    manifest = json.loads((tmp_path / "model" / MANIFEST).read_text())
    assert manifest["sources"]["dataset"] == split.dataset.fingerprint
    assert ("training" in manifest["config"]) == fitted.is_trained


def test_a_folder_of_another_method_is_refused(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    other = next(method for method in RECOMMENDERS if method != fitted.method)
    with pytest.raises(ArtifactError, match=f"holds a {fitted.method} recommender, not a {other}"):
        recommender_class(other).load(tmp_path / "model")


def test_a_batch_equals_one_by_one(fitted):
    together = fitted.recommend(HISTORIES, k=5)
    for row, history in enumerate(HISTORIES):
        alone = fitted.recommend([history], k=5)
        assert alone.ids()[0] == together.ids()[row]
        assert alone.scores[0] == pytest.approx(together.scores[row], abs=1e-4)


def test_items_are_distinct_and_scores_fall(fitted):
    answer = fitted.recommend(HISTORIES, k=N_ITEMS)
    for ids, scores in zip(answer.ids(), answer.scores, strict=True):
        assert len(set(ids)) == len(ids)
        assert (np.diff(scores[: len(ids)]) <= 0).all()


def test_unknown_items_are_passed_over(fitted):
    with_unknown = fitted.recommend([["nobody", "item-1", "knows", "item-2"]], k=5)
    assert with_unknown.ids() == fitted.recommend([["item-1", "item-2"]], k=5).ids()


def test_an_empty_history_gets_the_popular_items(fitted, split):
    popular = np.lexsort((np.arange(N_ITEMS), -split.train_counts))[:4]
    wanted = [f"item-{row}" for row in popular]
    answer = fitted.recommend([[], ["nobody"], ["item-1"]], k=4)
    assert answer.ids()[:2] == [wanted, wanted]
    assert answer.scores[0].tolist() == split.train_counts[popular].tolist()
    assert len(answer.ids()[2]) == 4
    assert fitted.recommend([[]], k=2, deny=[wanted[0]]).ids() == [wanted[1:3]]


def test_item_sets_and_seen_items_are_honoured(fitted):
    allowed = ["item-3", "item-9", "item-11", UNSEEN]
    answer = fitted.recommend(HISTORIES, k=3, allow=allowed)
    assert all(set(ids) <= set(allowed) for ids in answer.ids())
    assert all(len(ids) == 3 for ids in answer.ids())
    denied = fitted.recommend(HISTORIES, k=N_ITEMS, deny=allowed)
    assert not any(set(ids) & set(allowed) for ids in denied.ids())
    fresh = fitted.recommend(HISTORIES, k=N_ITEMS, exclude_seen=True)
    for history, ids in zip(HISTORIES, fresh.ids(), strict=True):
        assert not set(history) & set(ids)
    mask = np.ones((len(HISTORIES), N_ITEMS), dtype=bool)
    mask[1, :20] = False
    assert all(int(item.split("-")[1]) >= 20 for item in fitted.recommend(HISTORIES, k=3, allow=mask).ids()[1])


def test_fewer_items_than_asked_for_leave_the_rest_of_the_row_empty(fitted):
    answer = fitted.recommend([["item-1"]], k=5, allow=["item-3", "item-4", "item-1"], exclude_seen=True)
    assert sorted(answer.ids()[0]) == ["item-3", "item-4"]
    assert answer.items[0, 2:].tolist() == [-1, -1, -1]
    assert np.isneginf(answer.scores[0, 2:]).all()


def test_ranks_agree_with_recommendations(fitted, split):
    ranks = fitted.rank(split.test)
    answer = fitted.recommend(split.test.histories, k=5)
    places = np.argmax(answer.items == split.test.targets[:, None], axis=1)
    listed = (answer.items == split.test.targets[:, None]).any(axis=1)
    certain = ranks.found & (ranks.tied == 1)
    assert np.array_equal(listed[certain], ranks.ahead[certain] < 5)
    assert np.array_equal(places[certain & listed], ranks.ahead[certain & listed])


def test_the_lists_of_a_ranking_are_the_recommendations(fitted, split):
    for exclude_seen in (False, True):
        ranks = fitted.rank(split.test, exclude_seen=exclude_seen, list_length=N_ITEMS)
        answer = fitted.recommend(split.test.histories, k=N_ITEMS, exclude_seen=exclude_seen)
        assert np.array_equal(ranks.lists, answer.items)
    assert fitted.rank(split.test).lists is None


@pytest.mark.parametrize("method", [name for name in RECOMMENDERS if recommender_class(name).is_generative])
def test_following_the_targets_of_a_beam_finds_those_that_it_ranks(method, split, semantic_ids, embeddings):
    generative = made(method, semantic_ids, embeddings).fit(split)
    generative.beam_width = 5
    found = why_missed(generative, split, part="test", beam_width=5)
    assert np.array_equal(~found.lost, generative.rank(split.test).found)
    assert found.lost.any()
    assert not found.lost.all()


@pytest.mark.parametrize(("question", "error", "message"), [
    ({"k": 0}, ConfigError, "k is 0"),
    ({"allow": ["item-1", "nothing"]}, DataError, "no item 'nothing'"),
    ({"deny": np.zeros(3, dtype=bool)}, DataError, r"deny is an array bool\(3,\)"),
])  # fmt: skip
def test_questions_that_make_no_sense_are_errors(fitted, question, error, message):
    with pytest.raises(error, match=message):
        fitted.recommend(HISTORIES, **question)


@pytest.mark.parametrize("method", RECOMMENDERS)
def test_an_unfitted_recommender_says_so(method, semantic_ids, embeddings):
    with pytest.raises(ConfigError, match="has not been fitted"):
        made(method, semantic_ids, embeddings).recommend([["item-1"]])
