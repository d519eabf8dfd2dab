"""From embeddings to a finished LETTER index: ours against the reference's procedure, in one run.

Both train the published network (D - 2048 - 1024 - 512 - 256 - 128 - 64 - 32, four codebooks of 256) on MiniLM
embeddings and the 32-wide SASRec vectors that lie beside the data. The reference's way is written here from what its
code does: codebooks start from constrained k-means (10 starts of 10 iterations on the whole catalogue, level by level);
every epoch clusters the four codebooks anew from ten starts; batches of 1,024 come from a loader; positives are drawn
row by row in Python; fp32. One start and two epochs are measured and scaled up. Ours, in batches of 256, is measured
whole. How good the reference is after how many epochs is found with our fast code, set to the released choices.

    python benchmarks/letter_index.py --data ../shared/data/yelp --cache FOLDER --only index
    python benchmarks/letter_index.py --data ../shared/data/yelp --cache FOLDER --only losses scale
"""

import argparse
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from machine import describe
from tesserec.data import prepare
from tesserec.data.catalogue import Catalogue
from tesserec.functional.residual import GRADIENTS
from tesserec.networks.rq_autoencoder import RQAutoencoder
from tesserec.progress import SILENT
from tesserec.tables import format_table
from tesserec.text import Embeddings, TextConfig, encode_items
from tesserec.text.imports import read_embeddings
from tesserec.tokenizers.autoencoder import semantic_loss
from tesserec.tokenizers.collisions import remaining
from tesserec.tokenizers.letter import Letter, LetterConfig, collaborative_loss

PLAIN: dict[str, Any] = {"uniform": False}
HIDDEN = (2048, 1024, 512, 256, 128, 64)
CPU = torch.device("cpu")


def published(epochs: int, **settings: Any) -> LetterConfig:
    """The published sizes and weights, our way of training."""
    return LetterConfig(hidden=HIDDEN, epochs=epochs, device="cpu", **settings)


