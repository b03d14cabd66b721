"""Choose the precision of a fit. This module does not import Lightning, so that ``task=check`` starts fast."""

from typing import Any

import torch

SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")  # supported by FSDP here: those without a loss scale


def resolve_precision(name: str, accelerator: str) -> str:
    """Return the precision to train in.

    A device that emulates bf16 is far slower in bf16 than in fp32, so ``auto`` is bf16 only where it is native.

    Args:
        name: Lightning's name of a precision, or ``auto``.
        accelerator: Lightning's name of the kind of device.

    Returns:
        ``name``; for ``auto``, ``bf16-mixed`` if the device multiplies bf16 in hardware, else ``32-true``.
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
    """Return whether this processor multiplies bf16 matrices in hardware (AMX or AVX-512 BF16)."""
    # torch before 2.8 does not report this; fp32 is then the safe choice.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def training_dtype(precision: str) -> torch.dtype:
    """Return the dtype of matrix products in a Lightning precision such as ``bf16-mixed``."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    return {"16": torch.float16, "64": torch.float64}.get(precision.split("-")[0], torch.float32)
