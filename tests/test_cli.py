"""The command line: exit codes, messages, and answers in time."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stand_ins
from click.testing import CliRunner

from platemint import run_pipeline

PROGRAM = Path(run_pipeline.__file__)
VERBS = list(run_pipeline.EXAMPLES)


@pytest.fixture
def call(monkeypatch):
    """Calls the program with stand-in stages; a traceback fails the test, since a user must never see one."""
    monkeypatch.setattr("platemint.pipeline.stages.Stages", stand_ins.Lucky)

    def call(*args):
        result = CliRunner().invoke(run_pipeline.main, [str(arg) for arg in args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call


def generate(call, out, *more):
    return call(
        "generate",
        "--count",
        40,
        "--out",
        out,
        "--set",
        "filter.rounds=90",
        "--set",
        "edit.batch=8",
        "--set",
        "filter.min_reader=0.35",
        *more,
    )


def test_help_answers_at_once_and_loads_nothing_heavy():
    def seconds():
        start = time.perf_counter()
        subprocess.run([sys.executable, PROGRAM, "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5
    listing = "import sys; from platemint import run_pipeline; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", listing], text=True, cwd=PROGRAM.parent).split()
    assert not {"numpy", "torch", "cv2", "pandas", "pyarrow", "pydantic", "yaml", "joblib"} & set(loaded)


def test_help_has_one_example_per_verb(call):
    whole = call("--help").output
    for verb in VERBS:
        example = f"python run_pipeline.py {run_pipeline.EXAMPLES[verb]}"
        assert whole.count(example) == 1 and call(verb, "--help").output.count(example) == 1


def test_examples_name_options_and_recipes_there_are(call):
    from platemint.pipeline.recipe import load_recipe

    for verb, example in run_pipeline.EXAMPLES.items():
        helped = call(verb, "--help").output
        assert all(option in helped for option in re.findall(r"--\w+", example))
        if verb in ("generate", "train"):
            _, name, *rest = example.split()
            sets = [word for word in rest if "=" in word]
            load_recipe(name, sets, verb)


@pytest.mark.parametrize(
    "args, said",
    [
        (["generat"], "generate"),
        (["generate", "--cout", "3"], "--count"),
        (["generate", "--count", "x"], "--count"),
        (["generate", "--count", "0"], "--count: count: must be greater than or equal to 1, not 0"),
        (["generate", "quikstart"], "did you mean quickstart?"),
        (["generate", "--set", "filter.min_raeder=1"], "filter.min_raeder: unknown field (did you mean min_reader?)"),
        (["train", "--set", "nmae=x"], "nmae: unknown field (did you mean name?)"),
        (["train", "quickstart"], "task: a recipe for 'generate'"),
        (["inspect", "/nope"], "/nope"),
        (["verify", "/nope"], "/nope"),
        (["edit", "--input_dir", "/"], "--input_text"),
    ],
)
def test_wrong_use_exits_2_and_says_what_to_mend(call, args, said):
    result = call(*args)
    assert result.exit_code == 2 and said in result.output


def test_sources_that_cannot_be_opened_are_wrong_use(tmp_path):
    for args, said in [
        (["--source", tmp_path / "nope"], "no such folder or file"),
        (["--source", tmp_path], "no labelled plates found here"),
        (["--set", "source.layouts=[ukk]"], "ukk"),
    ]:
        result = CliRunner().invoke(run_pipeline.main, ["generate", *map(str, args)])
        assert result.exit_code == 2 and said in result.output and isinstance(result.exception, SystemExit)


def test_more_plates_than_there_are_texts_is_a_wrong_recipe(call, tmp_path):
    result = generate(call, tmp_path / "run", "--count", 30_000)
    assert result.exit_code == 2 and "short/train/LLD" in result.output and not any(tmp_path.iterdir())


def test_generate_inspect_verify(call, tmp_path):
    out = tmp_path / "run"
    assert generate(call, out).exit_code == 0
    assert "40 plates" in generate(call, out).output  # again: nothing is left to do
    assert json.loads(call("inspect", out, "--json").output)["plates"] == 40
    assert "40 plates" in call("inspect", out).output
    assert call("verify", out).exit_code == 0

    shard = next((out / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    damaged = call("verify", out)
    assert damaged.exit_code == 1 and shard.name in damaged.output


def test_another_recipe_in_the_same_folder_exits_2(call, tmp_path):
    generate(call, tmp_path / "run")
    result = generate(call, tmp_path / "run", "--seed", 5)
    assert result.exit_code == 2 and "seed was 0, is 5" in result.output


def test_a_quota_that_cannot_be_filled_exits_3_and_is_printed(call, tmp_path, monkeypatch):
    monkeypatch.setattr("platemint.pipeline.stages.Stages", stand_ins.NoQ)
    result = generate(call, tmp_path / "run")
    assert result.exit_code == 3
    assert re.search(r"are missing.*(\n\s+\d: .*)*\n\s+0: Q:\d \(reader \d+", result.output)


def test_dry_run_shows_the_recipe_and_writes_nothing(call, tmp_path):
    result = generate(call, tmp_path / "run", "--seed", 4, "--dry-run")
    assert result.exit_code == 0 and not any(tmp_path.iterdir())
    quota = "0/ABCDEFGHIJKLMNOPQRSTUVWXYZ: 1 to 2"
    for said in ("seed: 4", "rounds: 90", quota, "shards: 2", "disk: about", "time: about"):
        assert said in result.output


@pytest.mark.parametrize(
    "number, exit_code", [(errno.EACCES, 2), (errno.ENAMETOOLONG, 2), (errno.EIO, 1), (errno.ENOSPC, 1)]
)
def test_a_fault_of_the_system_is_named_without_a_traceback(call, tmp_path, monkeypatch, number, exit_code):
    def failing(self):
        raise OSError(number, "said so", str(self))

    monkeypatch.setattr(Path, "iterdir", failing)
    result = call("inspect", tmp_path)
    assert result.exit_code == exit_code and f"{tmp_path}: said so" in result.output


# ------------------------------------------------------------------------------------------------------------- in a shell


def commands(group=run_pipeline.main, path=()):
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]


@pytest.mark.parametrize("path", [*commands()], ids=" ".join)
def test_help_of_each_verb_has_its_exit_codes_and_quiet(call, path):
    said = " ".join(call(*path, "--help").output.split())
    codes = said.partition("Exit codes: ")[2]
    assert all(f"{code} " in codes for code in (0, 1, 2, 130)) and "-q, --quiet" in said
    assert ("; 3 " in codes) == (path[-1] in ("generate", "rebalance", "anonymize", "export"))


def test_results_go_to_stdout_and_messages_to_stderr_or_nowhere(call, tmp_path):
    loud = generate(call, tmp_path / "loud")
    assert loud.stdout == f"{tmp_path / 'loud'}: 40 plates\n" and "40 of 40 plates" in loud.stderr
    quiet = generate(call, tmp_path / "quiet", "--quiet")
    assert quiet.stdout == f"{tmp_path / 'quiet'}: 40 plates\n" and quiet.stderr == ""


def test_quiet_keeps_what_is_left_to_do(call, tmp_path, monkeypatch):
    monkeypatch.setattr("platemint.pipeline.stages.Stages", stand_ins.NoQ)
    result = generate(call, tmp_path / "run", "-q")
    assert result.exit_code == 3 and "are missing" in result.stderr


def test_what_is_printed_as_a_table_is_printed_as_json(call, tmp_path):
    run = tmp_path / "run"
    generate(call, run)
    verified = json.loads(call("verify", run, "--json").stdout)
    assert verified["plates"] == 40 and verified["faults"] == []
    next((run / "data").glob("*.parquet")).unlink()
    damaged = call("verify", run, "--json")
    assert damaged.exit_code == 1 and json.loads(damaged.stdout)["faults"]
    form = json.loads(call("grammar", "uk", "--json").stdout)["forms"][0]
    assert form["template"].count("?") == len(form["positions"]) == 7


@pytest.mark.parametrize(
    "words, offered",
    [
        (["gen"], "generate"),
        (["evaluate", "ed"], "edits"),
        (["generate", "--overw"], "--overwrite"),
        (["generate", "quick"], "quickstart"),
        (["inspect", "--format", "web"], "webdataset"),
    ],
)
def test_a_shell_completes_verbs_options_recipes_and_formats(words, offered):
    from click.shell_completion import BashComplete

    shell = BashComplete(run_pipeline.main, {}, "platemint", "_PLATEMINT_COMPLETE")
    assert offered in [item.value for item in shell.get_completions(words[:-1], words[-1])]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_completion_is_printed(shell):
    program = "from platemint.run_pipeline import main; main(prog_name='platemint')"
    environment = os.environ | {"_PLATEMINT_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-c", program]
    script = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert "_PLATEMINT_COMPLETE" in script and f"{shell}_complete" in script


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["generat"]])
def test_no_colour_is_used_on_a_terminal(arguments):
    """Nor where colours are asked for: so NO_COLOR is kept to without being read."""
    import pty

    inside, outside = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "FORCE_COLOR": "1"}
    command = [sys.executable, PROGRAM, *arguments]
    with subprocess.Popen(command, stdout=outside, stderr=outside, env=environment) as program:
        program.wait()
    shown = os.read(inside, 1 << 16)
    os.close(inside), os.close(outside)
    assert b"platemint" in shown or b"run_pipeline" in shown
    assert b"\x1b[" not in shown
