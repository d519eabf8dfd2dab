"""Recipes: from TOML and `--set` to checked settings."""

from pathlib import Path

import pytest

from tesserec.errors import ConfigError
from tesserec.pipeline import load_recipe, packaged_recipes
from tesserec.pipeline.recipe import SplitConfig


def test_every_packaged_recipe_has_a_one_line_summary_and_valid_settings():
    found = packaged_recipes()
    assert {"popularity", "item-graph", "sasrec", "tiger", "tiger-paper", "unified", "unified-paper"} <= set(found)
    assert {
        "sasrec-text",
        "unisrec",
        "unisrec-pretrain",
        "unisrec-finetune",
        "zesrec",
        "zesrec-pretrain",
        "ccfrec",
        "ccfrec-paper",
        "fdsa",
        "bert4rec",
        "s3rec",
        "bsarec",
        "hstu",
        "recguru",
    } <= set(found)
    for name, summary in found.items():
        assert 0 < len(summary) <= 100
        assert "\n" not in summary
        assert load_recipe(name).summary == summary


def test_a_recipe_written_out_in_full_is_the_same_recipe(tmp_path: Path):
    recipe = load_recipe("tiger", ["training.epochs=7", "text.template={title}. {brand}"])
    file = tmp_path / "tiger.toml"
    file.write_text(recipe.text_form())
    assert load_recipe(str(file)) == recipe


@pytest.mark.parametrize("name", ["letter-tiger", "letter-tiger-paper"])
@pytest.mark.parametrize("settings", [[], ["collaborative=file", "collaborative.path=vectors.npy"]])
def test_collaborative_vectors_are_written_out_and_read_again(tmp_path: Path, name: str, settings: list[str]):
    recipe = load_recipe(name, [*settings, "seed=3"])
    assert recipe.collaborative is not None
    file = tmp_path / f"{name}.toml"
    file.write_text(recipe.text_form())
    assert load_recipe(str(file)) == recipe


def test_collaborative_vectors_are_as_wide_as_the_tokenizers_latents_and_have_a_training_of_their_own():
    recipe = load_recipe("letter-tiger", ["tokenizer.latent_width=16", "collaborative.training.epochs=3", "seed=7"])
    assert recipe.collaborative is not None
    assert recipe.collaborative.model.width == 16
    assert recipe.collaborative.training is not None
    assert (recipe.collaborative.training.epochs, recipe.collaborative.training.seed) == (3, 7)
    assert recipe.training is not None
    assert recipe.training.epochs != 3
    with pytest.raises(ConfigError, match=r"collaborative.width is 64, but tokenizer.latent_width is 32"):
        load_recipe("letter-tiger", ["collaborative.width=64"])


def test_tokenizers_without_collaborative_vectors_have_no_use_for_them():
    assert load_recipe("letter-tiger", ["tokenizer.alpha=0"]).collaborative is None
    with pytest.raises(ConfigError, match="no use for collaborative"):
        load_recipe("tiger", ["collaborative=sasrec"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["collaborative=file"], "Set the path of the vectors"),
        (["collaborative=lightgcn"], "method is 'lightgcn'. Use 'sasrec', or 'file'"),
        (["collaborative.widht=3"], "no setting 'widht'. Did you mean 'width'"),
        (["collaborative.training=3"], "Write it as a table"),
        (["collaborative.training.epoch=3"], "Did you mean 'epochs'"),
        (["tokenizer.temperature=3"], "no setting 'temperature'"),
        (["recommender.temperature=0"], "temperature is 0"),
        (["tokenizer.alpha=-1"], "alpha is -1"),
        (["tokenizer.commitment=-1"], "commitment is -1"),
        (["tokenizer.distance=foo"], "distance is 'foo'. Use one of 'euclidean', 'cosine', 'mixed'"),
        (["collaborative.path=/nope.npy"], "the method is 'sasrec', which reads no file.*--set collaborative=file"),
        (["collaborative=file", "collaborative.path=/nope.npy", "collaborative.model=3"], "no setting 'model'"),
    ],
)
def test_wrong_collaborative_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("letter-tiger", settings)


def test_set_changes_a_setting_and_converts_it():
    recipe = load_recipe("tiger", ["training.epochs=7", "training.clip_norm=none", "evaluation.cutoffs=1,3"])
    assert recipe.training is not None
    assert (recipe.training.epochs, recipe.training.clip_norm, recipe.evaluation.cutoffs) == (7, None, (1, 3))


def test_choosing_another_method_starts_from_its_defaults(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text("[tokenizer]\nmethod = 'rkmeans'\nn_restarts = 9\n[recommender]\nmethod = 'tiger'\n")
    kept = load_recipe(str(file), ["tokenizer=rkmeans"])
    assert kept.tokenizer is not None
    assert kept.tokenizer.config.n_restarts == 9
    changed = load_recipe(str(file), ["tokenizer=rqvae", "tokenizer.n_levels=2"])
    assert changed.tokenizer is not None
    assert (changed.tokenizer.method, changed.tokenizer.config.n_levels) == ("rqvae", 2)


def test_one_seed_seeds_every_section_that_has_none_of_its_own():
    recipe = load_recipe("tiger", ["seed=5", "tokenizer.seed=2"])
    assert recipe.training is not None
    assert recipe.tokenizer is not None
    assert recipe.text is not None
    assert (recipe.training.seed, recipe.tokenizer.config.seed, recipe.text.seed) == (5, 2, 5)


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        ("tiger", "recommender.temperature"),
        ("tiger", "recommender.dropout"),
        ("tiger", "training.learning_rate"),
        ("tiger", "training.max_seconds"),
        ("tiger", "training.weight_decay"),
        ("unified", "recommender.latent_length"),
        ("letter-tiger", "tokenizer.alpha"),
        ("letter-tiger", "tokenizer.commitment"),
        ("letter-tiger", "collaborative.training.clip_norm"),
    ],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_number_that_is_not_finite_is_a_setting(recipe, setting, value):
    with pytest.raises(ConfigError, match=rf"{setting} is '{value}'. Give a finite number"):
        load_recipe(recipe, [f"{setting}={value}"])


