"""anonymizer: which plates are replaced, redacted or withheld. A plate that is not proven gone is not published as it was.

A picture is written only when each of its plates has a new text that reads right and an old one that nobody reads any
more, or has been redacted. Where encoding loses, that is proven of what the file shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from platemint.pipeline.anonymize.loose import closer_views
from platemint.pipeline.anonymize.picture import Picture, shown
from platemint.pipeline.anonymize.pseudonyms import ATTEMPTS
from platemint.pipeline.anonymize.replacement import ENHANCED, Replacement, compose_frame, redacted, writable
from platemint.pipeline.corpora.datasets import Frame
from platemint.pipeline.corpora.rectify import Box, overlapping, views_of
from platemint.pipeline.edit import Editor
from platemint.pipeline.filter import Filter
from platemint.pipeline.find import TextFinder
from platemint.pipeline.networks import batched, editable_alphabet, pinned
from platemint.pipeline.plate import TELLING, Plate, PlatemintError, characters, same_reading, within_one
from platemint.pipeline.recipe import AnonymizeRecipe

ENCODED = "not proven once encoded"  # why a plate is given up that held until its picture was encoded
LEGIBLE = 0.3  # likelihood of the source's own text from which on a new one has to be read too


class Anonymizer:
    """Networks and rules: what becomes of the plates of some pictures. Reads and writes no file but the networks'.

    It is sent to other processes as its recipe, and loads its networks there. Raises PlatemintError where one cannot be
    loaded.
    """

    def __init__(self, recipe: AnonymizeRecipe):
        self.recipe = recipe
        self.edit, self.filter = self.networks()
        self.alphabet = editable_alphabet(recipe.edit)

    def __reduce__(self) -> tuple:
        return type(self), (self.recipe.model_copy(update={"edit": pinned(self.recipe.edit)}),)

    @cached_property
    def finder(self) -> TextFinder | None:
        """Sees where text stands in loose annotations; None where the recipe wants them taken as they are."""
        return TextFinder(self.recipe.edit) if self.recipe.edit.find == "auto" else None

    def networks(self) -> tuple[Editor, Filter]:
        return Editor(self.recipe.edit, private=True), Filter(self.recipe.filter, self.recipe.edit)

    def items(
        self,
        frame: Frame,
        pixels: np.ndarray,
        texts: Mapping[str, Sequence[str]],
        coded: Callable[[np.ndarray, Box], np.ndarray] | None = None,
    ) -> list[Replacement]:
        """The plates of a frame. Those that have no text, one that cannot be written or a neighbour are decided.

        texts: {old text: new one of each attempt}. coded: as a `Replacement` has it.
        """
        items, views = [], views_of(frame.annotations, pixels)
        for annotation, view, shared in zip(frame.annotations, views, overlapping(views)):
            new = texts.get(annotation.text, ())
            item = Replacement(frame, annotation, view, pixels, view.cut(pixels), new, coded)
            if not writable(annotation.text, self.alphabet):
                none = "found, no text" if annotation.found else "no text"
                self.give_up(item, "a text that cannot be written" if annotation.text else none)
            elif shared:  # an edit of the one may change pixels of the other
                self.give_up(item, "overlaps another plate")
            items.append(item)
        return items

    def give_up(self, item: Replacement, reason: str) -> None:
        """Redacts a plate, all of its annotation, or has its picture withheld, as the recipe says."""
        item.look_at_all()
        redact = self.recipe.on_doubt == "redact" or item.annotation.read or not item.annotation.text
        item.outcome, item.attempt, item.reason = "redacted" if redact else "withheld", -1, reason
        item.result, item.region = redacted(item.source), np.ones(item.source.shape[:2], bool)

    def settle(self, items: list[Replacement], tried: dict[tuple[str, str], int]) -> None:
        """Gives every plate a new text that holds, or gives it up.

        tried: the attempt that a text's first plate has taken, of pictures settled before; it is added to.
        """
        self._read([item for item in items if not item.outcome])
        open_ = [item for item in items if not item.outcome]
        for attempt in range(ATTEMPTS):
            self._try([item for item in open_ if tried.get(self._plate(item), attempt) == attempt], attempt, tried)
            open_ = [item for item in open_ if not item.outcome]
        for item in open_:
            self.give_up(item, item.reason or "no new text is free")
        self._alike(items)

    def _read(self, items: list[Replacement]) -> None:
        """Reads plates before they are edited, and gives up those whose reading is another than their label."""
        self._look_closer(items)
        for item, plate in zip(items, self.filter.scored([item.as_is() for item in items])):
            item.reading, item.legible = plate.reading, plate.scores["reader"] >= LEGIBLE
            if not item.legible and not item.resembles(item.reading):
                self.give_up(item, "not read where it is annotated")
        items = [item for item in items if not item.outcome]
        for item, standing in zip(items, self.filter.standing([item.as_is() for item in items])):
            item.standing = standing

    def _look_closer(self, items: list[Replacement]) -> None:
        """Takes plates with much around them for what the finder sees there, where that is read as their label."""
        if not self.finder:
            return
        views = closer_views(self.finder, [item.view for item in items], [item.pixels for item in items])
        loose = [(item, view) for item, view in zip(items, views) if view]
        for item, view in loose:
            item.look_at(view)
        for (item, _), plate in zip(loose, self.filter.scored([item.as_is() for item, _ in loose])):
            if plate.scores["reader"] < LEGIBLE:
                item.look_at_all()

    def _try(self, items: list[Replacement], attempt: int, tried: dict[tuple[str, str], int]) -> None:
        """Edits plates to the texts of an attempt, and keeps the edits that hold."""
        given = [(item, text) for item in items if (text := self._text(item, attempt))]
        plates = self._edited([item.to_edit(text) for item, text in given])
        plates = [item.mended(plate) for (item, _), plate in zip(given, plates)]
        seen = [item.edited(plate) for (item, _), plate in zip(given, plates)]
        reasons = self._faults([item for item, _ in given], seen)
        for (item, _), plate, edit, reason in zip(given, plates, seen, reasons):
            item.reason = reason
            if not reason:
                tried.setdefault(self._plate(item), attempt)
                item.outcome, item.attempt, item.edit, item.result = "replaced", attempt, edit, plate.image
                item.region = (plate.source_mask > 0) | (plate.target_mask > 0)

    def encoded(self, pictures: list[tuple[Picture, list[Replacement]]]) -> list[tuple[bytes, Counter] | None]:
        """The file of each picture with its plates settled, and its pixels counted as `compose_frame` does; None: withheld.

        Where encoding loses, plates are cut out of what the file shows and, unless that is what was foreseen, have to
        hold there too. One that does not is given up, and its picture encoded and looked at again: a JPEG's blocks may
        be shared with another plate.
        """
        files, open_ = {}, range(len(pictures))
        while open_ := [n for n in open_ if all(item.outcome != "withheld" for item in pictures[n][1])]:
            again: list[tuple[int, Replacement, Plate]] = []
            for n in open_:
                picture, items = pictures[n]
                pixels, counted = compose_frame(picture.pixels, items)
                files[n] = picture.encode(pixels), counted
                replaced = [item for item in items if item.outcome == "replaced" and not picture.exact]
                seen = shown(files[n][0]) if replaced else pixels
                cuts = [(item, item.view.cut(seen)) for item in replaced]
                unlike = [(item, cut) for item, cut in cuts if not np.array_equal(cut, item.edit.image)]
                again += [(n, item, replace(item.edit, image=cut)) for item, cut in unlike]
            reasons = self._faults([item for _, item, _ in again], [plate for *_, plate in again])
            failed = [(n, item) for (n, item, _), reason in zip(again, reasons) if reason]
            for _, item, plate in again:
                item.edit = plate  # as the file shows it
            for _, item in failed:
                self.give_up(item, ENCODED)
            open_ = sorted({n for n, _ in failed})
            for n in open_:
                del files[n]
                self._alike(pictures[n][1])
        return [files.get(n) for n in range(len(pictures))]

    def _edited(self, plates: list[Plate]) -> list[Plate]:
        try:
            return self.edit(plates)
        except PlatemintError:  # it would quote the plate
            raise PlatemintError(
                "edit.checkpoint: this network cannot write the text of some plate; choose one of the whole alphabet"
            ) from None

    def _plate(self, item: Replacement) -> tuple[str, str]:
        """Which plates have one new text: those of one text in a frame, or in all frames."""
        return characters(item.annotation.text), "" if self.recipe.track_consistent else item.frame.path

    def _alike(self, items: list[Replacement]) -> None:
        """Plates of one text share their outcome in a frame: one label cannot say two things."""
        lost = {(item.frame.path, characters(item.annotation.text)) for item in items if item.outcome != "replaced"}
        for item in items:
            if item.outcome == "replaced" and (item.frame.path, characters(item.annotation.text)) in lost:
                self.give_up(item, "the same plate twice")

    def _text(self, item: Replacement, attempt: int) -> str:
        """The attempt's text, "" where there is none: a key gives one text alone, and one that is in use stays."""
        text = item.texts[attempt] if attempt < len(item.texts) else ""
        return "" if same_reading(text, item.annotation.text) else text

    def _faults(self, items: list[Replacement], plates: list[Plate]) -> list[str]:
        """Why each edit cannot be published, "" where it can: it reads right, and no enhancement shows its source's text."""
        seen = [replace(p, image=enhance(p.image)) for p in plates for enhance in ENHANCED.values()]
        scored = list(batched(self.filter.scored(seen), len(ENHANCED)))
        return [self._fault(item, seen) for item, seen in zip(items, scored)]

    def _fault(self, item: Replacement, seen: list[Plate]) -> str:
        """seen: the edit as it is, then with each enhancement."""
        item.scores = seen[0].scores
        if reason := self._unreadable(item, seen[0]):
            return reason
        if any(self._leaks(item, plate) for plate in seen):
            return "source read"
        if item.legible and any(len(characters(p.reading)) > len(characters(p.text)) for p in seen):
            return "a character too many read"
        return "source characters in view" if item.remaining(seen[0]) else ""

    def _unreadable(self, item: Replacement, plate: Plate) -> str:
        reason = self.filter.decide(plate.scores)
        if reason == "reader" and not item.legible and item.erased:  # nobody could read it: the mask has to prove it
            reason = self.filter.decide(plate.scores | {"reader": 1.0})
        return reason

    def _leaks(self, item: Replacement, plate: Plate) -> bool:
        """Whether the old text is read, or what was read before, should its label be wrong, or one off them."""
        olds = (item.annotation.text, *([item.reading] if len(item.reading) >= TELLING else []))
        near = any(within_one(plate.reading, old) for old in olds) and not same_reading(plate.reading, plate.text)
        return near or plate.scores["residue"] > self.recipe.filter.max_residue
