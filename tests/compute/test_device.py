"""The number format of the machine, and the environment variable that replaces it."""

from __future__ import annotations

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
