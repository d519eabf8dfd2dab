"""The constraint index: the trie of a catalogue's semantic IDs as a few flat tensors, and item sets that cut it.

Items are sorted by ID once. The nodes of each depth (the distinct prefixes of that length) are numbered in this
order, so the children of a node are consecutive numbers, a child's number is its edge's place, and every node is a
range of sorted positions. An edge therefore stores one code and a node one pointer. Allowing some items becomes a
prefix sum, denying a few becomes binary search; neither rebuilds the trie, and both are exact.

The layout is that of STATIC (arXiv 2602.22647): dense tables for the first levels, compressed rows for the whole trie.
**Differences from the paper**: child numbers are implied, not stored; levels are dense where they are full enough, not
up to a fixed depth; item sets cut the trie per request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tesserec.errors import ConfigError, DataError
from tesserec.types import BoolArray, IntArray

MAX_ITEMS = 2**31 - 2  # node numbers and sorted positions are int32
DENSE_SHARE = 1 / 4  # of the codes that may follow on average; below, lists are as fast and smaller (docs/decoding.md)
WORD_BITS = 63  # of the integers that IDs are sorted as


@dataclass(frozen=True, eq=False)
class DenseLevel:
    """The children of all nodes of one depth as tables over the whole codebook."""

    barrier: Tensor  # (n_d, K_d) float16: 0 where the code may follow the node, -inf where it may not; added to scores
    rank: Tensor  # (n_d, K_d) uint8, int16 or int32: the code's place among those that may follow

    def to(self, device: torch.device | str) -> "DenseLevel":
        return DenseLevel(self.barrier.to(device), self.rank.to(device))


@dataclass(frozen=True, eq=False)
class ConstraintIndex:
    """Which code may follow which prefix, and which items an ID names.

    Depth d counts the codes of a prefix: the root has depth 0, leaves (whole IDs) have depth L. n_d is the number of
    nodes of depth d, n_0 = 1. Sorted positions of items count as depth L + 1: they are the children of the leaves.
    """

    codebook_sizes: tuple[int, ...]
    codes: tuple[Tensor, ...]  # L of (n_{d+1},), uint8, int16 or int32: the last code of each node of depth d + 1
    first_child: tuple[
        Tensor, ...
    ]  # L + 1 of (n_d + 1,) int32: node i has the children [first_child[i], first_child[i + 1])
    dense: tuple[DenseLevel | None, ...]  # L; the first levels, as long as they are full enough
    item_at: Tensor  # (N,) int32 item row at each sorted position; items that share an ID are in item order
    position_of: Tensor  # (N,) int32 sorted position of each item row

    @classmethod
    def build(cls, codes: IntArray, codebook_sizes: Sequence[int]) -> "ConstraintIndex":
        """Sort the IDs and number their prefixes.

        Args:
            codes: (N, L) integers, codes[:, l] in [0, codebook_sizes[l]). Items may share all their codes.
            codebook_sizes: L sizes.

        Raises:
            DataError: no items, too many, or codes that do not fit the sizes.
        """
        _check(codes, codebook_sizes)
        n_items = len(codes)
        columns = [
            np.ascontiguousarray(codes[:, level], dtype=_smallest_type(size))
            for level, size in enumerate(codebook_sizes)
        ]
        order = _lexicographic_order(columns, codebook_sizes)
        is_new = np.zeros(n_items, dtype=np.bool_)  # does a node of this depth start at this sorted position?
        is_new[0] = True
        starts = np.zeros(1, dtype=np.int64)  # the root starts at position 0
        level_codes, first_child = list[Tensor](), list[Tensor]()
        for column in columns:
            in_order = column[order]
            is_new[1:] |= in_order[1:] != in_order[:-1]
            number = np.cumsum(is_new, dtype=np.int32) - 1  # node of the next depth that each position belongs to
            first_child.append(_pointers(number[starts], int(number[-1]) + 1))
            starts = np.flatnonzero(is_new)
            level_codes.append(torch.from_numpy(in_order[starts]))
        first_child.append(_pointers(starts, n_items))
        item_at = torch.from_numpy(order.astype(np.int32))
        position_of = torch.empty_like(item_at)
        position_of[torch.from_numpy(order)] = torch.arange(n_items, dtype=torch.int32)
        dense = _dense_levels(level_codes, first_child, codebook_sizes)
        return cls(tuple(codebook_sizes), tuple(level_codes), tuple(first_child), dense, item_at, position_of)

    @property
    def n_levels(self) -> int:
        return len(self.codebook_sizes)

    @property
    def n_items(self) -> int:
        return len(self.item_at)

    @property
    def device(self) -> torch.device:
        return self.item_at.device

    @property
    def n_bytes(self) -> int:
        """Memory of all its tensors."""
        tables = [table for level in self.dense if level is not None for table in (level.barrier, level.rank)]
        return sum(t.nbytes for t in (*self.codes, *self.first_child, *tables, self.item_at, self.position_of))

    def n_nodes(self, depth: int) -> int:
        """Distinct prefixes of `depth` codes; at depth L + 1, items."""
        return self.n_items if depth > self.n_levels else len(self.first_child[depth]) - 1

    def to(self, device: torch.device | str) -> "ConstraintIndex":
        """The same index on another device."""
        return ConstraintIndex(
            self.codebook_sizes,
            tuple(codes.to(device) for codes in self.codes),
            tuple(pointers.to(device) for pointers in self.first_child),
            tuple(level and level.to(device) for level in self.dense),
            self.item_at.to(device),
            self.position_of.to(device),
        )

    # -- walking ---------------------------------------------------------------------------------------------------

    def children(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """All children of some nodes, closed up: no padding, so the work is that of the children there are.

        Args:
            depth: of the nodes, 0 to L. The children of leaves are sorted positions of items.
            nodes: (R,) node numbers, repeats allowed.

        Returns:
            owner (C,) int32, ascending: which of the R nodes a child belongs to; child (C,) int32.
        """
        pointers = self.first_child[depth]
        first = pointers[nodes]
        counts = pointers[nodes + 1] - first
        owner = torch.repeat_interleave(counts)
        shift = first - (counts.cumsum(0, dtype=torch.int32) - counts)
        # index_select is three times as fast as owner's shift[owner] on a CPU, int32 half again as fast as int64
        return owner, torch.arange(len(owner), dtype=torch.int32, device=self.device) + shift.index_select(0, owner)

    def parents(self, depth: int, nodes: Tensor) -> Tensor:
        """The nodes of depth - 1 that nodes of `depth` hang from: (R,) int64 -> (R,) int64."""
        return torch.searchsorted(self.first_child[depth - 1], nodes.to(torch.int32), right=True) - 1

    def codes_of(self, depth: int, nodes: Tensor) -> Tensor:
        """The prefixes that nodes of `depth` stand for: (R,) int64 -> (R, depth) int64."""
        path = list[Tensor]()
        for above in range(depth, 0, -1):
            path.append(self.codes[above - 1][nodes].long())
            nodes = self.parents(above, nodes)
        return (
            torch.stack(path[::-1], dim=1)
            if path
            else torch.zeros(len(nodes), 0, dtype=torch.int64, device=self.device)
        )

    def positions(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The range [first, last) of sorted positions that each node covers: (R,) -> (R,), (R,) int64."""
        first, last = nodes, nodes + 1
        for pointers in self.first_child[depth:]:
            first, last = pointers[first].long(), pointers[last].long()
        return first, last

    def leaf_of(self, items: Tensor) -> Tensor:
        """The leaf that names each item row: (R,) int64 -> (R,) int64."""
        return self.parents(self.n_levels + 1, self.position_of[items])

    def path_of(self, items: Tensor) -> list[Tensor]:
        """The nodes of depth 0 to L that lead to each item row's ID: L + 1 of (R,) int64."""
        nodes = [self.leaf_of(items)]
        for depth in range(self.n_levels, 0, -1):
            nodes.append(self.parents(depth, nodes[-1]))
        return nodes[::-1]

    def items_of_leaf(self, leaf: int) -> Tensor:
        """Item rows that share the ID of this leaf, in item order: (group size,) int64."""
        first, last = self.first_child[-1][leaf : leaf + 2].tolist()
        return self.item_at[first:last].long()

    def next_codes(self, prefix: Sequence[int]) -> Tensor:
        """The codes that may follow a prefix, ascending: (children,) int64; none if no item has this prefix."""
        node = 0
        for depth, code in enumerate(prefix):
            first, last = self.first_child[depth][node : node + 2].tolist()
            node = first + int(torch.searchsorted(self.codes[depth][first:last], code))
            if node == last or self.codes[depth][node] != code:
                return torch.zeros(0, dtype=torch.int64)
        first, last = self.first_child[len(prefix)][node : node + 2].tolist()
        return self.codes[len(prefix)][first:last].long()

    # -- item sets -------------------------------------------------------------------------------------------------

    def item_sets(self, masks: Tensor | BoolArray) -> "ItemSets":
        """Sets of allowed items as the trie sees them; worth keeping where many requests share one (stock, country).

        Args:
            masks: (N,) or (G, N) bool over item rows, True where the item is allowed.

        Raises:
            ConfigError: the masks are of another length than the catalogue.
        """
        allowed = torch.as_tensor(masks, dtype=torch.bool, device=self.device)
        allowed = allowed[None] if allowed.ndim == 1 else allowed
        if allowed.ndim != 2 or allowed.shape[1] != self.n_items:
            raise ConfigError(
                f"Masks of shape {tuple(allowed.shape)} do not fit {self.n_items} items. Give one bool per item."
            )
        before = torch.zeros(len(allowed), self.n_items + 1, dtype=torch.int32, device=self.device)
        legal = [allowed.index_select(1, self.item_at)]
        torch.cumsum(legal[0], dim=1, dtype=torch.int32, out=before[:, 1:])
        at_node = before  # (G, n_{d+1} + 1): allowed items in front of each node
        for pointers in reversed(self.first_child):
            at_node = at_node.index_select(1, pointers)
            legal.append(at_node[:, 1:] > at_node[:, :-1])
        return ItemSets(before, tuple(reversed(legal)))

    def restrict(
        self,
        sets: "ItemSets | None" = None,
        *,
        set_of_row: Tensor | None = None,
        denied: tuple[Tensor, Tensor] | None = None,
    ) -> "Restriction":
        """Which part of the trie is open to each of B requests.

        Args:
            sets: G sets of allowed items; None: all items are.
            set_of_row: (B,) int64, the set that each request uses. By default all use the only one, or request b set b.
            denied: (row, item) pairs, (D,) int64 each, in any order and with repeats: item rows that request `row` must
                not get, such as its history. They count inside the allowed set only.
        """
        restriction = Restriction(self, sets, set_of_row, ())
        return restriction if denied is None else restriction.deny(*denied)


