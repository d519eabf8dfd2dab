"""What LETTER's losses and the distances of the levels do to semantic IDs, and to TIGER that generates them.

    python benchmarks/learned_ids.py ids yelp --source ../shared/data/yelp --runs runs/learned
    python benchmarks/learned_ids.py ids scientific --source ../shared/data/scientific --runs runs/learned
    python benchmarks/learned_ids.py tiger scientific --source ../shared/data/scientific --runs runs/learned
    python benchmarks/learned_ids.py table scientific --source ../shared/data/scientific --runs runs/learned

Every row is the LETTER tokenizer with the settings named: without both of its losses it is an RQ-VAE. All rows share
the network, the number of steps, MiniLM texts and, per seed, the collaborative vectors; all but those of "all
commitments" have the released gradients. `ids` fits what is not there yet and `tiger` trains on it; `table` prints what
is finished. Use of a level: codewords with items, of all; distinct: IDs / items; both before items that collide are
told apart. TIGER reads the IDs after that.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from machine import describe
from tesserec.bench.foresight import FEWEST, FIGURES, rank_correlation
from tesserec.cli.output import TerminalProgress
from tesserec.data import Dataset, leave_one_out, prepare
from tesserec.evaluation import TearSheet, inspect_ids
from tesserec.pipeline import Run, load_recipe, run
from tesserec.recommenders.sasrec import SASRec
from tesserec.tables import format_table
from tesserec.text import Embeddings, TextConfig, encode_items
from tesserec.text.imports import read_embeddings
from tesserec.tokenizers.letter import Letter, LetterConfig
from tesserec.tokenizers.semantic_ids import SemanticIds

NEITHER: dict[str, Any] = {"alpha": 0.0, "beta": 0.0}
ALL_COMMITMENTS: dict[str, Any] = {"gradients": "paper"}  # that of every level reaches the encoder, not only the first
ROWS: dict[str, dict[str, Any]] = {
    "RQ-VAE": NEITHER,
    "+ collaborative": {"beta": 0.0},
    "+ diversity": {"alpha": 0.0},
    "+ both (LETTER)": {},
    "RQ-VAE, cosine": {**NEITHER, "distance": "cosine"},
    "RQ-VAE, mixed": {**NEITHER, "distance": "mixed"},
    "RQ-VAE, all commitments": {**NEITHER, **ALL_COMMITMENTS},
    "RQ-VAE, cosine, all commitments": {**NEITHER, **ALL_COMMITMENTS, "distance": "cosine"},
    "RQ-VAE, mixed, all commitments": {**NEITHER, **ALL_COMMITMENTS, "distance": "mixed"},
}
STEPS = 2400  # of every tokenizer, in batches of 256 items
SEEDS = (0, 1, 2)
TIGER = (
    "recommender.n_layers=2", "recommender.width=64", "recommender.n_heads=2", "recommender.head_width=32",
    "recommender.ff_width=256", "recommender.beam_width=20", "training.batch_size=128", "training.epochs=10",
    "training.validate_every=5", "training.schedule=cosine", "training.warmup_steps=200",
    "training.learning_rate=0.002", "training.weight_decay=0.01", "training.validation_users=2000",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("ids", "tiger", "table"))
    parser.add_argument("data", choices=("scientific", "yelp", "games"))
    parser.add_argument("--source", type=Path, required=True, help="folder of the published data")
    parser.add_argument("--runs", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--only", nargs="*", default=list(ROWS), help="rows, by their names")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    options = parser.parse_args()

    folder = options.runs / options.data
    if not (folder / "data").exists():
        prepare(options.source, out=folder / "data")
    dataset = Dataset.load(folder / "data")
    for seed in options.seeds:
        for name in options.only:
            ids = folder / f"{file_name(name)}-{seed}"
            if options.work == "ids" and not (ids / "nearest").exists():
                fit_and_name(dataset, name, seed, folder, options.source)
            if options.work == "tiger":
                settings = ("tokenizer=file", f"tokenizer.path={ids / 'ids'}", f"seed={seed}", *TIGER)
                say(f"TIGER, {name}, seed {seed}")
                run(load_recipe("tiger", settings), folder / "data", ids / "tiger", progress=TerminalProgress())
    print(table(dataset, folder, options.only, options.seeds))
    print(f"\nData {dataset.fingerprint}; seeds {options.seeds}; {STEPS} steps per tokenizer; {describe()}")


def fit_and_name(dataset: Dataset, name: str, seed: int, folder: Path, source: Path) -> None:
    """Fit one tokenizer; save its nearest codes, and its IDs after collisions were resolved."""
    embeddings = texts(dataset, folder)
    epochs = -(-STEPS // -(-len(dataset.catalogue) // 256))
    settings = {"gradients": "released", "epochs": epochs, "seed": seed, **ROWS[name]}
    config = LetterConfig(**settings)
    taken = collaborative(dataset, seed, folder, source) if config.alpha > 0 else None
    say(f"{name}, seed {seed}, {epochs} epochs")
    letter = Letter(config).fit(embeddings, collaborative=taken, progress=TerminalProgress())
    home = folder / f"{file_name(name)}-{seed}"
    letter.encode(embeddings).save(home / "ids")
    letter.config = LetterConfig(**settings, collisions="share")
    letter.encode(embeddings).save(home / "nearest")


def texts(dataset: Dataset, folder: Path) -> Embeddings:
    home = folder / "embeddings"
    if not home.exists():
        encode_items(dataset.items, dataset.catalogue, TextConfig(encoder="minilm"), progress=TerminalProgress()).save(
            home
        )
    return Embeddings.load(home)


def collaborative(dataset: Dataset, seed: int, folder: Path, source: Path) -> Embeddings:
    """The vectors that lie beside the data, or those of a SASRec as `tesserec run letter-tiger` trains it."""
    if (source / "sasrec_embeddings.npy").exists():
        return read_embeddings(source / "sasrec_embeddings.npy", dataset.catalogue)
    home = folder / f"sasrec-{seed}"
    if not home.exists():
        config = load_recipe("letter-tiger", [f"seed={seed}"]).collaborative
        assert config is not None
        say(f"SASRec for the collaborative vectors, seed {seed}")
        model = SASRec(config.model, config.training).fit(leave_one_out(dataset), progress=TerminalProgress())
        Embeddings(dataset.catalogue, model.item_vectors, config=config.to_dict()).save(home)
    return Embeddings.load(home)


def table(dataset: Dataset, folder: Path, names: list[str], seeds: list[int]) -> str:
    """One row for each setting: means over the seeds that are finished, with the spread of what TIGER reaches."""
    split, embeddings = leave_one_out(dataset), texts(dataset, folder)
    cells = [["", "use per level, %", "perplexity", "distinct, %", "neighbours", "together", "TIGER R@10", "N@10",
              "seeds"]]  # fmt: skip
    judged, recalls = list[TearSheet](), list[float]()
    for name in names:
        homes = [folder / f"{file_name(name)}-{seed}" for seed in seeds]
        homes = [home for home in homes if (home / "nearest").exists()]
        if not homes:
            continue
        nearest = [SemanticIds.load(home / "nearest") for home in homes]
        sheets = [inspect_ids(ids, embeddings=embeddings, split=split) for ids in nearest]
        used = np.mean([[level.used / level.size for level in sheet.levels] for sheet in sheets], axis=0)
        perplexity = np.mean([[level.perplexity for level in sheet.levels] for sheet in sheets], axis=0)
        distinct = [100 * sheet.collisions.distinct / sheet.items for sheet in sheets]
        finished = [(home / "tiger" / "report" / "report.json").exists() for home in homes]
        runs = [Run.open(home / "tiger") for home, done in zip(homes, finished) if done]
        judged += [sheet for sheet, done in zip(sheets, finished) if done]
        recalls += [one.report.metrics["recall@10"] for one in runs]
        metrics = [spread([one.report.metrics[metric] for one in runs]) for metric in ("recall@10", "ndcg@10")]
        cells.append([
            name,
            " / ".join(f"{100 * share:.1f}" for share in used),
            " / ".join(f"{value:.0f}" for value in perplexity),
            f"{np.mean(distinct):.1f} ± {np.std(distinct, ddof=1) if len(distinct) > 1 else 0:.1f}",
            f"{np.mean([sheet.neighbours.prefix[0] for sheet in sheets if sheet.neighbours]):.3f}",
            f"{np.mean([sheet.together.prefix[0] for sheet in sheets if sheet.together]):.3f}",
            *metrics,
            f"{len(homes)}" if len(runs) in (0, len(homes)) else f"{len(homes)}, TIGER {len(runs)}",
        ])  # fmt: skip
    return "\n\n".join([format_table(cells, align="lr"), *foresight(judged, recalls)])


def foresight(sheets: list[TearSheet], recalls: list[float]) -> list[str]:
    """How far each figure of the tear-sheets ranks the runs as TIGER does in recall; nothing for fewer than four."""
    if len(recalls) < FEWEST:
        return []
    rows = [["figure", f"rank correlation with TIGER's R@10, {len(recalls)} runs"]]
    for name, figure in FIGURES.items():
        found = rank_correlation([(figure(sheet) or 0.0, recall) for sheet, recall in zip(sheets, recalls)])
        rows.append([name, "-" if found is None else f"{found:+.2f}"])
    return [format_table(rows, align="lr")]


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    mean = f"{np.mean(values):.4f}".lstrip("0")
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.4f}".replace("± 0.", "± .")


def file_name(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
