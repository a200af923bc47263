"""Description of this machine, for the report and for the rates that were measured on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Model name of the processor."""
    try:
        name = after(Path("/proc/cpuinfo").read_text(errors="replace"), "model name")
    except OSError:
        name = ""
    return name.lstrip(": \t") or platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Model names of this machine's GPUs."""
    paths = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [after(path.read_text(errors="replace"), "Model:") for path in paths]


def described() -> str:
    """Processor and number of cores in one phrase."""
    return f"{processor()}, {os.cpu_count()} cores"


def after(text: str, key: str) -> str:
    """Text after a key at the beginning of a line; empty where no line begins with the key."""
    return next((line.partition(key)[2].strip() for line in text.splitlines() if line.startswith(key)), "")
