"""``trainer.strategy=fsdp``: parameters, gradients and moments lie in shards, one on each rank (FSDP2).

Each layer of either half, and each grafted cross-attention, is gathered when it runs and given up again. What several
modules share (tied embeddings, bridge.share) stays in the outermost unit: a parameter belongs to one unit alone.

Checkpoints are those of one process: whole tensors under the same names, in one file that rank 0 writes, so that every
task, and a fit under another strategy, takes them. A validation runs on gathered parameters: its batches and its
generated tokens are not equally many on all ranks, and a rank that gathers alone waits forever.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.parallel import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from warmstart.model.bridge.grafting import outermost_lists


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, which leaves to its user what is sharded, with whole checkpoints.

    Lightning's own single file is read past our checkpoint plugin, so without its checks, and numbers moments by the
    model's parameters, where any other strategy numbers them by the optimizer's groups.
    """

    def __init__(self, ranks: int, timeout: timedelta | None = None) -> None:
        super().__init__(
            data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout
        )

    # --- a fit -----------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any) -> None:
        module: Any = self.lightning_module
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(module)
        shard(module.model, self.device_mesh["data_parallel"], self.root_device)
        self.model_to_device()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def on_validation_start(self) -> None:
        for unit in self._units():
            unit.unshard()
            unit.set_reshard_after_forward(False, recurse=False)

    def on_validation_end(self) -> None:
        for unit in self._units():
            unit.set_reshard_after_forward(unit is not self._root, recurse=False)
        # Reshards, and forgets in which order units ran: the next backward pass gathers ahead by that order, and it has
        # to be the same on all ranks.
        self._root.reset_iter_state()

    def teardown(self) -> None:
        ParallelStrategy.teardown(self)  # ModelParallelStrategy's leaves shards and moments on the device

    @property
    def _root(self) -> Any:
        module: Any = self.lightning_module
        return module.model

    def _units(self) -> Iterator[FSDPModule]:
        return (module for module in self._root.modules() if isinstance(module, FSDPModule))

    # --- checkpoints -----------------------------------------------------------------------------------------------

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return False  # into whole parameters, before they are sharded

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        ParallelStrategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                i: {name: _sharded_like(value, parameters[i]) for name, value in values.items()}
                for i, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors on rank 0, nothing on the others; what is shared is there once, under each of its names."""
        assert self.lightning_module is not None
        whole: dict[int, Tensor | None] = {}
        named = self.lightning_module.state_dict(keep_vars=True)
        for tensor in named.values():
            if id(tensor) not in whole:
                whole[id(tensor)] = self._whole(tensor.detach())
        return {name: whole[id(tensor)] for name, tensor in named.items()} if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """As :meth:`lightning_module_state_dict`, of the moments."""
        state = (optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()
        whole = {
            i: {name: self._whole(value) for name, value in values.items()} for i, values in state["state"].items()
        }
        return {**state, "state": whole} if self.is_global_zero else {}

    def _whole(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.full_tensor() if isinstance(value, DTensor) else value
        return value.cpu() if self.is_global_zero else None


def shard(model: Any, mesh: Any, device: torch.device) -> None:
    """Shard a joined model over ``mesh`` in place; what is no unit of its own belongs to the model as a whole."""
    for unit in [*units(model), model]:
        unit.to(device)
        for tensor in [*unit.parameters(), *unit.buffers()]:
            if not isinstance(tensor, DTensor):  # a unit within this one
                torch.distributed.broadcast(tensor.detach(), 0)  # as DDP does, whatever each rank has drawn
        fully_shard(unit, mesh=mesh)
    register_fsdp_forward_method(model, "training_loss")


def units(model: Any) -> list[nn.Module]:
    """Layers of either half and grafted cross-attentions, without those that share a parameter with another module."""
    candidates = [
        layer for half in (model.encoder, model.decoder) for layers in outermost_lists(half) for layer in layers
    ]
    candidates += list(getattr(model, "cross_attention", {}).values())
    users = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    found = []
    for candidate in candidates:
        within = Counter(id(p) for _, p in candidate.named_parameters(remove_duplicate=False))
        if within and all(users[p] == count for p, count in within.items()):
            found.append(candidate)
    return found


def _sharded_like(value: Any, parameter: Tensor) -> Any:
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
