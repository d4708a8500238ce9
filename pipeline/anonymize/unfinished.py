"""unfinished: what stands in the folder of a run that has not ended, so that the run can go on after a kill.

    .anonymizing/           its being there says that nothing in the folder may be passed on
        secret              from which new texts are drawn, readable by its owner alone; none where there is a key
        plan.json           versions and keyed digests of what must not change
        pictures/17         a picture in which every plate is settled, by its number in the dataset
        commits/3.json      what became of a shard's plates, written last: without it nothing of the shard counts

No old text, name or path is in any of these. New texts are drawn from the secret and not written down, so that who has
it and the dataset can tell which plate became which, as who runs the program can anyway; who has the secret and the
output alone learns no old text. It has to outlive the process, or a run that goes on would give plates of one text two
new ones, and it lives as long as the mark: it is removed before that, when the run ends, well or not. It is unlinked,
not overwritten: who may read the disk's free blocks needs encryption there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from platemint.pipeline import lock, storage
from platemint.pipeline.anonymize.pseudonyms import KEY_BYTES
from platemint.pipeline.plate import PlatemintError
from platemint.pipeline.storage import read_json

UNFINISHED = ".anonymizing"  # in a folder whose run has not ended, or has ended with what must not be passed on


def digest(data: bytes) -> str:
    """sha256, its bytes in pairs: in one piece they would by chance spell plates of digits and letters up to F."""
    return hashlib.sha256(data).digest().hex(":")


class Unfinished:
    """Such a folder. Paths in it are there whether the files are or not."""

    def __init__(self, folder: Path):
        self.folder, self.mark = folder, folder / UNFINISHED
        self.secret_file, self.plan_file = self.mark / "secret", self.mark / "plan.json"

    def picture(self, number: int) -> Path:
        return self.mark / "pictures" / str(number)

    def commit(self, shard: int) -> Path:
        return self.mark / "commits" / f"{shard}.json"

    def refuse_others(self) -> None:
        """Raises PlatemintError where the folder holds anything and has no mark."""
        marked = self.mark.is_dir() and not self.mark.is_symlink()
        if not marked and self.folder.exists() and any(path.name not in lock.FILES for path in self.folder.iterdir()):
            raise PlatemintError(
                f"{self.folder}: is not empty: choose another --out, or --overwrite where it "
                "is an earlier output of anonymize"
            )

    def secret(self) -> bytes | None:
        """The secret of a run that was interrupted, None where there is none."""
        try:
            with open(self.secret_file, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
                digits = file.read(3 * KEY_BYTES + 1)
        except (OSError, ValueError):
            return None
        whole = re.fullmatch("(?:[0-9a-f]{2}:){%d}[0-9a-f]{2}\n" % (KEY_BYTES - 1), digits)  # noqa: UP031 (braces)
        return bytes.fromhex(digits.replace(":", "")) if whole else None

    def facts(self) -> dict:
        """Of the run that is unfinished here, as its plan has them; {} where there is none."""
        try:
            return read_json(self.plan_file)
        except PlatemintError:
            return {}

    def begin(self, secret: bytes | None, facts: dict) -> None:
        """Makes the folder a run's. secret: to be kept, None where a key stands for it."""
        if secret:  # in pairs, which spell no plate
            storage.write(self.secret_file, secret.hex(":") + "\n", private=True)
        storage.write(self.plan_file, json.dumps(facts, indent=1) + "\n")

    def clear(self, kept: Iterable[Path] = ()) -> None:
        """Removes all files but these, and empty folders, but for the mark. Links are removed and not followed."""
        stay = {self.mark, *kept, *(self.folder / name for name in lock.FILES)}
        for place, folders, files in os.walk(self.folder, topdown=False):
            for path in (Path(place, name) for name in files + folders):
                if path.is_symlink() or not path.is_dir():
                    if path.is_symlink() or path not in stay:
                        path.unlink()
                elif path not in stay and not any(path.iterdir()):
                    path.rmdir()

    def end(self, well: bool) -> None:
        """Removes what a run needs to go on, and the mark unless there is what must not be passed on."""
        self.plan_file.unlink(missing_ok=True)  # first: what is left without it is no run's, and would be cleared
        for path in sorted(self.mark.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        if well:
            self.mark.rmdir()
