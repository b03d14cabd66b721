"""Run by test_fsdp.py under torchrun: each setting's fit in shards on two ranks; rank 0 leaves what it did.

torchrun --nproc_per_node=2 sharded_ranks.py FOLDER CACHE
"""

import json
import sys
from pathlib import Path

from test_fsdp import SETTINGS, curves_of, last
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from warmstart.model.bridge.lora import is_lora


def main(folder: Path, cache: Path) -> None:
    for name in SETTINGS:
        curves, module, trainer = curves_of(name, folder / name, cache, devices=2, strategy="fsdp")
        parameters = dict(module.model.named_parameters())
        held = sum(p.to_local().numel() for p in parameters.values())
        assert all(isinstance(p, DTensor) for p in parameters.values())
        assert held < 0.6 * sum(p.numel() for p in parameters.values())
        if trainer.is_global_zero:
            units = [n for n, m in module.model.named_modules() if isinstance(m, FSDPModule)]
            adapters = sum(is_lora(n) for n in parameters)
            (folder / f"{name}.json").write_text(json.dumps(curves | {"units": units, "adapters": adapters}))
    # A fit that resumes from the checkpoint before the last one ends the same.
    curves_of("plain", folder / "resumed", cache, ckpt=last(folder / "plain", 1), devices=2, strategy="fsdp")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
