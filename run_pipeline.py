"""The command line: one verb per use, thin. Also installed as `platemint`.

Exit codes: 0 done; 2 wrong usage, wrong recipe or unusable input; 3 finished, but something is left to do: a quota that
could not be filled, plates that no annotation covers, annotations that belong to no picture, no picture written; 130
stopped by Ctrl-C; 1 anything else: a full disk, a folder that another process is writing, a check that found a fault.
Results go to stdout; progress, notices and faults to stderr. No colour is ever used, so that NO_COLOR is kept to.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, TextIO

try:
    import click

    import platemint  # noqa: F401
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"{missing.name} is not installed: run `{sys.executable} -m pip install -c constraints.txt -e .` in the folder of "
        "run_pipeline.py, once"
    ) from None

if TYPE_CHECKING:
    from platemint.pipeline.recipe import Edit

EXAMPLES = {
    "generate": "generate quickstart --count 200",
    "rebalance": "rebalance photos/labels.csv --out outputs/balanced --merge",
    "anonymize": "anonymize frames --out outputs/anonymized",
    "train": "train train-phase1 --set steps=1000",
    "edit": "edit --input_dir photos/i_s --input_text photos/gt.txt --out outputs/edited",
    "inspect": "inspect outputs/mine --against photos/labels.csv --picture balance.png",
    "report": "report outputs/quickstart",
    "grammar": "grammar faker:de_DE",
    "verify": "verify outputs/quickstart",
    "export": "export outputs/quickstart --to fast-plate-ocr --out outputs/for-training",
    "export-networks": "export-networks --out outputs/networks",
    "evaluate": "evaluate edits",
}
LEFT_TO_DO = {  # what exit code 3 means
    "generate": "a quota could not be filled, or an export set rows aside",
    "rebalance": "a quota could not be filled, or an export set rows aside",
    "anonymize": "plates that no annotation covers, annotations that belong to no picture, or no picture written",
    "export": "rows that the format cannot hold were set aside",
}
# What is wrong with a path that was given; anything else that the system says is no fault of the command.
OF_PATHS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
OF_PATHS |= {errno.ENAMETOOLONG, errno.ELOOP}


class PathOrUrl(click.Path):
    """A path of this machine or, where stores are told to do, the URL of what lies on an object store."""

    def __init__(self, stores: bool = False, path_type=Path, **fields):
        super().__init__(path_type=path_type, **fields)
        self.stores = stores

    def convert(self, value, param, ctx):
        """A Path, or an ObjectPath."""
        if "://" not in str(value):
            return super().convert(value, param, ctx)
        from platemint.pipeline.object_store import place
        from platemint.pipeline.plate import PlatemintError

        try:
            there = place(value)
        except PlatemintError as fault:
            self.fail(str(fault), param, ctx)
        if isinstance(there, Path):
            return super().convert(there, param, ctx)
        if not self.stores:
            self.fail(f"{value}: has to be on this machine: copy it from or to the store yourself", param, ctx)
        return there


FILE = PathOrUrl(exists=True, dir_okay=False)
FOLDER = PathOrUrl(exists=True, file_okay=False)
RUN = PathOrUrl(exists=True, file_okay=False, stores=True)
CORPUS = PathOrUrl(exists=True, stores=True)
TO_WRITE = PathOrUrl(dir_okay=False)


class WrongUse(click.ClickException):
    """A command, a recipe, or what they point at, that has to be mended before anything can run."""

    exit_code = 2


class Stopped(click.ClickException):
    """A run that somebody has stopped."""

    exit_code = 130


class Verb(click.Command):
    """A command that takes --quiet, shows its example and exit codes below its help, and a user's fault as one message."""

    def __init__(self, example: str = "", **fields):
        name = fields["name"]
        super().__init__(epilog=f"{_examples([example or EXAMPLES[name]])}\n\n{_exit_codes(name)}", **fields)
        self.params.append(_quiet())

    def invoke(self, context: click.Context):
        with _installed(), _faults():
            return super().invoke(context)


class Verbs(click.Group):
    """A group whose commands are verbs."""

    command_class = Verb


@contextmanager
def _faults():
    """A user's fault is exit code 2, Ctrl-C 130, what else stops a run exit code 1; each is one message."""
    from platemint.pipeline.plate import Failure, Interrupted, PlatemintError

    try:
        yield
    except Interrupted as fault:
        raise Stopped(str(fault)) from None
    except KeyboardInterrupt:
        raise Stopped("stopped at once: what was unfinished is lost; the same command goes on with a run") from None
    except Failure as fault:
        raise click.ClickException(str(fault)) from None
    except PlatemintError as fault:
        raise WrongUse(str(fault)) from None
    except BrokenPipeError:  # `| head`: click ends quietly
        raise
    except OSError as fault:
        shown_as = WrongUse if fault.errno in OF_PATHS else click.ClickException
        raise shown_as(f"{fault.filename or 'a file'}: {fault.strerror or fault}") from None


