"""shard: some pictures of a dataset anonymized as one transaction: their files, and then the commit that they count by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from platemint.pipeline import storage
from platemint.pipeline.anonymize.anonymizer import Anonymizer
from platemint.pipeline.anonymize.picture import Picture, open_picture
from platemint.pipeline.anonymize.plan import AnonymizeShard, connected, packed
from platemint.pipeline.anonymize.replacement import Replacement
from platemint.pipeline.anonymize.unfinished import Unfinished, digest
from platemint.pipeline.plate import Failure
from platemint.pipeline.versions import versions

FRAMES = 16  # pictures in memory at once, at most
PIXELS = 32_000_000  # of these together, from which on no other one is opened; each thread has as many


@dataclass(frozen=True)
class Work:
    """Anonymizes shards: what a worker process is given once.

    root: the dataset's. run: as the plan's facts have it under "secret". threads: groups of pictures in work at a time,
    each with at most `FRAMES` in memory. tick: is called for every picture, by all threads.
    """

    anonymizer: Anonymizer
    root: Path
    record: Unfinished
    run: str
    threads: int = 1
    tick: Callable[[], None] | None = None

    def __call__(self, shard: AnonymizeShard) -> dict:
        """Writes a shard's pictures and then its commit, which it returns.

        The commit holds for each frame, by number: why it could not be opened ("aside"), or what became of its plates,
        the attempt whose text each has got included, and of its pixels, with its file's size where it is written.
        Raises Failure where the run is no longer the folder's: its process was killed, and its workers have lived on.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            frames = [item for items in pool.map(partial(self._settled, shard), self._groups(shard)) for item in items]
        commit = {"shard": shard.number, "versions": versions(), "frames": frames}
        self._refuse_another_run()
        storage.write(self.record.commit(shard.number), json.dumps(commit) + "\n")
        return commit

    def _refuse_another_run(self) -> None:
        if self.record.facts().get("secret") != self.run:
            raise Failure(f"{self.record.folder}: is no longer this run's: run the same command again")

    def _groups(self, shard: AnonymizeShard) -> list[list[int]]:
        """Places of a shard's frames in groups that have nothing to do with each other, whoever works on them when."""
        frames = list(shard.frames)
        consistent = self.anonymizer.recipe.track_consistent
        return packed(connected(frames) if consistent else ([n] for n in range(len(frames))), FRAMES)

    def _settled(self, shard: AnonymizeShard, places: list[int]) -> list[dict]:
        """Writes the pictures of a group; what the commit has of each."""
        done: list[dict] = []
        tried: dict[tuple[str, str], int] = {}
        for opened in _together(self._opened(shard, places, done)):
            pictures = [(picture, self._items(shard, place, picture)) for place, picture in opened]
            self.anonymizer.settle([item for _, items in pictures for item in items], tried)
            files = self.anonymizer.encoded(pictures)
            self._refuse_another_run()
            for (place, _), (_, items), file in zip(opened, pictures, files):
                done.append({"frame": shard.numbers[place], "plates": [_plate(item) for item in items]})
                if file:
                    data, counted = file
                    storage.write(self.record.picture(shard.numbers[place]), data)
                    done[-1] |= {"bytes": len(data), "sha256": digest(data), "pixels": counted}
        return done

    def _items(self, shard: AnonymizeShard, place: int, picture: Picture) -> list[Replacement]:
        coded = None if picture.exact else picture.coded
        return self.anonymizer.items(shard.frames[place], picture.pixels, shard.texts[place], coded)

    def _opened(self, shard: AnonymizeShard, places: list[int], done: list[dict]) -> Iterator[tuple[int, Picture]]:
        """Frames, by place, with their pictures; those that cannot be opened are put down as set aside."""
        for place in places:
            if self.tick:
                self.tick()
            try:
                picture = open_picture(self.root / shard.frames[place].path)
            except ValueError as fault:
                done.append({"frame": shard.numbers[place], "aside": str(fault)})
            else:
                yield place, picture


def _plate(item: Replacement) -> dict:
    scores = {name: round(float(score), 2) for name, score in item.scores.items()}
    found = {"outcome": item.outcome, "reason": item.reason, "attempt": item.attempt, "scores": scores}
    return found | ({"characters": item.looked_for()} if item.outcome == "replaced" else {})


def _together(opened: Iterator[tuple[int, Picture]]) -> Iterator[list[tuple[int, Picture]]]:
    """As many at once as may be in memory."""
    batch, pixels = [], 0
    for item in opened:
        batch.append(item)
        pixels += item[-1].pixels.size // 3
        if len(batch) == FRAMES or pixels >= PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
