"""Detection of the compute device, its number format and its threads."""

from __future__ import annotations

import os

import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import gpu_locks

# Environment variable that forces a number format: for comparisons between machines, and where bfloat16 is suspected.
FORMAT = "MIXLOC_DTYPE"
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Linux maps large arrays in pages of 2 MB. Their memory is given back after each layer, and mapping it anew in pages of
# 4 kB takes up to half of the time of sampling. torch reads this with its first large array; 0 from outside wins.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def use_threads(count: int) -> None:
    """Set the number of threads, whatever the machine has, because it changes the last bits of sums."""
    torch.set_num_threads(max(1, int(count)))


def device() -> torch.device:
    """The GPU where there is one, otherwise the CPU; where jobs share several GPUs, one that is free."""
    gpu_locks.take()
    if os.environ.get(FORMAT) == "float32":
        torch.backends.cudnn.allow_tf32 = False  # a convolution would multiply with ten bits otherwise
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_kernels(where: torch.device) -> None:
    """Let cuDNN time its kernels for every shape and keep the fastest; shapes of trainings are constant."""
    if where.type == "cuda":
        torch.backends.cudnn.benchmark = True


def fast_dtype(where: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, otherwise float32; or what MIXLOC_DTYPE says."""
    if forced := os.environ.get(FORMAT):
        if forced not in FORMATS:
            raise UserError(f"{FORMAT}={forced}: must be one of {', '.join(FORMATS)}, or not set")
        return FORMATS[forced]
    if where.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
    return torch.bfloat16 if any(capabilities.get(name) for name in native) else torch.float32


def describe(where: torch.device) -> str:
    """One phrase for the log, such as `cpu, 2 threads, bfloat16`."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"cpu, {torch.get_num_threads()} thread(s)"
    return f"{name}, {str(fast_dtype(where)).removeprefix('torch.')}"


def rounding(where: torch.device) -> str:
    """Name of the rounding behaviour of this machine: a checkpoint is valid only where it is the same.

    Bitwise equality is promised on a CPU alone, so a training may move from one model of GPU to another."""
    kind = describe(where) if where.type == "cpu" else f"{where.type}, {str(fast_dtype(where)).removeprefix('torch.')}"
    return f"torch {torch.__version__}, {kind}"