@contextmanager
def _installed():
    """A library that is missing, or cannot be loaded, is one message with the remedy."""
    try:
        yield
    except ModuleNotFoundError as fault:
        remedy = f"install platemint again, it needs more than it did: `{sys.executable} -m pip install -e .`"
        raise click.ClickException(f"{fault}: {remedy}") from None
    except ImportError as fault:
        if fault.name != "cv2" and "libGL" not in str(fault):
            raise
        remedy = "`pip uninstall opencv-python`, then `pip install --force-reinstall --no-deps opencv-python-headless`"
        raise click.ClickException(
            f"{fault}: this system has not what opencv-python needs for windows; platemint opens none: {remedy}"
        ) from None


@contextmanager
def _unquoted():
    """Errors that no user's fault explains, without their messages: these may quote plates, or name pictures."""
    from platemint.pipeline.plate import PlatemintError

    try:
        yield
    except (PlatemintError, BrokenPipeError, ImportError):
        raise
    except Exception as fault:
        place = traceback.extract_tb(fault.__traceback__)[-1]
        what = getattr(fault, "strerror", None) or type(fault).__name__
        raise click.ClickException(
            f"{what} ({Path(place.filename).name}, line {place.lineno}). What it is about is left out here, since it may "
            "be a plate. The output is not finished: nothing in it may be passed on"
        ) from None


def _examples(examples) -> str:
    lines = [f"  python run_pipeline.py {example}" for example in examples]
    return "\b\n" + "\n".join(["Example:" if len(lines) == 1 else "Examples:", *lines])


def _exit_codes(verb: str) -> str:
    fault = (
        "a fault was found, or no check was possible"
        if verb == "verify"
        else "a full disk, a folder in use and the like"
    )
    left = f"3 {LEFT_TO_DO[verb]}; " if verb in LEFT_TO_DO else ""
    return f"Exit codes: 0 done; 1 {fault}; 2 wrong usage, recipe or input; {left}130 stopped by Ctrl-C."


def _quiet() -> click.Option:
    """--quiet, which `_messages` asks for."""

    def keep(context: click.Context, option: click.Parameter, given: bool) -> None:
        context.meta["quiet"] = given

    said = "Print results and faults alone: no progress, no notices."
    return click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=keep, help=said)


def _messages() -> TextIO | None:
    """Where progress and notices go; None, nowhere, with --quiet."""
    return None if click.get_current_context().meta.get("quiet") else sys.stderr


def _notice(line: str) -> None:
    if stream := _messages():
        click.echo(line, file=stream)


def _print(report: dict, as_json: bool, as_text: Callable[[dict], str]) -> None:
    """A result on stdout: a table for people, or JSON."""
    import json

    click.echo(json.dumps(report, ensure_ascii=False, indent=1) if as_json else as_text(report))


def _recipe_options(verb):
    sets = click.option(
        "--set", "sets", metavar="KEY=VALUE", multiple=True, help="Set a field of the recipe, such as edit.batch=8."
    )
    return click.argument("recipe", required=False, shell_complete=_one_of(RECIPES))(sets(verb))


def _one_of(names: list[str]):
    """What a shell offers for a word: the names that begin like it; where none does, files."""

    def offered(context: click.Context, parameter: click.Parameter, typed: str):
        return [n for n in names if n.startswith(typed)] or click.Path().shell_complete(context, parameter, typed)

    return offered


