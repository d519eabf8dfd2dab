"""Weights, gradients and optimiser state cut into shards over the processes, for models too large for one device.

FSDP of PyTorch: each process keeps a part of every tensor and gathers a block's weights while it computes the block.
What the rest of the library sees stays a whole model: the first process gathers the shards into it before it validates
and before a checkpoint is written.
"""

import copy
from typing import Any

import torch
from torch import nn

from tesserec.training.checkpoints import Weights


class Shards:
    """A model's shards on this process' device.

    Attributes:
        network: the sharded model; what it returns and learns is what the whole one would.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """Cut a copy of the model: each of `model.blocks`, where it has such, apart, and the rest together."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        network = copy.deepcopy(model)
        for block in getattr(network, "blocks", ()):
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
        self.network: Any = network

    def sync(self, on: bool) -> None:
        """Whether the next backward pass adds up gradients over the processes."""
        self.network.set_requires_gradient_sync(on)

    def weights(self) -> Weights:
        """The whole model's weights, on the CPU of the first process; empty in the others. All must call it."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        found: Any = get_model_state_dict(self.network, options=_whole())
        return dict(found)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole optimiser state, on the CPU of the first process. All must call it."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        found: dict[str, Any] = get_optimizer_state_dict(self.network, optimizer, options=_whole())
        return found

    def restore(self, weights: Weights, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Cut whole weights and optimiser state, which every process has read, into the shards again."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.network, dict(weights), options=options)
        set_optimizer_state_dict(self.network, optimizer, state, options=options)


def _whole() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)
