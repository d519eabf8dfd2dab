"""A made-up shop whose next purchase is known: texts, users and logs with planted structure, of any size.

What is planted, and can therefore be found:

- **Texts.** Every item belongs to a category, a brand and a series within its category; title and description say so,
  and name the item's attributes. Items of one category are alike in text, items of one series more so.
- **Habits.** Most events follow from the one before: with `habit_share`, the next item is the successor of the current
  one (the next volume of its series, and after the last volume the first of the category's next series) or its
  accessory (one of a few items of the same category to which many others lead). `PlantedTruth` holds both.
- **Tastes.** The other events are drawn from the user's favourite categories by popularity, which is skewed (Zipf).
- **Flaws of real data.** Some items nearly repeat the text of another (in another colour, or word for word), some are
  never bought, and users buy things again.

Item ids and rows are in random order and tell nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tesserec.config import to_dict
from tesserec.data.dataset import Dataset
from tesserec.data.sequences import Sequences
from tesserec.errors import ConfigError
from tesserec.types import BoolArray, IntArray

if TYPE_CHECKING:
    import polars as pl

CATEGORIES = {
    "Trail Running Shoes": "shoe", "Espresso Machines": "machine", "Board Games": "game", "Desk Lamps": "lamp",
    "Face Creams": "cream", "Acoustic Guitars": "guitar", "Garden Tools": "tool", "Bookshelves": "shelf",
    "Camping Tents": "tent", "Dog Toys": "toy", "Kitchen Knives": "knife", "Watercolour Paints": "paint",
    "Headphones": "headphone", "Model Trains": "train", "Yoga Mats": "mat", "Baking Tins": "tin",
}  # fmt: skip
BRANDS = (
    "Alder", "Bramwell", "Corvane", "Dunmore", "Elowen", "Fennick", "Galloway", "Hestia", "Ivarsson", "Juniper",
    "Kestrel", "Lumora", "Marlowe", "Nordhav", "Orsino", "Pinecrest", "Quillon", "Rosemund", "Solvik", "Tamsin",
    "Umberfield", "Verano", "Wexley", "Zephyra",
)  # fmt: skip
SERIES_WORDS = (
    "Aurora", "Basalt", "Comet", "Delta", "Ember", "Fjord", "Glacier", "Harbor", "Indigo", "Jasper", "Krypton",
    "Lagoon", "Meteor", "Nimbus", "Onyx", "Prairie", "Quartz", "Raven", "Sierra", "Tundra", "Umbra", "Vortex",
    "Willow", "Xenon", "Zenith",
)  # fmt: skip
COLOURS = ("black", "white", "red", "blue", "green", "grey", "orange", "violet")
MATERIALS = ("steel", "oak", "cotton", "ceramic", "aluminium", "recycled plastic", "leather", "bamboo", "glass", "wool")
USES = ("beginners", "experts", "families", "travel", "small homes", "daily use", "gifts", "long winters")
WORD_FOR_WORD_SHARE = 1 / 3  # of the near-duplicates: the same text to the letter
ITEMS_PER_ACCESSORY = 10
N_FAVOURITES = 2  # categories per user
MOST_EVENTS = 50  # per user
START, YEAR = 1_640_995_200, 31_536_000  # users begin in the course of 2022 (Unix seconds)
MEAN_WAIT = 432_000.0  # seconds between two events of a user: five days


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """How large the shop is, and how strong its habits are."""

    n_users: int = 2000
    n_items: int = 600
    mean_events: float = 9.0  # per user; everyone has 3 or more
    n_categories: int = 12
    series_length: int = 6  # volumes per series
    habit_share: float = 0.75  # of events that follow from the one before
    accessory_share: float = 0.3  # of those, the ones that go to the accessory instead of the successor
    popularity_skew: float = 0.9  # Zipf exponent of the other events within a category
    never_bought_share: float = 0.03  # of items
    near_duplicate_share: float = 0.05  # of items, in text
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_categories <= len(CATEGORIES):
            raise ConfigError(f"n_categories is {self.n_categories}. Use 1 to {len(CATEGORIES)}.")
        if self.n_users < 1 or self.n_items < 4 * self.n_categories:
            raise ConfigError(
                f"n_users is {self.n_users} and n_items {self.n_items}. Use a user or more, and four items or more "
                f"for each of the {self.n_categories} categories."
            )
        if self.mean_events < 3 or self.series_length < 2:
            raise ConfigError(
                f"mean_events is {self.mean_events} and series_length {self.series_length}. Use 3 and 2, or more."
            )
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}. Use 0 or more.")
        for name in ("habit_share", "accessory_share", "never_bought_share", "near_duplicate_share"):
            if not 0 <= getattr(self, name) <= (1 if name in ("habit_share", "accessory_share") else 0.5):
                raise ConfigError(f"{name} is {getattr(self, name)}. Use a share from 0 to 1 (of items, to 0.5).")


@dataclass(frozen=True, eq=False)
class PlantedTruth:
    """What was planted, by item row."""

    category: IntArray  # (N,) number of the category
    series: IntArray  # (N,) number of the series, over all categories
    volume: IntArray  # (N,) place in the series, from 1
    duplicate_of: IntArray  # (N,) the item whose text is (nearly) the same; -1 for originals
    bought: BoolArray  # (N,) False: never bought
    successor: IntArray  # (N,) the item that usually follows; -1 for items that are never bought
    accessory: IntArray  # (N,) the item that otherwise follows by habit; -1 likewise


def synthetic_catalogue(config: SyntheticConfig | None = None) -> Dataset:
    """A data set with planted structure: items with title, brand, category and description, and dated events.

    The same configuration gives the same data set everywhere.
    """
    return plant(config)[0]


def plant(config: SyntheticConfig | None = None) -> tuple[Dataset, PlantedTruth]:
    """As `synthetic_catalogue`, together with what was planted."""
    config = config or SyntheticConfig()
    rng = np.random.default_rng(config.seed)
    truth = _plant_habits(config, rng)
    items = _write_texts(truth, rng)
    sequences = _live(truth, config, rng)
    user_ids = tuple(f"u{user:07d}" for user in range(config.n_users))
    return Dataset(items, user_ids, sequences, report={"source": "synthetic", "config": to_dict(config)}), truth


def _plant_habits(config: SyntheticConfig, rng: np.random.Generator) -> PlantedTruth:
    """Put the items on shelves, and say who follows whom."""
    n_items = config.n_items
    category = rng.permutation(np.arange(n_items) * config.n_categories // n_items)
    n_odd = [int(share * n_items) for share in (config.never_bought_share, config.near_duplicate_share)]
    odd = rng.permutation(n_items)
    bought, is_duplicate = np.ones(n_items, dtype=np.bool_), np.zeros(n_items, dtype=np.bool_)
    bought[odd[: n_odd[0]]] = False
    is_duplicate[odd[n_odd[0] : sum(n_odd)]] = True
    series, volume, duplicate_of, successor, accessory = np.full((5, n_items), -1)
    n_series = 0
    for number in range(config.n_categories):
        members = rng.permutation(np.flatnonzero((category == number) & ~is_duplicate))
        chain = members[bought[members]]
        if not len(chain):
            raise ConfigError(
                f"Category {number} has no ordinary item. Give more than {n_items} items, or lower never_bought_share "
                f"({config.never_bought_share}) and near_duplicate_share ({config.near_duplicate_share})."
            )
        place = np.arange(len(members))
        series[members], volume[members] = n_series + place // config.series_length, 1 + place % config.series_length
        n_series = series[members[-1]] + 1
        successor[chain] = np.roll(chain, -1)
        accessories = rng.permutation(chain)[: max(1, len(chain) // ITEMS_PER_ACCESSORY)]
        accessory[chain] = rng.choice(accessories, len(chain))
        copies = np.flatnonzero((category == number) & is_duplicate)
        duplicate_of[copies] = rng.choice(chain, len(copies))
    copies = np.flatnonzero(is_duplicate)
    for planted in (series, volume, successor, accessory):
        planted[copies] = planted[duplicate_of[copies]]
    return PlantedTruth(category, series, volume, duplicate_of, bought, successor, accessory)


def _write_texts(truth: PlantedTruth, rng: np.random.Generator) -> "pl.DataFrame":
    """One row per item: item_id, title, brand, category, description."""
    import polars as pl

    n_items, n_series = len(truth.series), int(truth.series.max()) + 1
    brand, material, use = (rng.integers(0, len(words), n_series) for words in (BRANDS, MATERIALS, USES))
    name = rng.permutation(n_series)  # so that names say nothing of categories
    colour = rng.integers(0, len(COLOURS), n_items)
    word_for_word = rng.random(n_items) < WORD_FOR_WORD_SHARE
    categories = list(CATEGORIES)
    rows = []
    for item in range(n_items):
        original = item if truth.duplicate_of[item] < 0 else int(truth.duplicate_of[item])
        shade = COLOURS[colour[original if word_for_word[item] else item]]
        line, category = int(truth.series[item]), categories[truth.category[item]]
        maker, called = BRANDS[brand[line]], _series_name(int(name[line]))
        title = f"{maker} {called} {CATEGORIES[category]} {truth.volume[item]}, {shade}"
        description = (
            f"Number {truth.volume[item]} of the {called} series of {category.lower()} by {maker}. "
            f"Made of {MATERIALS[material[line]]} for {USES[use[line]]}, in {shade}."
        )
        rows.append((f"i{item:06d}", title, maker, category, description))
    return pl.DataFrame(rows, schema=["item_id", "title", "brand", "category", "description"], orient="row")


def _series_name(number: int) -> str:
    """Two different words; from the 601st series on, with a number."""
    n_words = len(SERIES_WORDS)
    first, shift, round_ = number % n_words, number // n_words % (n_words - 1), number // (n_words * (n_words - 1))
    name = f"{SERIES_WORDS[first]} {SERIES_WORDS[(first + shift + 1) % n_words]}"
    return f"{name} {round_ + 1}" if round_ else name


def _live(truth: PlantedTruth, config: SyntheticConfig, rng: np.random.Generator) -> Sequences:
    """Let every user buy, step by step."""
    n_users = config.n_users
    lengths = 2 + rng.geometric(1 / (config.mean_events - 2), n_users)
    lengths = np.minimum(lengths, MOST_EVENTS)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    values = np.empty(offsets[-1], dtype=np.int32)
    draw = _taste(truth, config, rng)
    favourites = rng.integers(0, config.n_categories, (n_users, N_FAVOURITES))
    current = np.empty(n_users, dtype=np.int64)
    for step in range(int(lengths.max())):
        users = np.flatnonzero(lengths > step)
        chosen = draw(favourites[users, rng.integers(0, N_FAVOURITES, len(users))])
        if step:
            before = current[users]
            to_accessory = rng.random(len(users)) < config.accessory_share
            follows = np.where(to_accessory, truth.accessory[before], truth.successor[before])
            chosen = np.where(rng.random(len(users)) < config.habit_share, follows, chosen)
        current[users] = chosen
        values[offsets[users] + step] = chosen
    waits = 1 + rng.exponential(MEAN_WAIT, len(values)).astype(np.int64)
    waits[offsets[:-1]] = rng.integers(0, YEAR, n_users)
    times = START + np.cumsum(waits)
    times -= np.repeat(np.concatenate([[0], np.cumsum(waits)[offsets[1:-1] - 1]]), lengths)
    return Sequences.from_offsets(values, offsets, times)


def _taste(truth: PlantedTruth, config: SyntheticConfig, rng: np.random.Generator) -> Callable[[IntArray], IntArray]:
    """A function that draws an item from each of some categories by popularity."""
    shelves = [
        rng.permutation(np.flatnonzero((truth.category == c) & truth.bought)) for c in range(config.n_categories)
    ]
    items = np.concatenate(shelves)
    weights = [1.0 / np.arange(1, len(shelf) + 1) ** config.popularity_skew for shelf in shelves]
    # One search serves all categories: category c holds the interval from c to c + 1.
    bounds = np.concatenate([c + np.cumsum(weight) / weight.sum() for c, weight in enumerate(weights)])

    def draw(categories: IntArray) -> IntArray:
        places = np.searchsorted(bounds, categories + rng.random(len(categories)), "right")
        return items[np.minimum(places, len(items) - 1)]

    return draw
