"""In which precision a fit computes. Lightning is not imported: ``task=check`` need not wait for that."""

from typing import Any

import torch

SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")  # of FSDP: those without a loss scale


def resolve_precision(name: str, accelerator: str) -> str:
    """``auto``: bf16 mixed where the device computes it natively, else fp32.

    A CPU without bf16 matrix instructions emulates them: 0.9 GFLOP/s against 106 in fp32 on an AVX2 EPYC.
    """
    if name != "auto":
        return name
    gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    if gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = accelerator in ("auto", "cpu") and cpu_computes_bf16()
    return "bf16-mixed" if native else "32-true"


def cpu_computes_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices in hardware: AMX or AVX-512 BF16."""
    # torch before 2.8 does not tell: fp32 is then the safe answer.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def training_dtype(precision: str) -> torch.dtype:
    """What matrices are multiplied in under a Lightning precision such as bf16-mixed."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    return {"16": torch.float16, "64": torch.float64}.get(precision.split("-")[0], torch.float32)
