"""A program: walks through an LMDB, and ends with 0 where it is whole.

On a damaged one the library reads where there is nothing, and the system ends the process: so it is another's.
"""

import sys

import lmdb


def walk(file: str) -> None:
    """Looks up every key, and both ends of its value. Raises lmdb.Error, or dies."""
    with (
        lmdb.open(file, subdir=False, readonly=True, lock=False, readahead=False) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        last = b""
        for key in map(bytes, transaction.cursor().iternext(values=False)):
            if key <= last:
                raise lmdb.Error("its keys are not in order")  # pages may lead in a circle
            value = transaction.get(key, b"")
            last, _ = key, (bytes(value[:1]), bytes(value[-1:]))


if __name__ == "__main__":
    try:
        walk(sys.argv[1])
    except lmdb.Error as fault:
        sys.exit(str(fault))
