"""A trained network on disk: safetensors for the weights, JSON for how the training went."""

from dataclasses import asdict
from pathlib import Path

from torch import nn

from tesserec.artifacts import read_json, write_json
from tesserec.training.loop import TrainingLog

WEIGHTS, LOG = "weights.safetensors", "training_log.json"


def write_network(folder: Path, network: nn.Module, log: TrainingLog) -> None:
    """Write weights and training log into the folder of an artefact."""
    from safetensors.torch import save_file

    save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS)
    write_json(folder / LOG, asdict(log))


def read_network(folder: Path, network: nn.Module) -> TrainingLog:
    """Read what `write_network` wrote into a network of the same configuration; it is left in evaluation mode.

    Raises:
        OSError, ValueError: a file is missing, damaged, or of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{WEIGHTS}: {error}") from None
    network.eval()
    return TrainingLog(**read_json(folder / LOG))
