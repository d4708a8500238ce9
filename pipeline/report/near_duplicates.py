"""Labels that stand in two splits, or nearly: a reader tested on what it has learned looks better than it is.

Tables and joins are pandas'. Texts one character apart are found by own code (`_agreeing`): comparing a million texts
pair by pair is out of the question, and so is a join over strings with a character left out, at each position anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from platemint.pipeline.plate import canonical

SHOWN = 5  # examples of each kind


def near_duplicates(texts: Sequence[str], splits: Sequence[str]) -> dict:
    """Texts that read the same in two splits, and pairs from two splits that are one character apart.

    Texts compare as readings do (`canonical`: no separators, O as 0); one apart are two of the same length that differ
    in one place. Ready for JSON: `same` has texts (how many different ones), `one_apart` has pairs; both have plates
    ({split: plates with such a text in another split}) and a few examples, sorted, each as
    {split: text, other split: text}.
    """
    different, number = np.unique(np.array([canonical(text) for text in texts], dtype=str), return_inverse=True)
    plates = pd.DataFrame(
        {
            "text": number,
            "split": pd.Categorical(np.array(splits, dtype=object)),
            "spelled": pd.Series(texts, dtype=object),
        }
    )
    groups = plates.groupby(["text", "split"], observed=True)["spelled"]  # sorted by text, then by split
    entries = groups.agg(plates="size", spelled="first").reset_index()
    return {"same": _same(entries), "one_apart": _one_apart(entries, different)}


def _same(entries: pd.DataFrame) -> dict:
    """entries: a row for each text in each split it stands in; text is its number, spelled the first plate's label."""
    several = entries[entries["text"].duplicated(keep=False)]
    shown = several[several["text"].isin(several["text"].unique()[:SHOWN])].groupby("text").head(2)
    return {
        "texts": several["text"].nunique(),
        "plates": _by_split(several),
        "examples": [dict(zip(two["split"], two["spelled"])) for _, two in shown.groupby("text")],
    }


def _one_apart(entries: pd.DataFrame, texts: np.ndarray) -> dict:
    """A pair of texts, str (texts,), sorted, counts once, in however many splits both stand."""
    crossing = pd.concat([*_crossing(entries, texts)], ignore_index=True)
    pairs = crossing[crossing["text_x"] < crossing["text_y"]].drop_duplicates(["text_x", "text_y"])
    shown = pairs.nsmallest(SHOWN, ["text_x", "text_y"])[["entry_x", "entry_y"]]
    return {
        "pairs": len(pairs),
        "plates": _by_split(entries.loc[crossing["entry_x"].unique()]),
        "examples": [
            dict(entries.loc[[*two], ["split", "spelled"]].to_numpy()) for two in shown.itertuples(index=False)
        ],
    }


def _crossing(entries: pd.DataFrame, texts: np.ndarray) -> Iterator[pd.DataFrame]:
    """Pairs of entries from two splits whose texts are one apart, each either way round; a table for each position."""
    columns = ["text_x", "text_y", "entry_x", "entry_y"]
    yield pd.DataFrame(columns=columns, dtype=np.int64)
    sides = entries[["text"]].assign(split=entries["split"].cat.codes, entry=entries.index)
    for members, group in _agreeing(texts) if sides["split"].any() else ():
        groups = pd.DataFrame({"text": members, "group": group})
        side = sides.merge(groups, on="text")
        both = side.merge(side, on="group")
        yield both.loc[(both["split_x"] != both["split_y"]) & (both["text_x"] != both["text_y"]), columns]


def _by_split(entries: pd.DataFrame) -> dict[str, int]:
    return {str(split): int(n) for split, n in entries.groupby("split", observed=True)["plates"].sum().items()}


def _agreeing(texts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each position, the texts, different ones, str (texts,), that agree with another everywhere but there.

    Yields their numbers, int64 (members,), ascending, and the group of each, int64 (members,), from 0. Texts of a
    group differ in that one place. Groups come from numbering the texts' beginnings and ends by sorting, three times a
    position, so that they are exact, and a million texts take seconds.
    """
    codes = texts.view(np.uint32).reshape(len(texts), -1)
    ends = [np.zeros(len(texts), dtype=np.int64)]
    for column in codes.T[:0:-1]:
        ends.append(_numbered(ends[-1], column))
    begins = np.zeros(len(texts), dtype=np.int64)
    for column, end in zip(codes.T, reversed(ends)):
        there = np.flatnonzero(column)  # numpy pads short texts with 0
        group = _numbered(begins[there], end[there])
        several = np.bincount(group)[group] > 1
        if several.any():
            yield there[several], np.unique(group[several], return_inverse=True)[1]
        begins = _numbered(begins, column)


def _numbered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A number from 0 for each different pair of a number of a, below 2**31, and one of b: int64 (n,)."""
    return np.unique(a * (int(b.max(initial=0)) + 1) + b, return_inverse=True)[1]
