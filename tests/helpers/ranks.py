"""`python -m tests.helpers.ranks train_ddpm ...`: a stage in float32, of whose processes one can be made to die.

Other numbers would hide in their rounding what several processes do otherwise than one."""

import importlib
import os
import signal
import sys

import torch

from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate.training_examples import Examples

KILL = "MIXLOC_TEST_KILL"  # the step before which the second process is killed

if __name__ == "__main__":
    device.fast_dtype = lambda where: torch.float32
    take = Examples.take

    def dies(self, objective, step):
        if os.environ["RANK"] == "1" and str(step) == os.environ.get(KILL):
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, objective, step)

    Examples.take = dies
    sys.exit(importlib.import_module(f"workflow_scripts.{sys.argv[1]}").main(sys.argv[2:]))
