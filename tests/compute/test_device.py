"""The number format of the machine, the environment variable that replaces it, and the pages of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import device

CPU = torch.device("cpu")


def test_the_environment_variable_forces_a_number_format(monkeypatch):
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        monkeypatch.setenv("MIXLOC_DTYPE", name)
        assert device.fast_dtype(CPU) == dtype
        # Another format rounds differently, so checkpoints and digests must differ.
        assert device.rounding(CPU).endswith(name)


def test_an_unknown_number_format_is_named(monkeypatch):
    monkeypatch.setenv("MIXLOC_DTYPE", "float16")
    with pytest.raises(UserError, match="MIXLOC_DTYPE=float16: must be one of float32, bfloat16"):
        device.fast_dtype(CPU)


@pytest.mark.parametrize(("capability", "dtype"), [("avx512_bf16", torch.bfloat16), ("avx2", torch.float32)])
def test_bfloat16_is_used_where_the_processor_multiplies_it(monkeypatch, capability, dtype):
    monkeypatch.delenv("MIXLOC_DTYPE", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert device.fast_dtype(CPU) == dtype


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATE = """
import resource
from workflow_scripts.lib.compute import device
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not HUGE_PAGES.is_file() or "[never]" in HUGE_PAGES.read_text(encoding="utf-8"), reason="no huge pages here"
)
def test_large_arrays_lie_in_large_pages():
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, text=True, env=environment, check=True)
    small_pages = 256 * 2**20 // 4096
    assert int(done.stdout) < small_pages / 4
