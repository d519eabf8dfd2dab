"""Where training computes, and in which number format."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from tesserec.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: no such device, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device is {name!r}. Use auto, cpu, cuda, mps, or one of several GPUs such as cuda:1."
        ) from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= present.get(device.type, 0):
        raise ConfigError(
            f"device is {name!r}, but this machine has {present.get(device.type, 0)} of that kind. Use device = auto."
        )
    return device


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The format of matrix products: float32, bfloat16 or float16; weights and sums stay float32.

    "auto" takes bfloat16 where the hardware multiplies in it (matrix products are then several times as fast as in
    float32; `benchmarks/sasrec_epoch.py` measures by how much) and float32 elsewhere: emulated bfloat16 is slower.

    Raises:
        ConfigError: fp16 on a CPU, whose half-precision training needs loss scaling that brings nothing over bf16.
    """
    if name == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("precision is fp16, which a CPU does not train in. Use bf16, fp32 or auto.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def n_processes() -> int:
    """How many processes train together (`accelerate launch`); 1 without a launcher."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(bool(able.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products inside the block in `dtype`; nothing changes for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
