"""Networks on disk: safetensors (no pickle), with the network's kind and config in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

MOST_SIZE = 4096  # of anything that a config says: channels, layers, pixels
MOST_REASON = 300  # characters of a fault that are shown: it may quote the file
# Of a file that is none of ours, whose config may be anything; RecursionError is a RuntimeError.
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
OF_REFERENCES = ("C_d.typeface.", "C_d.trust", "C_d.at_half.0.weight")  # of an SPG; the last is wider with them
FOLDER = Path(__file__).parent / "checkpoints"


class CheckpointError(Exception):
    """The file cannot be loaded; the message names it and says why."""


def _kinds() -> dict:
    from platemint.models.finder import Finder, FinderConfig
    from platemint.models.reader import Reader, ReaderConfig
    from platemint.models.spg import SPG, SPGConfig

    return {"spg": (SPG, SPGConfig), "reader": (Reader, ReaderConfig), "finder": (Finder, FinderConfig)}


def per_character(network: nn.Module) -> list[str]:
    """The names of a network's weights that have a row for padding, or blank, and one for each of its characters."""
    with torch.device("meta"):
        other = type(network)(replace(network.config, alphabet=network.config.alphabet + "\0")).state_dict()
    return [name for name, weight in network.state_dict().items() if weight.shape != other[name].shape]


def grown(network: nn.Module, nearest: dict[str, str]) -> nn.Module:
    """The same network with more characters: every weight that there is one of per character gets more rows.

    nearest: {new character: one of the network's alphabet}, from whose weights it starts. What it gave for texts of
    its own alphabet it gives still.
    """
    if not nearest:
        return network
    config, old = network.config, network.state_dict()
    grown = type(network)(replace(config, alphabet=config.alphabet + "".join(nearest)))
    like = [1 + config.alphabet.index(c) for c in nearest.values()]  # 0 is padding, or blank
    new = grown.state_dict()
    new |= old | {name: torch.cat([old[name], old[name][like]]) for name in per_character(network)}
    grown.load_state_dict(new)
    return grown.to(memory_format=torch.channels_last).train(network.training)


def find_checkpoint(name: str) -> Path:
    """The file of a shipped checkpoint ('spg-small') or of a path. Raises CheckpointError where there is none."""
    shipped = FOLDER / f"{name}.safetensors"
    if shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.safetensors"))) or "none"
    raise CheckpointError(f"{name}: neither a checkpoint file nor one that ships ({names})")


def save(network: nn.Module, path: Path, half: bool = False, **notes: str) -> None:
    """Writes weights and config; half stores float16, for shipping. The write is atomic. notes go into the metadata."""
    from safetensors.torch import save_file

    kind = type(network).__name__.lower()
    weights = {k: (v.half() if half else v.float()).contiguous() for k, v in network.state_dict().items()}
    config = json.dumps(asdict(network.config), ensure_ascii=False)
    temporary = path.with_name(path.name + ".tmp")
    save_file(weights, str(temporary), metadata={"kind": kind, "config": config, **notes})
    temporary.chmod(0o644)  # safetensors makes it the owner's only; weights are for everyone
    temporary.replace(path)


def checkpoint_alphabet(name: str, kind: str) -> str:
    """What a checkpoint's network can spell or read, known without its weights. Raises CheckpointError as `load` does."""
    from safetensors import SafetensorError, safe_open

    path = find_checkpoint(name)
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
        _expect(kind, metadata, path)
        return _config(metadata)["alphabet"]
    except (SafetensorError, *FAULTS) as fault:
        raise _unreadable(path, fault) from None


def _config(metadata: dict[str, str]) -> dict[str, Any]:
    """Raises ValueError for an alphabet that is not a text of different characters."""
    fields = json.loads(metadata["config"])
    alphabet = fields.get("alphabet", "")
    if not isinstance(alphabet, str) or len({*alphabet}) < len(alphabet):
        raise ValueError("its alphabet is not a text of different characters")
    return fields


def _unreadable(path: Path, fault: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: not a checkpoint this version can read: {str(fault)[:MOST_REASON]}")


def _expect(kind: str, metadata: dict[str, str], path: Path) -> None:
    if metadata.get("kind") != kind:
        raise CheckpointError(f"{path}: holds a {metadata.get('kind')!r} network, {kind!r} is needed")


def _refuse_misfits(weights: dict[str, torch.Tensor], network_class: type, config: Any, added: tuple[str, ...]) -> None:
    """Raises ValueError for weights that are not numbers, or of another network than the config's, which is not built.

    added: how weights begin that are not in the file, or of another shape there.
    """
    sizes = [size for value in asdict(config).values() for size in (value if isinstance(value, tuple) else (value,))]
    if any(isinstance(size, int | float) and not 0 <= size <= MOST_SIZE for size in sizes):
        raise ValueError(f"its config has a size below 0 or above {MOST_SIZE:,}")
    with torch.device("meta"):
        wanted = {key: weight.shape for key, weight in network_class(config).state_dict().items()}
    keys = [key for key in {**wanted, **weights} if not key.startswith(added)]
    if misfits := [key for key in keys if wanted.get(key) != getattr(weights.get(key), "shape", None)]:
        raise ValueError(f"{len(misfits)} weights are not of its config, such as {misfits[0]}")
    if broken := [key for key, weight in weights.items() if not weight.isfinite().all()]:
        raise ValueError(f"{broken[0]} holds what is no number")


def load(name: str, kind: str) -> nn.Module:
    """The network of a checkpoint, float32, channels_last, in eval mode, on the CPU.

    kind: 'spg', 'reader' or 'finder'. Raises CheckpointError for a missing, broken or foreign file.
    """
    from safetensors import SafetensorError, safe_open

    path = find_checkpoint(name)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (safe_open is no dictionary)
        _expect(kind, metadata, path)
        network_class, config_class = _kinds()[kind]
        fields = _config(metadata)
        config = config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        without_references = kind == "spg" and "typeface" not in fields
        _refuse_misfits(weights, network_class, config, OF_REFERENCES if without_references else ())
        network = network_class(config)
        if without_references:
            _add_references(weights, network)
        network.load_state_dict(weights)
    except (SafetensorError, *FAULTS) as fault:
        raise _unreadable(path, fault) from None
    return network.to(memory_format=torch.channels_last).eval()


def _add_references(weights: dict[str, torch.Tensor], network: nn.Module) -> None:
    """Makes the weights of an SPG without references those of one that takes no notice of them yet."""
    *new, first = OF_REFERENCES
    wanted = network.state_dict()
    weights |= {name: value for name, value in wanted.items() if name.startswith(tuple(new))}
    padded = torch.zeros_like(wanted[first])
    padded[:, : weights[first].shape[1]] = weights[first]
    weights[first] = padded
