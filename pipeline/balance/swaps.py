"""Swaps: a text that was rejected on several photographs swaps characters with another text of its shard.

So rejected characters go back into the shard's pool: every pool keeps its counts, and two other texts are tried. The
other text loses the plate it had. Shards need not know of each other: of the texts that are not planned every shard may
only make those whose hash is its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from random import Random

from platemint.pipeline.balance.quotas import Demand, Pool
from platemint.pipeline.plate import Group, Stream, Taken, characters

TRIES_BEFORE_SWAP = 8  # sources a text is tried on before it swaps characters; all there are, where they are fewer
TRIES = 200  # pairs looked at for each shard of the run: of so many one in `shards` squared will do


@dataclass(frozen=True)
class SwapRules:
    """What a swapped text must not be. taken: planned or forbidden texts. shards: of the run, those with targets."""

    taken: Taken
    shards: int
    seed: int


class Swapper:
    """The texts of a shard, str each, as swaps leave them."""

    def __init__(self, shard: int, texts: list[str], groups: Sequence[Group], demand: Demand, rules: SwapRules):
        """shard: its number. texts: those that are planned. groups: of each text."""
        self.number, self.rules, self.texts, self.groups = shard, rules, texts, groups
        self.used = set(texts)
        self.random = Random(f"{Stream.SWAPS.word} {rules.seed} {shard}")
        self.pools = [
            [Pool(p, alphabet, demand.scope(group)) for p, alphabet in enumerate(group.positions)]
            for group in self.groups
        ]
        self.holders: dict[Pool, list[int]] = {}
        for place, pools in enumerate(self.pools):
            for pool in pools:
                self.holders.setdefault(pool, []).append(place)

    def swap(self, place: int, partners: Container[int]) -> int | None:
        """Swaps characters of the text at this place of the shard; the other text's place, None where none would do."""
        free = [pool for pool in self.pools[place] if len(pool.alphabet) > 1]
        for _ in range(TRIES * self.rules.shards if free else 0):
            holders = self.holders[free[int(self.random.random() * len(free))]]
            other = holders[int(self.random.random() * len(holders))]
            if other not in partners:
                continue
            shared = [mine.position for mine in free if mine in self.pools[other]]
            swapped = [p for p in shared if self.random.random() < 0.5]
            new, new_other = _swapped(self.texts[place], self.texts[other], swapped)
            changes = new not in (self.texts[place], self.texts[other])
            if changes and new != new_other and self._may(new, place) and self._may(new_other, other):
                self.texts[place], self.texts[other] = new, new_other
                self.used |= {new, new_other}  # the old ones stay used: their plates are among the dropped
                return other
        return None

    def _may(self, text: str, place: int) -> bool:
        ours = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % self.rules.shards == self.number
        if not ours or text in self.used or text in self.rules.taken:
            return False
        plain = characters(text)
        return not any(word in plain for word in self.groups[place].blocked)


def _swapped(a: str, b: str, positions: list[int]) -> tuple[str, str]:
    both = [list(a), list(b)]
    for p in positions:
        both[0][p], both[1][p] = both[1][p], both[0][p]
    return "".join(both[0]), "".join(both[1])
