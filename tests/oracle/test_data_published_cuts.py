"""The published cuts of real data: counts as in the papers, order as in the files."""

import csv
import json

import pytest

from tesserec.data import PrepareConfig, leave_one_out, prepare

pytestmark = pytest.mark.data

COUNTS = {  # users, items, interactions: the README of the data
    "scientific": (8442, 4385, 59390),
    "yelp": (30431, 20033, 316354),
    "games": (25372, 16414, 205301),
    "beauty": (22363, 12101, 198502),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_and_order_of_a_published_cut(real_data, name):
    dataset = prepare(real_data / name)
    assert (len(dataset.user_ids), len(dataset.catalogue), dataset.n_interactions) == COUNTS[name]
    assert len(leave_one_out(dataset).test) == len(dataset.user_ids)
    assert dataset.sequences.times is None  # the files keep the order only
    ids = dataset.catalogue.item_ids
    ours = {user: [ids[item] for item in row] for user, row in zip(dataset.user_ids, dataset.sequences, strict=True)}
    assert ours == histories_of(real_data / name)


def histories_of(folder):
    """User -> items by the standard library alone."""
    if (folder / "Beauty.inter.json").exists():
        content = json.loads((folder / "Beauty.inter.json").read_text())
        return {user: [str(item) for item in history] for user, history in content.items()}
    table = next(path for path in folder.iterdir() if path.suffix in (".inter", ".csv"))
    places: dict[str, list[tuple[float, str]]] = {}
    with table.open() as file:
        rows = csv.reader(file, delimiter="," if table.suffix == ".csv" else "\t", quoting=csv.QUOTE_NONE)
        next(rows)
        for user, item, place in rows:
            places.setdefault(user, []).append((float(place), item))
    return {user: [item for _, item in sorted(history)] for user, history in places.items()}


@pytest.mark.parametrize(("name", "items"), [("scientific", "scientific.item"), ("yelp", "yelp.item")])
def test_row_i_of_the_catalogue_is_row_i_of_the_item_file(real_data, name, items):
    lines = (real_data / name / items).read_text().splitlines()[1:]
    assert list(prepare(real_data / name).catalogue.item_ids) == [line.split("\t")[0] for line in lines]


def test_keys_of_the_letter_index_are_the_rows_of_side_files(real_data):
    assert list(prepare(real_data / "beauty").catalogue.item_ids) == [str(item) for item in range(12101)]


def test_repeats_in_yelp_histories_are_kept(real_data):
    dataset = prepare(real_data / "yelp")
    repeating = sum(len(set(row.tolist())) < len(row) for row in dataset.sequences)
    assert repeating == 7102  # users who visit a place again, as counted for the TIGER protocol
    test = leave_one_out(dataset).test
    seen = sum(target in history for target, history in zip(test.targets, test.histories, strict=True))
    assert seen == 2027


def test_five_core_of_beauty_is_beauty(real_data):
    assert prepare(real_data / "beauty", config=PrepareConfig(k_core=5)).n_interactions == COUNTS["beauty"][2]


def test_games_texts_are_rid_of_the_noise_of_the_raw_metadata(real_data):
    items = prepare(real_data / "games").items
    raw = {row["asin"]: row for row in map(json.loads, (real_data / "games" / "items.jsonl").read_text().splitlines())}
    assert sum("</span>" in row["category"] for row in raw.values()) > 10_000
    texts = items["title"].to_list() + items["category"].to_list()
    assert not [
        text for text in texts if "</span" in text or "&amp;" in text or ", ," in text or text != text.strip(" ,")
    ]
    assert items.filter(item_id="3828770193")["category"].item() == (
        "Video Games, Kids & Family, Nintendo DS, Games, by Storm City Entertainment"
    )
