"""Predict the time of training and of gradient exchange on a device, which need not be in this machine.

The peak speed of a GPU comes from its data sheet; the peak of this CPU is measured. The predicted speed is a fixed
share of the peak. Predictions for GPUs have not been compared with real runs.
"""

from dataclasses import dataclass

import torch

from warmstart.config.precision import resolve_precision
from warmstart.config.schema import Config, Device
from warmstart.profiling.matrix_peak import matrix_peak

GPU_SHARE = 0.4  # of the dense peak: Llama 3 reached 38 to 43 % on H100s (arXiv 2407.21783, section 3.3)
CPU_SHARE = 0.4  # of the measured peak: benchmarks/profiles.py printed 0.26 to 0.67 on two CPUs
INFINIBAND = 50e9  # bytes a second each way: one 400 Gb/s port (NDR) for each GPU, as in NVIDIA's DGX H100


@dataclass(frozen=True)
class Chip:
    """The data sheet of a GPU."""

    name: str
    flops_16: float
    """Dense FLOP/s with 16-bit factors and float32 sums."""
    flops_32: float
    """FLOP/s in float32."""
    memory: float
    """Bytes."""
    link: float
    """Bytes a second to the other GPUs of its machine, each way."""
    source: str


CHIPS = {
    Device.h100: Chip("H100 SXM", 989.4e12, 66.9e12, 80e9, 450e9, "NVIDIA H100 data sheet: NVLink 900 GB/s both ways"),
    Device.a100: Chip("A100 SXM 80 GB", 312e12, 19.5e12, 80e9, 300e9, "NVIDIA A100 data sheet: NVLink 600 GB/s both"),
    Device.rtx4090: Chip("RTX 4090", 165.2e12, 82.6e12, 24e9, 32e9, "NVIDIA Ada whitepaper; PCIe 4.0 x16, no NVLink"),
}


def devices_of(settings: Config) -> list[Device]:
    """Return the configured device. For ``auto``, return the devices of a possible fit: an H100, this CPU, or both."""
    if settings.device is not Device.auto:
        return [settings.device]
    accelerator = settings.trainer.accelerator
    return [Device.cpu] if accelerator == "cpu" else [Device.h100] + [Device.cpu] * (accelerator == "auto")


def precision_on(device: Device, settings: Config) -> str:
    """Return the fit's precision on the device; ``auto`` is bf16-mixed on every GPU of ``CHIPS``."""
    precision = settings.trainer.precision
    if precision == "auto" and device in CHIPS:
        return "bf16-mixed"
    return resolve_precision(precision, "cpu")


def flops_per_second_on(device: Device, settings: Config) -> tuple[str, float] | None:
    """Return the training speed on one device.

    Returns:
        A description and the FLOP/s, or None if the peak is unknown (float64 on a GPU).
    """
    precision = precision_on(device, settings)
    if device not in CHIPS:
        peak = matrix_peak(torch.device("cpu"), precision).flops_per_second
        return f"this CPU at {CPU_SHARE:.0%} of {peak / 1e9:.0f} GFLOP/s (measured, {precision})", CPU_SHARE * peak
    if precision.startswith("64"):
        return None
    chip = CHIPS[device]
    peak = chip.flops_16 if "16" in precision else chip.flops_32
    return f"{chip.name} at {GPU_SHARE:.0%} of {peak / 1e12:.0f} TFLOP/s (data sheet, {precision})", GPU_SHARE * peak


def all_reduce_bytes(gradients: float, ranks: int) -> float:
    """Return the bytes that each rank sends and receives in one ring all-reduce.

    Args:
        gradients: bytes of all gradients.
        ranks: number of ranks.
    """
    return 2 * (ranks - 1) / ranks * gradients


def all_reduce_seconds(device: Device, gradients: float, devices: int, nodes: int) -> tuple[str, float] | None:
    """Predict the time of one all-reduce.

    Between machines, NCCL uses the network ports of all GPUs of a machine at once.

    Args:
        device: kind of device.
        gradients: bytes of all gradients.
        devices: devices of each node.
        nodes: number of nodes.

    Returns:
        A description of the slowest link and the seconds, or None if the link is unknown.
    """
    if device not in CHIPS:
        return None
    name, bandwidth = "PCIe" if device is Device.rtx4090 else "NVLink", CHIPS[device].link
    if nodes > 1 and (devices == 1 or devices * INFINIBAND < bandwidth):
        name, bandwidth = f"{devices} port(s) of InfiniBand", devices * INFINIBAND
    return f"{name}, {bandwidth / 1e9:.0f} GB/s", all_reduce_bytes(gradients, devices * nodes) / bandwidth
