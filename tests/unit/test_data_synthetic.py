"""The made-up shop: what is said to be planted is there."""

import numpy as np
import pytest

from tesserec.data import SyntheticConfig, by_time, leave_one_out, plant, synthetic_catalogue
from tesserec.errors import ConfigError


@pytest.fixture(scope="module")
def shop():
    return plant()


def steps(dataset):
    """(item before, item after) of every two consecutive events."""
    values, offsets = dataset.sequences.flat()
    inside = np.ones(len(values), dtype=bool)
    inside[offsets[:-1]] = False
    after = np.flatnonzero(inside)
    return values[after - 1], values[after]


def test_one_seed_gives_one_shop_and_another_seed_another(shop):
    assert synthetic_catalogue().fingerprint == shop[0].fingerprint
    assert synthetic_catalogue().items.equals(shop[0].items)
    assert synthetic_catalogue(SyntheticConfig(seed=1)).fingerprint != shop[0].fingerprint


def test_the_default_shop_has_the_stated_size(shop):
    dataset, _ = shop
    assert (len(dataset.user_ids), len(dataset.catalogue)) == (2000, 600)
    assert dataset.items.columns == ["item_id", "title", "brand", "category", "description"]
    assert dataset.sequences.lengths.min() >= 3
    assert dataset.sequences.lengths.mean() == pytest.approx(9, abs=0.4)


def test_three_quarters_of_the_steps_follow_a_habit(shop):
    dataset, truth = shop
    before, after = steps(dataset)
    to_successor, to_accessory = truth.successor[before] == after, truth.accessory[before] == after
    assert to_successor.mean() == pytest.approx(0.75 * 0.7, abs=0.03)
    assert to_accessory.mean() == pytest.approx(0.75 * 0.3, abs=0.05)


def test_habits_are_far_better_guesses_than_popularity(shop):
    dataset, truth = shop
    split = leave_one_out(dataset)
    top = np.argsort(-split.train_counts)[:10]
    last = np.array([history[-1] for history in split.test.histories])
    habits = (truth.successor[last] == split.test.targets) | (truth.accessory[last] == split.test.targets)
    assert np.isin(split.test.targets, top).mean() < 0.15
    assert habits.mean() > 0.7


def test_habits_lead_to_the_next_volume_of_a_series_or_to_an_item_of_the_category(shop):
    _, truth = shop
    items = np.flatnonzero(truth.bought)
    follows = truth.successor[items]
    assert (truth.category[follows] == truth.category[items]).all()
    assert (truth.category[truth.accessory[items]] == truth.category[items]).all()
    same_series = truth.series[follows] == truth.series[items]
    assert same_series.mean() > 0.75
    assert (truth.volume[follows] > truth.volume[items])[same_series].all()


def test_popularity_is_skewed(shop):
    counts = np.sort(leave_one_out(shop[0]).train_counts)[::-1]
    assert counts[:60].sum() > 0.25 * counts.sum()  # a tenth of the items


def test_some_items_are_never_bought(shop):
    dataset, truth = shop
    never = np.setdiff1d(np.arange(600), dataset.sequences.values)
    assert (~truth.bought).sum() == 18
    assert np.isin(np.flatnonzero(~truth.bought), never).all()


def test_texts_say_what_is_planted_and_nearly_repeat_for_duplicates(shop):
    dataset, truth = shop
    rows = dataset.items.to_dicts()
    for item, row in enumerate(rows):
        assert row["brand"] in row["title"]
        assert row["category"].lower() in row["description"]
        assert f" {truth.volume[item]}, " in row["title"]
    copies = np.flatnonzero(truth.duplicate_of >= 0)
    pairs = [(rows[copy]["title"], rows[truth.duplicate_of[copy]]["title"]) for copy in copies]
    assert len(pairs) == 30
    assert all(one.rsplit(",")[0] == other.rsplit(",")[0] for one, other in pairs)
    assert 0 < sum(one == other for one, other in pairs) < 30
    originals = [row["title"] for item, row in enumerate(rows) if truth.duplicate_of[item] < 0]
    assert len(set(originals)) == len(originals)


def test_ids_tell_nothing_of_the_planted_order(shop):
    _, truth = shop
    assert abs(np.corrcoef(np.arange(600), truth.series)[0, 1]) < 0.15


def test_events_have_times_to_split_by(shop):
    dataset, _ = shop
    rows, index = dataset.sequences.positions()
    later = np.diff(dataset.sequences.times[index]) > 0
    assert later[np.diff(rows) == 0].all()
    split = by_time(dataset, validation_from=1_672_531_200, test_from=1_675_209_600)
    assert min(len(split.validation), len(split.test)) > 50


def test_a_larger_shop_keeps_its_proportions():
    dataset, truth = plant(SyntheticConfig(n_users=20_000, n_items=5000, n_categories=16, mean_events=6))
    before, after = steps(dataset)
    assert (truth.successor[before] == after).mean() == pytest.approx(0.525, abs=0.02)
    assert len(set(dataset.items["title"])) > 4700


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_categories": 17}, "n_categories is 17. Use 1 to 16"),
        ({"n_items": 20}, "n_items 20. Use a user or more, and four items or more"),
        ({"mean_events": 2.0}, "mean_events is 2.0"),
        ({"habit_share": 1.5}, "habit_share is 1.5. Use a share from 0 to 1"),
        ({"never_bought_share": 0.7}, "never_bought_share is 0.7"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticConfig(**settings)


def test_a_category_without_ordinary_items_is_an_error():
    with pytest.raises(ConfigError, match=r"has no ordinary item. Give more than 48 items"):
        plant(SyntheticConfig(n_items=48, never_bought_share=0.5, near_duplicate_share=0.5))
