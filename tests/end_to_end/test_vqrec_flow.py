"""VQ-Rec by its recipes: trained on one shop, then taken to another, with each ablation one switch."""

from pathlib import Path

import numpy as np
import pytest

from tesserec.data import SyntheticConfig, synthetic_catalogue
from tesserec.errors import ArtifactError, ConfigError
from tesserec.pipeline import Run, load_recipe, run

SMALL = [
    "text=lsa", "text.width=32", "tokenizer.n_levels=4", "tokenizer.codebook_size=16", "recommender.width=16",
    "recommender.ff_width=32", "recommender.n_layers=1", "recommender.dropout=0", "training.precision=fp32",
    "training.batch_size=32", "training.device=cpu", "training.learning_rate=0.01", "training.epochs=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def shops(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shops")
    for seed, n_items in enumerate((60, 50)):
        synthetic_catalogue(SyntheticConfig(n_users=150, n_items=n_items, seed=seed)).save(folder / str(seed))
    return [folder / "0", folder / "1"]


@pytest.fixture(scope="module")
def pretrained(shops, tmp_path_factory) -> Run:
    return run(load_recipe("vqrec-pretrain", SMALL), shops[0], tmp_path_factory.mktemp("pretrained") / "run")


def finetune(pretrained: Run, shop: Path, out: Path, *settings: str) -> Run:
    start = f"recommender.pretrained={pretrained.folder}"
    return run(load_recipe("vqrec-finetune", [*SMALL, start, *settings]), shop, out)


def test_pre_training_learns_what_comes_next(pretrained):
    assert pretrained.recommender.config.corruption == 0.75
    assert pretrained.report.metrics["recall@10"] > 2 * 10 / 60


def test_a_model_is_taken_to_another_shop_and_its_alignment_is_logged(pretrained, shops, tmp_path):
    tuned = finetune(pretrained, shops[1], tmp_path / "run")
    assert len(tuned.recommender.alignment_log.rows) == 5
    assert tuned.report.metrics["recall@10"] > 2 * 10 / 50
    assert tuned.recommender.sources["pretrained"] == pretrained.about["stages"]["recommender"]["fingerprint"]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("settings", [
    ["recommender.alignment=none"],
    ["recommender.alignment=reference"],
    ["recommender.zero_shot=true"],
    ["recommender.tuned=all"],
])  # fmt: skip
def test_every_other_way_to_the_new_shop_is_one_switch(settings, pretrained, shops, tmp_path):
    tuned = finetune(pretrained, shops[1], tmp_path / "run", *settings, "training.epochs=1")
    assert len(tuned.recommender.log.rows) == (0 if "recommender.zero_shot=true" in settings else 1)
    assert len(tuned.report) == 150


def test_the_tokenizer_of_the_first_shop_codes_the_second(pretrained, shops, tmp_path):
    settings = ["tokenizer=fitted", f"tokenizer.path={pretrained.folder}", "recommender.alignment=none"]
    small = [setting for setting in SMALL if not setting.startswith("tokenizer")] + ["training.epochs=1"]
    start = f"recommender.pretrained={pretrained.folder}"
    tuned = run(load_recipe("vqrec-finetune", [*small, start, *settings]), shops[1], tmp_path / "run")
    assert tuned.semantic_ids.codebook_sizes == pretrained.semantic_ids.codebook_sizes


def test_random_codes_and_codes_from_a_file_do_as_well(shops, tmp_path):
    small = [setting for setting in SMALL if not setting.startswith(("tokenizer", "text"))]
    small.append("training.epochs=1")
    random = [
        "text=lsa",
        "tokenizer=random",
        "tokenizer.n_levels=4",
        "tokenizer.codebook_size=16",
        "tokenizer.collisions=share",
    ]
    codes = run(load_recipe("vqrec", [*small, *random]), shops[1], tmp_path / "random").semantic_ids.codes
    published = np.where(np.arange(50)[:, None] % 9 == 4, -1, codes)
    np.save(tmp_path / "codes.npy", published.astype(np.int16))
    file = ["tokenizer=file", f"tokenizer.path={tmp_path / 'codes.npy'}", "tokenizer.uncoded=reserve"]
    read = run(load_recipe("vqrec", [*small, *file]), shops[1], tmp_path / "file")
    assert read.semantic_ids.codebook_sizes == (17,) * 4
    assert (read.semantic_ids.codes[4] == 16).all()
    assert 0 < read.report.metrics["recall@10"] < 1


def test_fine_tuning_says_what_it_starts_from_before_anything_is_made(shops, tmp_path):
    with pytest.raises(ConfigError, match=r"alignment is 'learned', .*--set recommender.pretrained=RUN"):
        run(load_recipe("vqrec-finetune", SMALL), shops[1], tmp_path / "run")
    with pytest.raises(ArtifactError, match=r"nowhere is no run, recommender or file, so training cannot"):
        run(
            load_recipe("vqrec-finetune", [*SMALL, f"recommender.pretrained={tmp_path / 'nowhere'}"]),
            shops[1],
            tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_codes_of_other_sizes_than_the_models_are_refused(pretrained, shops, tmp_path):
    with pytest.raises(ArtifactError, match=r"reads codes of the sizes 4 x 16, these items have 8 x 16"):
        finetune(pretrained, shops[1], tmp_path / "run", "tokenizer.n_levels=8")
