"""shard: some pictures of a dataset anonymized as one transaction: their files, and then the commit that they count by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from platemint.pipeline import storage
from platemint.pipeline.anonymize.anonymizer import Anonymizer
from platemint.pipeline.anonymize.picture import Picture, open_picture
from platemint.pipeline.anonymize.plan import Shard
from platemint.pipeline.anonymize.replacement import Replacement
from platemint.pipeline.anonymize.unfinished import Unfinished
from platemint.pipeline.corpora.frames import Frame
from platemint.pipeline.plate import Failure
from platemint.pipeline.versions import versions

FRAMES = 16  # pictures in memory at once, at most
PIXELS = 64_000_000  # of these together, from which on no other one is opened

Opened = tuple[int, Frame, dict[str, tuple[str, ...]], Picture]  # number in the dataset, frame, new texts, picture


@dataclass(frozen=True)
class Work:
    """Anonymizes shards: what a worker process is handed once.

    root: the dataset's. run: as the plan's facts have it under "secret". tick: is called for every picture.
    """

    anonymizer: Anonymizer
    root: Path
    record: Unfinished
    run: str
    tick: Callable[[], None] | None = None

    def __call__(self, shard: Shard) -> dict:
        """Writes a shard's pictures and then its commit, which it returns.

        The commit holds for each frame, by number: why it could not be opened ("aside"), or what became of its plates,
        the attempt whose text each has got included, and of its pixels, with its file's size where it is written.
        Raises Failure where the run is no longer the folder's: its process was killed, and its workers have lived on.
        """
        frames: list[dict] = []
        tried: dict[tuple[str, str], int] = {}
        for opened in _together(self._opened(shard, frames)):
            pictures = [(picture, self._items(frame, texts, picture)) for _, frame, texts, picture in opened]
            self.anonymizer.settle([item for _, items in pictures for item in items], tried)
            files = self.anonymizer.encoded(pictures)
            self._refuse_another_run()
            for (number, *_), (_, items), file in zip(opened, pictures, files):
                frames.append({"frame": number, "plates": [_plate(item) for item in items]})
                if file:
                    data, counted = file
                    storage.write(self.record.picture(number), data)
                    frames[-1] |= {"bytes": len(data), "pixels": counted}
        commit = {"shard": shard.number, "versions": versions(), "frames": frames}
        self._refuse_another_run()
        storage.write(self.record.commit(shard.number), json.dumps(commit) + "\n")
        return commit

    def _refuse_another_run(self) -> None:
        if self.record.facts().get("secret") != self.run:
            raise Failure(f"{self.record.folder}: is no longer this run's: run the same command again")

    def _items(self, frame: Frame, texts: dict[str, tuple[str, ...]], picture: Picture) -> list[Replacement]:
        return self.anonymizer.items(frame, picture.pixels, texts, None if picture.exact else picture.coded)

    def _opened(self, shard: Shard, frames: list[dict]) -> Iterator[Opened]:
        """Every frame with its picture; those that cannot be opened are put down as set aside."""
        for number, frame, texts in zip(shard.numbers, shard.frames, shard.texts):
            if self.tick:
                self.tick()
            try:
                picture = open_picture(self.root / frame.path)
            except ValueError as fault:
                frames.append({"frame": number, "aside": str(fault)})
            else:
                yield number, frame, texts, picture


def _plate(item: Replacement) -> dict:
    found = {"outcome": item.outcome, "reason": item.reason, "attempt": item.attempt}
    return found | ({"characters": item.looked_for()} if item.outcome == "replaced" else {})


def _together(opened: Iterator[Opened]) -> Iterator[list[Opened]]:
    """As many at once as may be in memory."""
    some, pixels = [], 0
    for item in opened:
        some.append(item)
        pixels += item[-1].pixels.size // 3
        if len(some) == FRAMES or pixels >= PIXELS:
            yield some
            some, pixels = [], 0
    if some:
        yield some
