"""How long report.html of a run takes to make and to open, and how large it is.

    python tests/bench/bench_page.py [--plates 10000] [--turns 5]

The plates are rendered and made without networks: a text is written across each, and luck scores them. A headless
Chromium opens the page from the disk; its own clock says when the page was loaded, which is after its script has shown
the first plates, and how long a filter takes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser import Browser
from stand_ins import Lucky, recipe

from platemint.pipeline.report.run_page import PAGE, write_page
from platemint.pipeline.run import generate
from platemint.pipeline.stages import Stages

LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"  # milliseconds since it was asked for
DRAWN = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
FILTER = """(() => { const begin = performance.now(); form.elements.text.value = "A"; choose();
             document.body.offsetHeight; return performance.now() - begin; })()"""


class Rendered(Lucky):
    """Rendered plates; what comes after them as in `Lucky`."""

    sources = Stages.sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plates", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench(Path(scratch), options.plates, options.turns)


def bench(scratch: Path, plates: int, turns: int) -> None:
    made = recipe(scratch / "run", plates, write={"shard_rows": 1000})
    stages = Rendered(made)
    generate(made, stages=stages)
    begin = time.perf_counter()
    write_page(made.folder, stages=stages)
    size = (made.folder / PAGE).stat().st_size
    print(f"{plates} plates: page made in {time.perf_counter() - begin:.1f} s, {size / 1e6:.2f} MB")
    browser = Browser(scratch / "profile")
    figures: dict[str, list[float]] = {"loaded": [], "drawn": [], "filtered": []}
    for _ in range(turns):
        browser.open(made.folder / PAGE)
        for name, script in zip(figures, (LOADED, DRAWN, FILTER)):
            figures[name].append(browser.value(script))
    pages = browser.value('(form.elements.text.value = "", choose(), document.getElementById("where").textContent)')
    browser.close()
    for name, values in figures.items():
        print(f"{name:9} {statistics.median(values):6.0f} ms  ({min(values):.0f} to {max(values):.0f})")
    print(f"plates shown: {pages}")


if __name__ == "__main__":
    main()