class Watched(Letter):
    """Calls `watch` with the network and the epoch before every epoch, and keeps the time of each call's end."""

    def __init__(self, config: LetterConfig, watch: Callable[[RQAutoencoder, int], None] = lambda *_: None) -> None:
        super().__init__(config)
        self.watch, self.marks, self.processor_marks = watch, list[float](), list[float]()

    def _begin_epoch(self, network: RQAutoencoder, epoch: int) -> None:
        self.watch(network, epoch)
        self.marks.append(time.perf_counter())
        self.processor_marks.append(time.process_time())
        super()._begin_epoch(network, epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `tesserec prepare` takes")
    parser.add_argument("--cache", type=Path, help="where the embeddings are kept")
    parser.add_argument("--epochs", type=int, default=24, help="of ours")
    parser.add_argument("--reference-epochs", type=int, default=45, help="after which the reference's quality is found")
    parser.add_argument("--only", nargs="*", default=["index", "losses", "scale"])
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    print(describe())
    if "index" in options.only or "losses" in options.only:
        dataset = prepare(options.data)
        config = TextConfig(encoder="minilm")
        embeddings = encode_items(dataset.items, dataset.catalogue, config, cache=options.cache)
        collaborative = read_embeddings(options.data / "sasrec_embeddings.npy", dataset.catalogue)
        print(f"{len(embeddings.catalogue):,} items, {embeddings.vectors.shape[1]} wide, data {dataset.fingerprint}")
        if "index" in options.only:
            compare_index(embeddings, collaborative, options.epochs, options.reference_epochs)
        if "losses" in options.only:
            compare_losses(embeddings, collaborative)
    if "scale" in options.only:
        show_scale(options.sizes)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


# -- the index ---------------------------------------------------------------------------------------------------------


def compare_index(embeddings: Embeddings, collaborative: Embeddings, epochs: int, reference_epochs: int) -> None:
    """Seconds of every stage, and how good both are after how many epochs."""
    start = time.perf_counter()
    ours = Watched(published(epochs, gradients="released"))  # the very objective of the reference
    ours.fit(embeddings, collaborative=collaborative)
    fitted = time.perf_counter()
    index_seconds, ids = timed(lambda: ours.encode(embeddings))
    init_seconds, epoch = ours.marks[0] - start, float(np.median(np.diff([*ours.marks, fitted])))

    theirs = Reference(embeddings, collaborative)
    their_init, their_epoch = theirs.estimate_initialisation(), theirs.train(epochs=2)
    total = fitted - start + index_seconds
    their_total = their_init + reference_epochs * their_epoch + index_seconds
    rows = [
        ("codebooks before training", init_seconds, their_init),
        ("an epoch", epoch, their_epoch),
        (f"all with {epochs} and {reference_epochs} epochs", total, their_total),
    ]
    table = [["", "ours, s", "reference, s", "ratio"]]
    table += [[name, f"{a:,.1f}", f"{b:,.1f}", f"{b / a:.1f}"] for name, a, b in rows]
    print("\n" + format_table(table, align="lr"))
    print(f"our index (codes and assignment) took {index_seconds:.1f} s and counts for both\n", flush=True)

    rows_of_quality = [["", "reconstruction", "collaborative loss", "items in collision by nearest codes"]]

    def watch(network: RQAutoencoder, epoch: int) -> None:
        if epoch > 1 and (epoch - 1) % 15 == 0:
            found = quality(network, embeddings, collaborative)
            rows_of_quality.append([f"reference, {epoch - 1} epochs", *(f"{value:.4g}" for value in found)])

    released = published(
        reference_epochs + 1, batch_size=1024, gradients="released", diversity_loss="sampled", reset_share=0.0
    )
    Watched(released, watch).fit(embeddings, collaborative=collaborative)
    found = quality(ours._network.float(), embeddings, collaborative)
    rows_of_quality.append([f"ours, {epochs} epochs", *(f"{value:.4g}" for value in found)])
    print(format_table(rows_of_quality, align="lr"))
    print(f"our index, after assignment: {ids.config['remaining_collisions']}")


@torch.no_grad()
def quality(network: RQAutoencoder, embeddings: Embeddings, collaborative: Embeddings) -> tuple[float, float, float]:
    """Mean squared error of standardised inputs, mean collaborative loss of batches of 1,024, items in collision."""
    x = network.standardised(torch.from_numpy(np.array(embeddings.vectors)).to(network.mean.dtype))
    h = torch.from_numpy(np.array(collaborative.vectors))
    errors, contrast, codes = list[float](), list[float](), list[Tensor]()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for rows in torch.split(order, 1024):
        found = network(x[rows], GRADIENTS["paper"])
        errors.append(float((found.x - found.decoded).square().mean()))
        if len(rows) == 1024:
            contrast.append(float(collaborative_loss(found.quantized.latent, h[rows])))
        codes.append(found.quantized.codes)
    left = remaining(torch.cat(codes).numpy(), embeddings.vectors[order.numpy()])
    return float(np.mean(errors)), float(np.mean(contrast)), float(left.items)


class Reference:
    """The released procedure, from its description: what it computes, and in which way."""

    def __init__(self, embeddings: Embeddings, collaborative: Embeddings) -> None:
        torch.manual_seed(0)
        width = embeddings.vectors.shape[1]
        self.network = RQAutoencoder(
            width, hidden=HIDDEN, latent_width=32, codebook_size=256, distances=("euclidean",) * 4
        )
        x = torch.from_numpy(np.array(embeddings.vectors))
        self.network.standardise(x)  # so that both reconstruct the same numbers
        self.x, self.h = self.network.standardised(x), torch.from_numpy(np.array(collaborative.vectors))
        self.config = published(1, gradients="released")

    def estimate_initialisation(self) -> float:
        """Constrained k-means of 256 clusters: one start of one iteration, times 10 starts, 10 iterations, 4 levels."""
        from k_means_constrained import KMeansConstrained

        n_items = len(self.x)
        least = min(n_items // 512, 50)
        with torch.no_grad():
            residual = self.network.encode_all(self.x)
        points = residual.double().numpy()
        one = KMeansConstrained(
            256, size_min=least, size_max=4 * least, max_iter=1, n_init=1, n_jobs=1, random_state=0, init="random"
        )
        seconds, _ = timed(lambda: one.fit(points))
        print(f"reference: one start of one iteration of constrained k-means on {n_items:,} items: {seconds:.1f} s, "
              "counted 10 x 10 x 4 / 2 times (an iteration is at most half of that: it assigns twice)")  # fmt: skip
        self.network.init_codebooks(residual, seed=0)  # ten minutes and more of the real one: a plain one stands in
        return seconds * 10 * 10 * 4 / 2

    def train(self, epochs: int) -> float:
        """Seconds per epoch, the median."""
        from k_means_constrained import KMeansConstrained

        loader = DataLoader(
            TensorDataset(self.x, self.h), batch_size=1024, shuffle=True, num_workers=0, generator=torch.Generator()
        )
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, weight_decay=1e-4, foreach=False, fused=False)
        seconds = list[float]()
        for _ in range(epochs):
            start = time.perf_counter()
            clusters = [
                KMeansConstrained(10, size_min=10, size_max=60, max_iter=10, n_init=10, n_jobs=1, random_state=0)
                .fit(codebook.detach().double().numpy())
                .labels_
                for codebook in self.network.codebooks
            ]
            clustered = time.perf_counter()
            for x, h in loader:
                optimizer.zero_grad()
                self.loss(x, h, clusters).backward()
                optimizer.step()
            seconds.append(time.perf_counter() - start)
            print(f"reference: an epoch takes {seconds[-1]:.1f} s, of which clustering {clustered - start:.1f} s")
        return float(np.median(seconds))

    def loss(self, x: Tensor, h: Tensor, clusters: list[Any]) -> Tensor:
        """Semantic and collaborative terms as ours; diversity with a loop over rows, as released."""
        found = self.network(x, GRADIENTS["released"], slow_uniform_codes)
        loss = semantic_loss(found, self.config) + 0.02 * collaborative_loss(found.quantized.latent, h)
        diversity = x.new_zeros(())
        for level, codebook in enumerate(self.network.codebooks):
            codes = found.quantized.codes[:, level]
            logits = codebook[codes] @ codebook.T
            own, targets = torch.zeros_like(logits), list[int]()
            for row in range(len(codes)):
                code = codes[row].item()
                own[row, code] = 1e12
                members = np.flatnonzero(clusters[level] == clusters[level][code]).tolist()
                positive = random.choice(members)
                while positive == code:
                    positive = random.choice(members)
                targets.append(positive)
            diversity = diversity + F.cross_entropy(logits - own, torch.tensor(targets)) / 4
        return loss + 1e-4 * diversity


def slow_uniform_codes(residual: Tensor, codebook: Tensor) -> Tensor:
    """50 passes over the whole plan in double precision."""
    distances = torch.cdist(residual, codebook).square()
    middle = (distances.max() + distances.min()) / 2
    plan = torch.exp(-((distances - middle) / (distances.max() - middle + 1e-5)).double() / 0.003)
    plan /= plan.sum()
    for _ in range(50):
        plan /= plan.sum(dim=1, keepdim=True)
        plan /= len(plan)
        plan /= plan.sum(dim=0, keepdim=True)
        plan /= plan.shape[1]
    return plan.argmax(dim=1)


# -- what the two losses cost ------------------------------------------------------------------------------------------


def compare_losses(embeddings: Embeddings, collaborative: Embeddings, epochs: int = 4) -> None:
    """Processor seconds per epoch with and without the two losses, all taking turns; others may use the machine."""
    cases: dict[str, dict[str, Any]] = {
        "RQ-VAE": {**PLAIN, "alpha": 0.0, "beta": 0.0},
        "+ collaborative": {**PLAIN, "beta": 0.0},
        "+ diversity": {**PLAIN, "alpha": 0.0},
        "+ both": PLAIN,
        "+ both, diversity sampled": {**PLAIN, "diversity_loss": "sampled"},
        "+ both and uniform mapping": {},
    }
    best = dict.fromkeys(cases, np.inf)
    x = torch.from_numpy(np.array(embeddings.vectors))
    trainings = {
        name: _Training(published(1, batch_size=1024, **settings), x, collaborative) for name, settings in cases.items()
    }
    for _ in range(epochs):
        for name, training in trainings.items():
            start = time.process_time()
            training.epoch()
            best[name] = min(best[name], time.process_time() - start)
    table = [["batches of 1,024, published network", "processor s per epoch", "against RQ-VAE"]]
    table += [[name, f"{s:.2f}", f"{s / best['RQ-VAE'] - 1:+.1%}"] for name, s in best.items()]
    print("\n" + format_table(table, align="lr") + f"\nthe fastest of {epochs} epochs, taking turns")


class _Training:
    """A tokenizer that is being trained, an epoch at a time."""

    def __init__(self, config: LetterConfig, vectors: Tensor, collaborative: Embeddings) -> None:
        self.letter = Letter(config)
        self.letter.width = vectors.shape[1]
        torch.manual_seed(0)
        self.network = self.letter._new_network()
        self.network.standardise(vectors)
        self.x = self.network.standardised(vectors)
        self.network.init_codebooks(self.network.encode_all(self.x[:8192]), 0)
        self.letter._begin(self.network, torch.from_numpy(np.array(collaborative.vectors)) if config.alpha else None)
        self.letter._begin_epoch(self.network, 1)  # from ten starts, once

    def epoch(self) -> None:
        self.letter._train(self.network, self.x, torch.Generator().manual_seed(0), SILENT)


# -- size of the catalogue ---------------------------------------------------------------------------------------------


def show_scale(sizes: list[int]) -> None:
    """Processor seconds and memory for made-up catalogues with our default network; others may use the machine."""
    parts = ("start", "an epoch", "nearest codes", "index with assignment")
    table = [["items, 384 wide", *(f"{part}, processor s" for part in parts), "peak memory, GB"]]
    for n_items in sizes:
        random = np.random.default_rng(0)
        centres = random.normal(size=(1000, 384)).astype(np.float32)
        vectors = random.standard_normal(size=(n_items, 384), dtype=np.float32)
        for start in range(0, n_items, 1 << 16):
            block = vectors[start : start + (1 << 16)]
            block += centres[random.integers(1000, size=len(block))]
        catalogue = Catalogue([str(row) for row in range(n_items)])
        embeddings = Embeddings(catalogue, vectors)
        collaborative = Embeddings(catalogue, random.standard_normal(size=(n_items, 32), dtype=np.float32))
        letter = Watched(LetterConfig(epochs=1, batch_size=1024, device="cpu"))
        start = time.process_time()
        letter.fit(embeddings, collaborative=collaborative)
        fitted = time.process_time()
        letter._codes(embeddings)
        coded = time.process_time()
        letter.encode(embeddings)
        ended = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        begun = letter.processor_marks[0]
        figures = (begun - start, fitted - begun, coded - fitted, ended - coded, peak)
        table.append([f"{n_items:,}", *(f"{figure:.1f}" for figure in figures)])
        print("...", *table[-1], flush=True)
        del letter, embeddings, vectors
    print("\n" + format_table(table, align="lr"))
    print("default network (512 - 256 - 128 - 32), 4 x 256 codes, batches of 1,024")


if __name__ == "__main__":
    main()