# Each format is a file of its name; to list these imports nothing, so that --help answers at once.
FORMATS = sorted(module.name for module in iter_modules([str(Path(__file__).parent / "pipeline/corpora/formats")]))
RECIPES = sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))
FORMAT = click.option(
    "--format",
    "form",
    metavar="NAME",
    shell_complete=_one_of(FORMATS),
    help=f"Format of the corpus: {', '.join(FORMATS)}.  [default: auto]",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
ACCEPT_VERSIONS = click.option(
    "--accept-versions", is_flag=True, help="Go on with a run though libraries have other versions by now."
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Remove the run that the folder holds, and begin anew.")
EXTEND = click.option("--extend", is_flag=True, help="Add to the run that the folder holds, up to the count.")


def _engine_options(verb):
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        help="Who does the work: this machine, or Ray.  [default: local]",
    )
    address = click.option("--address", metavar="ADDRESS", help="Of a Ray cluster: auto, HOST:6379.  [default: here]")
    return engine(address(verb))


def _engine(engine: str | None, address: str | None) -> dict:
    return {"engine.kind": engine, "engine.address": address}


@click.group(
    cls=Verbs,
    epilog=_examples(EXAMPLES.values()),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
def main() -> None:
    """Make balanced, labelled license-plate images from plates you have, or from plates rendered for you."""


@main.command(name="generate")
@_recipe_options
@click.option("--source", metavar="PATH", help="Corpus: labelled crops, or frames with annotated plates.")
@FORMAT
@click.option("--count", type=int, metavar="N", help="Plates to make.")
@click.option("--out", metavar="DIR", help="Run folder, or s3://..., gs://....  [default: outputs/NAME]")
@click.option("--seed", type=int, metavar="S", help="Another seed is another dataset.")
@click.option("--forbid", metavar="FILE", help="Texts never drawn: one a line, a table, or a corpus.")
@_engine_options
@ACCEPT_VERSIONS
@EXTEND
@OVERWRITE
@click.option("--dry-run", is_flag=True, help="Show recipe, quotas, shards, disk and time; write nothing.")
def generate(
    recipe, sets, source, form, count, out, seed, forbid, engine, address, accept_versions, extend, overwrite, dry_run
) -> None:
    """Make a dataset, or go on with one that was interrupted.

    RECIPE is a YAML file, or the name of one that ships; left out, every field has its default.
    """
    from platemint.pipeline.stages import Stages

    given = {"source.path": source, "source.format": form, "count": count, "out": out, "seed": seed}
    given |= {"draw.forbid": forbid} | _engine(engine, address)
    stages = Stages(_load(recipe, sets, given))
    _carry_out(stages, dry_run, accept_versions, extend, overwrite)


@main.command(name="rebalance")
@click.argument("corpus", metavar="CORPUS")
@FORMAT
@click.option("--out", metavar="DIR", help="Run folder, or s3://..., gs://....  [default: outputs/rebalanced]")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Plates to add.  [default: the knee of the curve]")
@click.option(
    "--until", type=click.FloatRange(0, 1), metavar="E", help="Add as few as make it so even, 0 to 1 (level)."
)
@click.option("--split", metavar="NAME", help="Top up this split alone.  [default: each split]")
@click.option("--merge", is_flag=True, help="Write the corpus's own plates too: the whole, balanced corpus.")
@click.option("--forbid", metavar="FILE", help="Texts never drawn: one a line, a table, or a corpus.")
@click.option("--recipe", metavar="FILE", default="rebalance", show_default=True, help="Recipe to start from.")
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Set a field of the recipe.")
@click.option("--seed", type=int, metavar="S", help="Another seed is another dataset.")
@_engine_options
@ACCEPT_VERSIONS
@EXTEND
@OVERWRITE
@click.option("--dry-run", is_flag=True, help="Show curve, recipe, quotas, shards, disk and time; write nothing.")
def rebalance(
    corpus,
    form,
    out,
    count,
    until,
    split,
    merge,
    forbid,
    recipe,
    sets,
    seed,
    engine,
    address,
    accept_versions,
    extend,
    overwrite,
    dry_run,
) -> None:
    """Add to a corpus the plates it lacks, edited from its own.

    Characters that are rare at a position are raised to one level, those that are frequent are left alone. CORPUS is a
    folder of labelled plates, its file of labels, or the folder of a run. Evenness is the mean entropy of its
    positions' characters, over that of the evenest spread of as many plates.
    """
    from platemint.pipeline.rebalance import propose
    from platemint.pipeline.stages import Stages

    if count and until is not None:
        raise click.UsageError("--count and --until: give one of them")
    given = {"source.path": corpus, "source.format": form, "source.split": split, "out": out, "seed": seed}
    given |= {"draw.forbid": forbid} | _engine(engine, address)
    given |= {"balance.top_up": True} | ({"write.real": True} if merge else {})
    first = Stages(_load(recipe, sets, given))
    proposal = propose(first, count, until)
    stages = first.for_recipe(_load(recipe, sets, given | {"count": proposal.count}))
    click.echo(proposal.text)
    _carry_out(stages, dry_run, accept_versions, extend, overwrite)


@main.command(name="anonymize")
@click.argument("corpus", metavar="CORPUS")
@click.option("--out", metavar="DIR", help="Folder written.  [default: outputs/anonymized]")
@click.option("--format", "form", metavar="NAME", help="Format of the dataset, where several fit.")
@click.option("--class", "classes", metavar="NAME", multiple=True, help="A class of plates, by name or number.")
@click.option("--key-file", metavar="FILE", help="Compute new texts from this key; made where there is none.")
@click.option("--track-consistent", is_flag=True, help="The same plate, the same new text, within this run.")
@click.option("--on-doubt", type=click.Choice(["redact", "withhold"]), help="For plates not proven gone.")
@click.option(
    "--detector",
    metavar="FILE.onnx",
    type=PathOrUrl(exists=True, dir_okay=False, path_type=None),
    help="Finds plates not annotated.",
)
@click.option(
    "--detector-finds",
    "finds",
    type=click.Choice(["list", "redact", "replace"]),
    help="What becomes of these.  [default: list]",
)
@click.option("--read", "read_texts", is_flag=True, help="Read plates without a text; replace those read for sure.")
@click.option("--list", "list_file", metavar="FILE", help="List the plates given up, for you alone: it names them.")
@click.option("--recipe", metavar="FILE", help="Recipe to start from.")
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Set a field of the recipe.")
@_engine_options
@ACCEPT_VERSIONS
@OVERWRITE
def anonymize(
    corpus,
    out,
    form,
    classes,
    key_file,
    track_consistent,
    on_doubt,
    detector,
    finds,
    read_texts,
    list_file,
    recipe,
    sets,
    engine,
    address,
    accept_versions,
    overwrite,
) -> None:
    """Write a dataset anew with other plates, or go on with a run that was interrupted.

    CORPUS is the folder of a dataset of frames or crops in one of many formats; the output is of the same format, with
    new texts wherever the old ones stood. A plate whose old text may still be read is redacted, or its picture withheld;
    audit.json lists these by ids that say nothing, and --list writes a CSV, outside of both folders, that says which
    plate each is. It names real plates: never pass it on.
    With --read a plate annotated without a text is read, and replaced if the reader is sure of it. What --detector finds
    outside annotations is listed, or redacted, or read and replaced in the same way, and then annotated; so CORPUS may be
    a folder of pictures alone, whose output is in COCO's form.
    Exit code 1 where a text of the dataset is found in the output, which then keeps the mark of a run that has not ended;
    3 where the detector finds plates there that no annotation covers, or cannot be run on a picture: audit.json lists
    them; where annotations belong to no picture, so that pictures without one are withheld; and where no picture is
    written.
    """
    import json

    from platemint.pipeline.anonymize.audit import may_leave
    from platemint.pipeline.anonymize.plan import AnonymizePlan
    from platemint.pipeline.anonymize.run import anonymize
    from platemint.pipeline.corpora.datasets import NAMED_BY

    given = {"source.path": corpus, "source.format": form, "out": out, "key_file": key_file, "on_doubt": on_doubt}
    given |= {"detector.path": detector, "list_file": list_file}
    given |= {"source.classes": classes} if classes else {}
    given |= {"detector.finds": finds, "read_texts": read_texts or None}
    given |= {"track_consistent": True} if track_consistent else {}
    given |= _engine(engine, address)
    resolved = _load(recipe, sets, given, "anonymize")
    with _unquoted():
        plan = AnonymizePlan(resolved, progress=_messages())
        _notice(f"read as {plan.dataset.format} ({plan.dataset.evidence})")
        audit = anonymize(resolved, _messages(), plan, accept_versions, overwrite)
    shown = {name: value for name, value in audit.items() if name != "given_up"}  # may be long: the file has it
    click.echo(json.dumps(shown, ensure_ascii=False, indent=1))
    left = [*_left_to_do(audit, NAMED_BY.get(plan.dataset.format, ""))]
    for shown in left:
        click.echo(f"{shown}: see {resolved.folder / 'audit.json'}", err=True)
    if not may_leave(audit):
        found = audit["source_texts"]["found"], audit["source_characters"]["in_view"], audit["pixels"]["outside"]
        click.echo(
            "NOT TO BE PASSED ON: {:,} times a text of the dataset stands in the output, {:,} characters of its plates are "
            "in view, {:,} pixels changed outside of plates. `verify OUTPUT --against DATASET` says where; then run it again.".format(
                *found
            ),
            err=True,
        )
        sys.exit(1)
    sys.exit(3 if left else 0)


def _left_to_do(audit: dict, named_by: str) -> Iterator[str]:
    """What somebody has to see to once a dataset is anonymized. named_by: what says which picture annotations are of."""
    found, annotations = audit.get("detector", {}), audit["annotations"]
    uncovered, unseen = found.get("plates_uncovered", 0), found.get("pictures_not_looked_at", 0)
    if uncovered or unseen:
        yield f"{uncovered:,} plates that no annotation covers, shown as they were; {unseen:,} pictures not looked at"
    if left := annotations["left_over"]:
        yield (
            f"{left:,} annotations of plates belong to no picture or are in no known form, so that pictures without an "
            f"annotated plate, {annotations['pictures_withheld']:,}, are withheld. Mend {named_by}, and run it again "
            "(--list FILE says which)"
        )
    if not audit["pictures"]["written"]:
        yield "not one picture was written"


def _load(recipe, sets, given: dict, task: str = "generate"):
    from platemint.pipeline.recipe import load_recipe

    return load_recipe(recipe, sets, task, {k: v for k, v in given.items() if v is not None})


def _carry_out(stages, dry_run: bool, accept_versions: bool, extend: bool, overwrite: bool) -> None:
    """Carries a recipe out, or shows what it would do, and ends the program."""
    from platemint.pipeline import run

    if extend and overwrite:
        raise click.UsageError("--extend and --overwrite: give one of them")
    if stages.sources.read_as:
        named = ", ".join(filter(None, (part.source.path for part in stages.recipe.parts)))
        _notice(f"{named}: read as {stages.sources.read_as}")
    stages.progress = _messages()
    if dry_run and not any(part.source.tries or part.draw.lengths for part in stages.recipe.parts):
        stages.most_looked_at = run.LOOKED_AT  # what is planned does not depend on it, and the rest takes minutes
    stages.ready()  # or says why not, before anything is shown or written
    if dry_run:
        _preview(stages, *run.planned(stages, extend, overwrite))
        return
    result = run.generate(stages.recipe, _messages(), stages, accept_versions, extend, overwrite)
    real = f", and {result.real:,} of the corpus as they are" if result.real else ""
    click.echo(f"{result.folder}: {result.accepted:,} plates{real}")
    for exported in result.exported:
        click.echo(exported)
    if result.missing:
        click.echo(
            f"{result.missing:,} plates are missing, by position and character, with what dropped them:", err=True
        )
        for position, counts in result.shortfall.items():
            for character, n in counts.items():
                why = result.reasons.get(position, {}).get(character, {})
                shown = ", ".join(f"{reason} {times}" for reason, times in why.items())
                click.echo(f"  {position}: {character}:{n}" + (f" ({shown})" if shown else ""), err=True)
    sys.exit(result.exit_code)


def _preview(stages, plan, extension: str) -> None:
    from platemint.pipeline import run
    from platemint.pipeline.recipe import dump

    click.echo(dump(stages.recipe))
    click.echo("quotas: position / characters: plates for each")
    for key, counts in plan.facts["quotas"].items():
        least, most = min(counts.values()), max(counts.values())
        click.echo(f"  {key}: {least}" + (f" to {most}" if most > least else ""))
    click.echo(f"sources: {len(stages.sources.groups)} groups, {len(stages.sources.set_aside)} pictures set aside")
    cost = run.estimate_run(plan, stages)
    click.echo(f"shards: {len(plan.shards)}")
    if extension:
        click.echo(extension)
    click.echo(f"disk: about {cost['bytes'] / 1e6:,.1f} MB")
    click.echo(f"time: about {cost['seconds'] / 60:,.1f} minutes")


@main.command(name="train")
@_recipe_options
@click.option("--source", metavar="PATH", help="Corpus of labelled plates to learn too.")
@FORMAT
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run folder.")
def train(recipe, sets, source, form, resume) -> None:
    """Train the networks.

    RECIPE is a YAML file, or the name of one that ships; left out, every field has its default.
    """
    resolved = _load(recipe, sets, {"source": source, "format": form}, "train")
    from platemint.pipeline.train import train

    click.echo(train(resolved, resume, say=_notice))


@main.command(name="edit")
@click.option("--input_dir", required=True, type=FOLDER, help="Folder of pictures.")
@click.option("--input_text", required=True, type=FILE, help="Wanted texts, a line `name text` each.")
@click.option("--source_text", type=FILE, help="Texts the pictures have, likewise; left out, a reader reads them.")
@click.option("--checkpoint", metavar="F", help="Generator: a name in models/checkpoints or a file.")
@click.option("--out", metavar="DIR", type=PathOrUrl(), default="outputs/edited", show_default=True, help="Results.")
def edit(input_dir, input_text, source_text, checkpoint, out) -> None:
    """Write given texts on given plates.

    Beside the results, scores.csv holds the scores of each and says which is under `generate`'s default thresholds.
    """
    from platemint.pipeline.edit_folder import edit_folder
    from platemint.pipeline.recipe import Edit

    click.echo(edit_folder(input_dir, input_text, source_text, checkpoint or Edit().checkpoint, out))


@main.command(name="inspect")
@click.argument("corpus", type=CORPUS)
@FORMAT
@click.option("--against", metavar="OTHER", type=CORPUS, help="Another one: before.")
@click.option("--picture", metavar="FILE.png", type=TO_WRITE, help="Draw the balance.")
@click.option(
    "--target", metavar="uniform|FILE.csv", default="uniform", show_default=True, help="Shares of characters wanted."
)
@click.option("--html", metavar="FILE.html", type=TO_WRITE, help="Write a page with its plates.")
@AS_JSON
def inspect(corpus, form, against, picture, target, html, as_json) -> None:
    """Count characters, lengths and layouts.

    Says how even they are, too, and which labels stand in two splits. CORPUS is a folder of labelled plates, its file
    of labels, or the folder of a run; so is OTHER. FILE.csv has the columns position,character,share (positions count
    from 0), or character,share for all positions.
    """
    from platemint.pipeline.balance.shares import read_target
    from platemint.pipeline.report.inspect import counts_as_text, inspect

    if picture and picture.suffix.lower() != ".png":
        raise click.BadParameter(f"{picture}: the picture is a PNG, its name ends in .png", param_hint="--picture")
    target = read_target(target)
    report = inspect(corpus, against, target, form or "auto")
    if picture:
        from platemint.pipeline.report.heatmap import draw
        from platemint.pipeline.storage import encode, write

        write(picture, encode(draw(report), "png", 0))
    if html:
        from platemint.pipeline.report.corpus_page import corpus_page
        from platemint.pipeline.storage import write

        write(html, corpus_page(report, corpus, form or "auto"))
    _print(report, as_json, counts_as_text)


@main.command(name="report")
@click.argument("run", type=RUN)
@click.option("--sources", is_flag=True, help="Write report-sources.html, with photographs beside their edits.")
def report(run, sources) -> None:
    """Write report.html, a page about a finished run.

    What was asked and made, balance, scores, why plates were dropped, and a wall of plates that filters. One file that
    loads nothing. Every run writes it at its end, without photographs of a corpus. With --sources they are shown, in
    report-sources.html, which is not for passing on. If lpr.json of `evaluate lpr` lies in RUN, its table is shown, too.
    The page of an anonymized dataset is the one that its run has written: the audit, then new plates cut out of the
    output, and no picture, path or text of the source.
    """
    from platemint.pipeline.anonymize.plan import AUDIT, PAGE
    from platemint.pipeline.report.run_page import write_page

    if not (run / AUDIT).is_file():
        click.echo(write_page(run, sources))
    elif sources:
        raise click.UsageError(f"--sources: {run} is an anonymized dataset: no page of it shows what it was made from")
    elif not (run / PAGE).is_file():
        raise WrongUse(f"{run}: has no {PAGE}, which anonymize writes at its end: start the run again")
    else:
        click.echo(run / PAGE)


@main.command(name="grammar")
@click.argument("spec")
@FORMAT
@AS_JSON
def grammar(spec, form, as_json) -> None:
    """Show which texts there are.

    SPEC is faker:LOCALE, the name or file of a layout, or a corpus, whose labels' patterns are read off.
    """
    from dataclasses import asdict

    from platemint.pipeline.balance.grammar import grammar_as_text, read_grammar

    read = read_grammar(spec, form or "auto")
    _print(asdict(read), as_json, lambda _: grammar_as_text(read))


@main.command(name="verify")
@click.argument("run", type=RUN)
@click.option("--against", metavar="CORPUS", type=FOLDER, help="RUN is an anonymized folder: check it against this.")
@click.option("--format", "form", metavar="NAME", default="", help="Format of CORPUS, where several fit.")
@click.option("--class", "classes", metavar="NAME", multiple=True, help="A class of plates of CORPUS, as it was given.")
@click.option("--repair", is_flag=True, help="First make again what is missing or damaged, and nothing else.")
@ACCEPT_VERSIONS
@AS_JSON
def verify(run, against, form, classes, repair, accept_versions, as_json) -> None:
    """Check a finished run.

    Decodes every image, recounts labels, checks hashes, quotas and invariants. RUN is a run's folder. With --against,
    RUN is the folder of an anonymized dataset and CORPUS the dataset it was made from: no text of CORPUS in any label,
    name or byte, no metadata, nothing changed outside of plates, figures as audit.json has them; faults name real texts
    and are not for passing on. Exit code 1 on any fault.
    --repair makes the shards again of which a file is missing or has a wrong hash, from the sources and networks the run
    was made with; they come to the same bytes. An export beside the run is made where it is missing, and never looked into. An anonymized folder cannot be repaired, its secret being gone: anonymize
    it again with --overwrite.
    """
    from dataclasses import asdict

    from platemint.pipeline import run as runs
    from platemint.pipeline import stages
    from platemint.pipeline.anonymize.compare import verify_against
    from platemint.pipeline.verify import verify

    if (form or classes) and not against:
        raise click.UsageError("--format and --class: are about the CORPUS of --against")
    if repair and against:
        raise click.UsageError("--repair: an anonymized folder is made again by anonymize --overwrite")
    if against and not isinstance(run, Path):
        raise click.UsageError(
            "--against: an anonymized folder has to be on this machine: copy it from the store first"
        )
    for commit in runs.repair(run, _messages(), stages.Stages, accept_versions) if repair else ():
        _notice(f"{commit}: its shard was made again")
    report = verify_against(run, against, form, _messages(), classes) if against else verify(run)
    _print(asdict(report), as_json, lambda _: "\n".join([*report.faults, report.summary]))
    sys.exit(1 if report.faults else 0)


@main.command(name="export")
@click.argument("run", type=CORPUS)
@click.option("--to", "form", metavar="FORMAT", required=True, help="Such as fast-plate-ocr, lmdb, yolo.")
@click.option(
    "--out",
    metavar="DIR",
    required=True,
    type=PathOrUrl(stores=True),
    help="Folder written; it is not there yet, or empty.",
)
def export(run, form, out) -> None:
    """Write plates in the form that a trainer reads.

    RUN is the folder of a finished run, or Parquet with pictures and texts. FORMAT is fast-plate-ocr, paddleocr, lmdb,
    webdataset, mds, imagefolder, ccpd or yolo. DIR appears once it is whole. Exit code 3 where rows are set aside, since
    the format cannot hold them: set_aside.csv says which and why.
    """
    from platemint.pipeline.exports import export

    exported = export(run, form, out, _messages())
    click.echo(exported)
    sys.exit(3 if exported.set_aside else 0)


@main.command(name="export-networks")
@click.option("--checkpoint", metavar="F", help="Generator: a name in models/checkpoints or a file.")
@click.option("--reader", metavar="F", help="Reader, likewise.")
@click.option("--finder", metavar="F", help="Finder, likewise.")
@click.option("--out", metavar="DIR", required=True, type=PathOrUrl(stores=True), help="Folder written.")
@AS_JSON
def export_networks(checkpoint, reader, finder, out, as_json) -> None:
    """Write generator, reader and finder as ONNX, for programs without torch.

    Each is compared with torch, and not written where the two differ. networks.json says what goes in and out, with
    alphabets and sizes. Composing an edit at the size of a photograph is the caller's.
    """
    from platemint.pipeline.export_networks import export_networks, networks_as_text
    from platemint.pipeline.recipe import Edit

    defaults = Edit()
    names = (checkpoint or defaults.checkpoint, reader or defaults.reader, finder or defaults.finder)
    facts = export_networks(*names, out)
    _print(facts, as_json, lambda _: networks_as_text(facts, out))


@main.group(name="evaluate", cls=Verbs, epilog=_examples([EXAMPLES["evaluate"]]))
def evaluate() -> None:
    """Measure what the networks do, on plates that training never sees."""


@evaluate.command(name="edits", example="evaluate edits --source photos/labels.csv --out outputs/evaluation")
@click.option("--checkpoint", metavar="F", help="Generator: a name in models/checkpoints or a file.")
@click.option("--reader", metavar="F", help="Reader that judges, likewise.")
@click.option("--source", metavar="CORPUS", type=CORPUS, help="Real plates, too.")
@FORMAT
@click.option(
    "--references", type=click.Choice(["auto", "none"]), help="none: without the letters that other plates show."
)
@click.option("--split", metavar="NAME", help="Split of the corpus.  [default: val if it has one, else all]")
@click.option("--count", type=click.IntRange(1), metavar="N", default=200, show_default=True, help="Plates of a kind.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="S", default=0, show_default=True, help="Of pairs.")
@click.option("--out", metavar="DIR", type=PathOrUrl(), help="Folder for all figures and sheets of the worst edits.")
@AS_JSON
def edits(checkpoint, reader, source, form, references, split, count, seed, out, as_json) -> None:
    """Measure edits of rendered pairs and of real plates.

    Pairs are rendered from layouts and fonts outside of training, and compared with the true target. Real plates are
    read before and after. Every figure stands beside that of a copy of the source.
    """
    from platemint.pipeline.corpora import here
    from platemint.pipeline.evaluate.edits import Edits, edits_as_text, evaluate_edits

    options = _edit_options(checkpoint=checkpoint, reader=reader, references=references)
    measured = Edits(options, source and here(source), split, count, seed, form or "auto")
    _print(evaluate_edits(measured, _messages(), out), as_json, edits_as_text)


@evaluate.command(name="leak", example="evaluate leak --source photos/labels.csv --count 3000 --steps 1000")
@click.option("--source", metavar="CORPUS", type=CORPUS, required=True, help="Plates.")
@FORMAT
@click.option("--checkpoint", metavar="F", help="Generator: a name in models/checkpoints or a file.")
@click.option("--reader", metavar="F", help="Reader that checks edits and that the probe starts from, likewise.")
@click.option("--split", metavar="NAME", default="", help="Split of the corpus.  [default: all]")
@click.option("--count", type=click.IntRange(1), metavar="N", default=1500, show_default=True, help="Edits to try.")
@click.option("--steps", type=click.IntRange(1), metavar="N", default=600, show_default=True, help="Of each probe.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="S", default=0, show_default=True, help="Of it all.")
@AS_JSON
def leak(source, form, checkpoint, reader, split, count, steps, seed, as_json) -> None:
    """Try to guess the source's text from edited plates.

    A reader is trained to, on edits that anonymize would let out and their true texts, and tested on other plates; the
    same on blurred and on untouched ones. Chance is what a constant guess or another plate's prediction gets right.
    """
    from platemint.pipeline.corpora import here
    from platemint.pipeline.evaluate.leak import Leak, evaluate_leak, leak_as_text

    options = _edit_options(checkpoint=checkpoint, reader=reader)
    measured = Leak(options, here(source), split, count, seed, form or "auto")
    _print(evaluate_leak(measured, steps, _messages()), as_json, leak_as_text)


@evaluate.command(name="lpr", example="evaluate lpr --train outputs/mine --test photos/labels.csv --fractions 0.1,1")
@click.option("--train", metavar="DIR", multiple=True, type=RUN, help="Runs made of the real plates; may be repeated.")
@click.option("--test", metavar="CORPUS", required=True, type=CORPUS, help="Real plates.")
@click.option(
    "--split", metavar="NAME", default="", help="Split to test on.  [default: val and test; else drawn by text]"
)
@click.option("--fractions", metavar="F,F", default="1", show_default=True, help="Parts of the other real plates.")
@click.option(
    "--count", type=click.IntRange(1), metavar="N", default=2000, show_default=True, help="Rendered, permuted."
)
@click.option("--steps", type=click.IntRange(1), metavar="N", default=1500, show_default=True, help="Of each training.")
@click.option(
    "--seeds", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="Trainings of each kind."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="S", default=0, show_default=True, help="Of draws.")
@click.option("--against-own", is_flag=True, help="Also edits that are given the real plates' texts.")
@click.option("--out", metavar="DIR", type=PathOrUrl(), help="Folder for lpr.json and lpr.png.")
@AS_JSON
def lpr(train, test, split, fractions, count, steps, seeds, seed, against_own, out, as_json) -> None:
    """Train a small recogniser on real plates, on edits of them and on both, and test it on others.

    Beside them plain augmentation, permuted characters and rendered plates, all with equal steps. Made plates whose text
    or source is tested are left out.
    """
    import json

    from platemint.pipeline.corpora import here
    from platemint.pipeline.evaluate.lpr import Lpr, evaluate_lpr, lpr_as_text, plot
    from platemint.pipeline.recipe import Edit
    from platemint.pipeline.storage import write

    runs, test = [here(run) for run in train], here(test)
    report = evaluate_lpr(
        Lpr(Edit(), runs, test, split, seed), _parts(fractions), steps, seeds, count, against_own, _messages()
    )
    if out:
        write(out / "lpr.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        plot(report, out / "lpr.png")
    _print(report, as_json, lpr_as_text)


@evaluate.command(name="realism", example="evaluate realism --source photos/labels.csv --count 500")
@click.option("--source", metavar="CORPUS", type=CORPUS, required=True, help="Plates.")
@click.option("--checkpoint", metavar="F", help="Generator: a name in models/checkpoints or a file.")
@click.option("--split", metavar="NAME", default="", help="Split of the corpus.  [default: all]")
@click.option("--count", type=click.IntRange(1), metavar="N", default=500, show_default=True, help="Plates, at most.")
@click.option("--steps", type=click.IntRange(1), metavar="N", default=120, show_default=True, help="Of each training.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), metavar="S", default=0, show_default=True, help="Of it all.")
@click.option(
    "--features/--no-features", default=True, help="Also in features of PP-OCRv4 (extra realism).  [default: yes]"
)
@AS_JSON
def realism(source, checkpoint, split, count, steps, seed, features, as_json) -> None:
    """Measure how far edits are from photographs, on patches around strokes and on whole plates.

    Two classifiers try to tell them apart and are tested on plates that they have not learned from: one is trained from
    scratch, one is linear on features of PP-OCRv4, a text recogniser that was not trained on these plates. In its
    features the Frechet distance is measured, too. Rendered plates, and photographs compressed once more, stand beside.
    """
    from platemint.pipeline.corpora import here
    from platemint.pipeline.evaluate.features import Features
    from platemint.pipeline.evaluate.realism import edits_with_texts_of_others, evaluate_realism, realism_as_text

    seen = Features() if features else None
    edits = edits_with_texts_of_others(here(source), _edit_options(checkpoint=checkpoint), split, count, seed)
    _print(evaluate_realism(edits, steps, seed, seen, _messages()), as_json, realism_as_text)


def _edit_options(**given: str | None) -> Edit:
    """The defaults but for what was given."""
    from platemint.pipeline.recipe import Edit

    return Edit(**{name: value for name, value in given.items() if value})


def _parts(fractions: str) -> list[float]:
    try:
        parts = [float(part) for part in fractions.split(",")]
    except ValueError:
        parts = []
    if not parts or not all(0 < part <= 1 for part in parts):
        raise click.BadParameter(
            f"{fractions}: must be parts above 0 and up to 1, as in 0.05,0.2,1", param_hint="--fractions"
        )
    return parts


if __name__ == "__main__":
    main()