def test_whole_numbers_are_kept_exactly_and_fit_into_64_bits():
    recipe = load_recipe("tiger", ["training.seed=9007199254740993", "training.batch_size=1e2"])
    assert recipe.training is not None
    assert (recipe.training.seed, recipe.training.batch_size) == (9007199254740993, 100)
    with pytest.raises(ConfigError, match=r"codebook_size is '1e300'. Give a whole number"):
        load_recipe("tiger", ["tokenizer.codebook_size=1e300"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["evaluation.cutoffs=0"], r"cutoffs is \[0\]. Give one whole number or more"),
        (["evaluation.cutoffs=5,10,5"], "at least 1 and only once"),
        (["evaluation.cutoffs="], r"cutoffs is \[\]"),
        (["evaluation.beam_width=0"], "a width of 1 or more"),
        (["evaluation.exact=true", "evaluation.beam_width=5"], "Choose one of them"),
        (["recommender=sasrec", "evaluation.exact=true"], "sasrec scores every item"),
        (["training.metric=foo@10"], "no metric called 'foo'"),
        (["training.metric=ndcg"], "Write the metric as in ndcg@10"),
        (["seed=-1"], "seed is -1. Use 0 or more"),
        (["tokenizer.seed=-1"], "seed is -1. Use 0 or more"),
        (["text.seed=-1"], "seed is -1. Use 0 or more"),
        (["epochs=1"], "no section 'epochs'. Known: .* seed, "),
        (["tokenizer=foo"], "no tokenizer called 'foo'. Known: file, fitted, letter"),
    ],
)
def test_what_only_later_stages_would_stumble_over_is_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("tiger", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.epoch=3"], "no setting 'epoch'. Did you mean 'epochs'"),
        (["trainng.epochs=3"], "no section 'trainng'. Did you mean 'training'"),
        (["training.epochs=many"], "training.epochs is 'many'. Give a whole number"),
        (["training.epochs=0"], "training.epochs is 0"),
        (["training.epochs"], "has no value. Write it as in training.epochs=5"),
        (["training=3"], "say which setting of training"),
        (["tokenizer=rkmean"], "no tokenizer called 'rkmean'. Did you mean 'rkmeans'"),
        (["recommender=tigre"], "no recommender called 'tigre'. Did you mean 'tiger'"),
        (["split=by-time"], "needs split.validation_from"),
    ],
)
def test_wrong_settings_are_named_with_the_nearest_right_one(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("tiger", settings)


def test_a_setting_that_the_method_has_no_use_for_is_refused():
    with pytest.raises(ConfigError, match="popularity has no use for training"):
        load_recipe("popularity", ["training.epochs=3"])


def test_a_method_over_embeddings_has_texts_and_no_tokenizer():
    recipe = load_recipe("unified", ["text.width=32"])
    assert recipe.text is not None
    assert (recipe.text.width, recipe.tokenizer) == (32, None)
    with pytest.raises(ConfigError, match="unified has no use for tokenizer"):
        load_recipe("unified", ["tokenizer=rkmeans"])


def test_unknown_recipes_are_refused_with_the_nearest_name(tmp_path: Path):
    with pytest.raises(ConfigError, match="Did you mean 'sasrec'"):
        load_recipe("sasrek")
    with pytest.raises(ConfigError, match="no recipe file"):
        load_recipe(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recommender\n", "not valid TOML"),
        ("[recommendr]\nmethod = 'sasrec'\n", "Did you mean 'recommender'"),
        ("[training]\nepochs = 3\n", r"has no \[recommender\]"),
        ("recommender = 'sasrec'\n", "Write it as a table"),
        ("[recommender]\n", "names no method"),
        ("[recommender]\nmethod = 3\n", "no recommender called 3. Known: "),
        ("[recommender]\nmethod = ['tiger']\n", r"no recommender called \['tiger'\]"),
        ("[recommender]\nmethod = 'tiger'\n[tokenizer]\nmethod = 3\n", "no tokenizer called 3"),
        ("summary = 3\n[recommender]\nmethod = 'popularity'\n", "summary is 3. Give text"),
        ("seed = 'x'\n[recommender]\nmethod = 'popularity'\n", "seed is 'x'. Give a whole number"),
        ("sede = 1\n[recommender]\nmethod = 'popularity'\n", "Did you mean 'seed'"),
        (f"x = {'[' * 5000}", "nested too deeply"),
        ("[recommender]\nmethod = 'tiger'\n", r"Add \[tokenizer\]"),
    ],
)
def test_damaged_recipe_files_are_refused(tmp_path: Path, text, message):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(file))


def test_a_recipe_file_is_utf_8_and_may_have_a_name_in_capitals(tmp_path: Path):
    text = "summary = 'café'\n[recommender]\nmethod = 'popularity'\n"
    (tmp_path / "mine.TOML").write_text(text, encoding="utf-8")
    assert load_recipe(str(tmp_path / "mine.TOML")).summary == "café"
    (tmp_path / "mine.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text. Convert it"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_dates_belong_to_the_split_by_time_alone():
    with pytest.raises(ConfigError, match=r"need split\.method=by-time"):
        SplitConfig(validation_from=3)
