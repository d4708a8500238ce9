"""Networks of the shipped shape with random weights: enough for every property that must hold whatever was learned.

And file systems that are full or cannot be written.
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from platemint import run_pipeline
from platemint.models import checkpoint
from platemint.models.finder import Finder, FinderConfig
from platemint.models.reader import Reader, ReaderConfig
from platemint.models.spg import SPG, SPGConfig
from platemint.pipeline.plate import ALPHABET, READABLE
from platemint.pipeline.recipe import Edit

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads would only get into each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of programs that tests start
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Edit:
    """Options that name an untrained generator, reader and finder."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    networks = {
        "spg": SPG(SPGConfig(ALPHABET)),
        "reader": Reader(ReaderConfig(READABLE)),
        "finder": Finder(FinderConfig()),
    }
    for name, network in networks.items():
        for weight in network.parameters():  # layers that start at zero would make many a property hold by accident
            weight.data += 0.02 * torch.randn_like(weight)
        checkpoint.save(network, folder / f"{name}.safetensors")
    files = {"checkpoint": "spg", "reader": "reader", "finder": "finder"}
    return Edit(**{field: str(folder / f"{name}.safetensors") for field, name in files.items()}, batch=8)


@pytest.fixture
def mounted(tmp_path):
    """Mounts a file system of a given kind and hands out its folder; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting needs root")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def call(monkeypatch):
    """Calls `anonymize` of the program with stand-in networks; a traceback fails the test."""
    import stand_ins

    monkeypatch.setattr("platemint.pipeline.anonymize.plan.Anonymizer", stand_ins.Stamps)

    def call(*args):
        result = CliRunner().invoke(run_pipeline.main, ["anonymize", *map(str, args)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return call
