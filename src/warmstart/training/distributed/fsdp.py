"""``trainer.strategy=fsdp``: each rank holds a shard of parameters, gradients and optimizer state (FSDP2).

Each layer of the encoder and decoder, and each grafted cross-attention, is an FSDP unit: it is gathered when it runs
and resharded afterwards. A parameter belongs to exactly one unit, so parameters that several modules share (tied
embeddings, bridge.share) stay in the outermost unit.

Checkpoints have the format of a fit on one device: whole tensors under the same names, in one file that rank 0 writes.
So every task, and a fit with another strategy, can load them. Parameters stay gathered during a validation. The ranks
then have different numbers of batches and generated tokens, and a rank that gathers without the others waits forever.
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
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from warmstart.errors import UserError
from warmstart.model.bridge.grafting import outermost_lists


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy with our choice of units, and with whole checkpoints.

    Lightning can write whole checkpoints too, but reads them without our checkpoint plugin and so without its checks.
    It also numbers optimizer state by the model's parameters, while other strategies number it by parameter groups.

    Args:
        ranks: number of ranks.
        timeout: timeout of collective calls.
    """

    def __init__(self, ranks: int, timeout: timedelta | None = None) -> None:
        """Pass the settings to Lightning."""
        super().__init__(
            data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout
        )

    # --- a fit -----------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any) -> None:
        """Shard the model, then build optimizers over the shards."""
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
        """Gather all parameters for the validation."""
        for unit in self._units():
            unit.unshard()
            unit.set_reshard_after_forward(False, recurse=False)

    def on_validation_end(self) -> None:
        """Reshard the parameters."""
        for unit in self._units():
            unit.set_reshard_after_forward(unit is not self._root, recurse=False)
        # This reshards and clears the order in which units ran. The next backward pass prefetches in that order, which
        # has to be the same on all ranks.
        self._root.reset_iter_state()

    def teardown(self) -> None:
        """Move the optimizer state and the model off the device."""
        ParallelStrategy.teardown(self)  # ModelParallelStrategy's would leave shards and optimizer state on the device

    @property
    def _root(self) -> Any:
        module: Any = self.lightning_module
        return module.model

    def _units(self) -> Iterator[FSDPModule]:
        return (module for module in self._root.modules() if isinstance(module, FSDPModule))

    # --- checkpoints -----------------------------------------------------------------------------------------------

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """False: weights are loaded into whole parameters, before they are sharded."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: Lightning calls ``load_optimizer_state_dict``."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a whole checkpoint by the checkpoint plugin."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole tensors into the model."""
        ParallelStrategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load whole optimizer state, sharded like the parameters."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                i: {name: _sharded_like(value, parameters[i]) for name, value in values.items()}
                for i, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole tensors on rank 0 and nothing on the others; shared tensors appear under each of their names."""
        assert self.lightning_module is not None
        whole: dict[int, Tensor | None] = {}
        named = self.lightning_module.state_dict(keep_vars=True)
        for tensor in named.values():
            if id(tensor) not in whole:
                whole[id(tensor)] = self._whole(tensor.detach())
        return {name: whole[id(tensor)] for name, tensor in named.items()} if self.is_global_zero else {}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the whole optimizer state on rank 0 and nothing on the others."""
        state = (optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()
        whole = {
            i: {name: self._whole(value) for name, value in values.items()} for i, values in state["state"].items()
        }
        return {**state, "state": whole} if self.is_global_zero else {}

    def _whole(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if isinstance(value, DTensor):
            return _gathered(value)
        return value.cpu() if self.is_global_zero else None


def _gathered(value: DTensor) -> Tensor | None:
    """Return the whole tensor on rank 0; the other ranks send their rows and hold no more than these.

    ``DTensor.full_tensor`` would gather on every rank. A thread of gloo also crashed twice while a rank waited in it
    (torch 2.13); the cause is not known.
    """
    assert value.placements == (Shard(0),), value.placements
    group = value.device_mesh.get_group()
    ranks, rank = group.size(), group.rank()
    mine, rows = value.to_local(), -(-len(value) // ranks)
    padded = mine.new_zeros(rows, *value.shape[1:])  # ranks at the end hold fewer rows than the first, or none
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(ranks)] if rank == 0 else None
    torch.distributed.gather(padded, parts, group=group, group_dst=0)
    return None if parts is None else torch.cat(parts)[: len(value)].cpu()


def shard(model: Any, mesh: Any, device: torch.device) -> None:
    """Shard an encoder-decoder model in place; parameters outside ``units`` belong to the outermost unit.

    Args:
        model: an ``EncoderDecoderModel``. New parameters may differ between ranks: rank 0's are used.
        mesh: one-dimensional device mesh.
        device: this rank's device.

    Raises:
        UserError: Trainable parameters of a unit have several dtypes.
    """
    for unit in [*units(model), model]:
        _refuse_several_dtypes(unit)
        unit.to(device)
        for tensor in [*unit.parameters(), *unit.buffers()]:
            if not isinstance(tensor, DTensor):  # those belong to a unit inside this one
                torch.distributed.broadcast(tensor.detach(), 0)  # as DDP does: random weights may differ between ranks
        fully_shard(unit, mesh=mesh)
    register_fsdp_forward_method(model, "training_loss")


def _refuse_several_dtypes(unit: nn.Module) -> None:
    """FSDP2 reduces the gradients of a unit in one dtype, and ``warmstart.model.dtypes`` keeps some in float32."""
    trained = {n: p for n, p in unit.named_parameters() if p.requires_grad and not isinstance(p, DTensor)}
    in_float32 = [name for name, parameter in trained.items() if parameter.dtype == torch.float32]
    if in_float32 and len(in_float32) < len(trained):
        raise UserError(
            f"trainer.strategy=fsdp trainer.precision=bf16-true: {in_float32[0]} stays in float32, because it would "
            "lose too much in 16 bits, but the parameters of a layer must have one dtype. Set "
            "trainer.precision=bf16-mixed."
        )


def units(model: Any) -> list[nn.Module]:
    """Return all layers and grafted cross-attentions that do not share a parameter with another module."""
    candidates = [
        layer for submodel in (model.encoder, model.decoder) for layers in outermost_lists(submodel) for layer in layers
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
