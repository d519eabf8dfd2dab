"""What a trained LC-Rec understands of words and codes: items found by their titles, titles written from IDs.

    python benchmarks/lcrec_words.py RUN

The titles are those that the model was trained on, asked for in the words of the first template. For a cold item (in no
training history) only its text says what its codes mean. `the same first code`: the item found first and the one asked
for share it; `written`: words of the real title that the written one has, against those of another item's title.
"""

import argparse
from pathlib import Path

import numpy as np

from machine import describe
from tesserec.language.texts import item_texts
from tesserec.pipeline import Run
from tesserec.recommenders.lcrec import LCRec

SAMPLE, DEEP, SHOWN = 500, 100, 8
QUERIES = (
    "digital caliper stainless steel",
    "PLA filament for 3D printer",
    "latex gloves powder free",
    "clear packing tape",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, help="a finished run of lcrec with the tasks item2index and index2item")
    opened = Run.open(arguments.parse_args().run)
    model, split = opened.recommender, opened.split
    assert isinstance(model, LCRec)
    titles, ids = item_texts(split.dataset.items).titles, split.dataset.catalogue.item_ids
    random, first = np.random.default_rng(0), model.semantic_ids.codes[:, 0]
    print(describe(), f"\n{opened.folder}, data {split.dataset.fingerprint}\n")

    warm = random.choice(np.flatnonzero(split.train_counts > 0), SAMPLE, replace=False)
    cold = np.flatnonzero(split.train_counts == 0)
    for name, items in (("warm", warm), ("cold", cold)):
        found = model.find([titles[item] for item in items], k=DEEP).items
        places = [int(np.flatnonzero(row == item)[0]) if item in row else DEEP for item, row in zip(items, found)]
        hits = [np.mean(np.array(places) < k) for k in (1, 10, DEEP)]
        chance = np.mean(first[random.permutation(items)] == first[items])
        print(f"{len(items)} {name} items by title: found first {hits[0]:.3f}, in the first 10 {hits[1]:.3f}, in the "
              f"first {DEEP} {hits[2]:.3f}; the same first code {np.mean(first[found[:, 0]] == first[items]):.3f} "
              f"(two of these items at random {chance:.3f})")  # fmt: skip
        if name == "cold":
            for item, place in zip(items, places):
                where = f"place {place + 1}" if place < DEEP else f"beyond {DEEP}"
                print(f"  {ids[item]} {titles[item]}: {where}; first: {titles[found[list(items).index(item), 0]]}")

    written = model.describe([ids[item] for item in warm])
    own = [overlap(titles[item], text) for item, text in zip(warm, written)]
    other = [overlap(titles[item], text) for item, text in zip(random.permutation(warm), written)]
    same = np.mean([titles[item] == text for item, text in zip(warm, written)])
    print(f"\n{SAMPLE} titles written from IDs: words of the real title {np.mean(own):.3f}, of another "
          f"{np.mean(other):.3f}, word for word {same:.3f}")  # fmt: skip
    for item, text in list(zip(warm, written))[:SHOWN]:
        print(f"  {titles[item]}  ->  {text}")

    print()
    for query, row in zip(QUERIES, model.find(QUERIES, k=3).items):
        print(f"{query}:", *(f"\n  {titles[item]}" for item in row))


def overlap(title: str, text: str) -> float:
    """The share of the title's words that the text has."""
    words = set(title.lower().split())
    return len(words & set(text.lower().split())) / max(len(words), 1)


if __name__ == "__main__":
    main()
