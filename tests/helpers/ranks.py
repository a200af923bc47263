"""`python -m tests.helpers.ranks train_ddpm ...`: a stage in float32, of whose processes one can be made to die.

Other numbers would hide in their rounding what several processes do otherwise than one."""

import importlib
import os
import signal
import sys

import torch

from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate import generator_training

KILL = "MIXLOC_TEST_KILL"  # the step before which the second process is killed

if __name__ == "__main__":
    device.fast_dtype = lambda where: torch.float32
    prepared = generator_training.prepared

    def dies(examples, objective, settings, step, *more):
        if os.environ["RANK"] == "1" and str(step) == os.environ.get(KILL):
            os.kill(os.getpid(), signal.SIGKILL)
        return prepared(examples, objective, settings, step, *more)

    generator_training.prepared = dies
    sys.exit(importlib.import_module(f"workflow_scripts.{sys.argv[1]}").main(sys.argv[2:]))