@dataclass(frozen=True, eq=False)
class ItemSets:
    """G sets of allowed items over one index."""

    before: Tensor  # (G, N + 1) int32: allowed items in front of each sorted position
    legal: tuple[Tensor, ...]  # L + 2 of (G, n_d) bool: does the node cover an allowed item?


@dataclass(frozen=True, eq=False)
class Restriction:
    """The open part of a trie for each of B requests: made by `ConstraintIndex.restrict`."""

    index: ConstraintIndex
    sets: ItemSets | None
    set_of_row: Tensor | None
    closed: tuple[Tensor, ...]  # L + 2 of sorted int64 keys row * n_d + node: nodes whose allowed items are all denied

    def deny(self, rows: Tensor, items: Tensor) -> "Restriction":
        """This restriction less some items of some requests."""
        index = self.index
        positions = index.position_of[items].long()
        allowed = self.permits(index.n_levels + 1, rows, positions)
        keys = torch.unique(rows[allowed] * index.n_items + positions[allowed])  # sorted
        closed = [keys]
        rows, nodes = keys // index.n_items, keys % index.n_items
        for depth in range(index.n_levels, -1, -1):
            nodes = index.parents(depth + 1, nodes)
            keys, n_denied = torch.unique_consecutive(rows * index.n_nodes(depth) + nodes, return_counts=True)
            all_denied = n_denied == self.count(depth, keys // index.n_nodes(depth), keys % index.n_nodes(depth))
            closed.append(keys[all_denied])
        return Restriction(index, self.sets, self.set_of_row, tuple(reversed(closed)))

    def permits(self, depth: int, rows: Tensor, nodes: Tensor) -> Tensor:
        """Does request rows[i] leave an item under node nodes[i] of `depth`? (R,), (R,) int64 -> (R,) bool."""
        n_nodes = self.index.n_nodes(depth)
        if self.sets is None:
            open_ = torch.ones_like(nodes, dtype=torch.bool)
        else:
            open_ = self.sets.legal[depth].flatten().index_select(0, self._set_of(rows) * n_nodes + nodes)
        if self.closed and len(self.closed[depth]):
            keys, wanted = self.closed[depth], rows.long() * n_nodes + nodes
            place = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
            open_ = open_ & (keys[place] != wanted)
        return open_

    def count(self, depth: int, rows: Tensor, nodes: Tensor) -> Tensor:
        """How many items request rows[i] leaves under node nodes[i] of `depth`: (R,), (R,) int64 -> (R,) int64."""
        first, last = self.index.positions(depth, nodes)
        n_items = last - first
        if self.sets is not None:
            sets = self._set_of(rows)
            n_items = (self.sets.before[sets, last] - self.sets.before[sets, first]).long()
        if self.closed:
            keys, offset = self.closed[-1], rows.long() * self.index.n_items
            n_items = n_items - (torch.searchsorted(keys, offset + last) - torch.searchsorted(keys, offset + first))
        return n_items

    def _set_of(self, rows: Tensor) -> Tensor:
        assert self.sets is not None
        if self.set_of_row is not None:
            return self.set_of_row[rows]
        return rows.long() if len(self.sets.before) > 1 else torch.zeros_like(rows)


def _check(codes: IntArray, codebook_sizes: Sequence[int]) -> None:
    if codes.ndim != 2 or codes.shape[1] != len(codebook_sizes) or not len(codebook_sizes):
        raise DataError(
            f"Codes of shape {codes.shape} do not fit {len(codebook_sizes)} levels. Give one column per level."
        )
    if not 0 < len(codes) <= MAX_ITEMS:
        raise DataError(f"{len(codes)} items cannot be indexed. Give 1 to {MAX_ITEMS}.")
    for level, size in enumerate(codebook_sizes):
        low, high = int(codes[:, level].min()), int(codes[:, level].max())
        if low < 0 or high >= size:
            raise DataError(f"Level {level} has codes from {low} to {high}, but its codebook has {size} codewords.")


def _smallest_type(codebook_size: int) -> type[np.integer]:
    return np.uint8 if codebook_size <= 2**8 else np.int16 if codebook_size <= 2**15 else np.int32


def _lexicographic_order(columns: Sequence[IntArray], codebook_sizes: Sequence[int]) -> IntArray:
    """(N,) item rows in order of their codes, then of the row: stable sorts of as many bits as a word holds."""
    order = torch.arange(len(columns[0]))
    word, bits = torch.zeros(len(order), dtype=torch.int64), 0
    for column, size in reversed(list(zip(columns, codebook_sizes))):  # least significant first
        width = max(1, (size - 1).bit_length())
        if bits + width > WORD_BITS:
            order = order[word[order].sort(stable=True).indices]
            word, bits = torch.zeros_like(word), 0
        word += torch.from_numpy(column).long() << bits
        bits += width
    return order[word[order].sort(stable=True).indices].numpy()


def _pointers(starts: IntArray, end: int) -> Tensor:
    return torch.from_numpy(np.append(starts, end).astype(np.int32))


def _dense_levels(
    codes: Sequence[Tensor], first_child: Sequence[Tensor], codebook_sizes: Sequence[int]
) -> tuple[DenseLevel | None, ...]:
    """Tables for the first levels whose nodes have two children and a DENSE_SHARE of the codebook, on average.

    Two bounds the memory: each table is then larger than all before it, and has at most 8 cells per child.
    """
    levels = list[DenseLevel | None]()
    for code, pointers, size in zip(codes, first_child, codebook_sizes):
        n_nodes = len(pointers) - 1
        if len(code) < max(2, DENSE_SHARE * size) * n_nodes:
            break
        node = torch.repeat_interleave(pointers.diff())
        cell = node.long() * size + code
        barrier = torch.full((n_nodes, size), -torch.inf, dtype=torch.float16)
        barrier.view(-1)[cell] = 0
        rank = torch.zeros(n_nodes, size, dtype=code.dtype)
        rank.view(-1)[cell] = (torch.arange(len(code), dtype=torch.int32) - pointers[node]).to(code.dtype)
        levels.append(DenseLevel(barrier, rank))
    return (*levels, *[None] * (len(codes) - len(levels)))
