"""Data-parallel training with torchrun: each process computes its part of every batch.

N processes give the same training as one, but for rounding. Each makes all random draws of the whole batch and computes
its part of the images. Features, BatchNorm statistics and gradients are combined into those of the whole batch. So code
that pairs, mixes or splits the images of a batch needs no change, and a checkpoint does not depend on the number of
processes. The first process alone holds locks, decides what is left to do, and writes files and logs. In a single
process all functions here do nothing."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import gpu_locks
from workflow_scripts.lib.compute.checkpoint import Resume

# The others wait while the first process waits for a lock or writes; one that is gone is noticed at once, not by this.
PATIENCE = timedelta(days=30)
BUCKET = 2**24  # numbers that are added up over the processes at a time

_store: dist.Store | None = None  # torchrun's own; it outlives the processes


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def first() -> bool:
    """Whether this is the process that writes and decides."""
    return rank() == 0


def part(count: int) -> slice:
    """Slice of `count` images that this process computes; sizes differ by one at most."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


# Starting and ending --------------------------------------------------------------------------------------------------


def run(name: str, args: argparse.Namespace, work: Callable[[], None]) -> int:
    """`stage.run` for a stage that torchrun may have started in several processes; returns the exit status."""
    processes = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    if processes == 1:
        return stage.run(name, args, work)
    number = int(os.environ["RANK"])

    def stopped(received: int, frame: FrameType | None) -> None:
        raise UserError(
            f"stopped: another of the {processes} processes of this training has ended, or the job was cancelled. Run "
            "again: what was finished is kept, and training goes on from its last checkpoint"
        )

    def together() -> None:
        # Signal by which torchrun ends the other processes after a failure. Ignored once this process has an error of
        # its own.
        before = signal.signal(signal.SIGTERM, stopped)
        try:
            _join()
            work()
        finally:
            signal.signal(signal.SIGTERM, before)
        dist.destroy_process_group()

    label = name if number == 0 else f"{name}, process {number} of {processes},"
    return stage.run(label, args, together, speaks=number == 0, tells=_first_to_fail)


def _first_to_fail() -> bool:
    """Whether this process is the first to fail; failures of the others follow from it."""
    if os.environ["RANK"] != "0":
        time.sleep(0.5)  # a failure common to all is reported by the first process
    try:
        return _store is None or _store.add("failures", 1) == 1
    except RuntimeError:
        return True


def _join() -> None:
    """Join the processes that torchrun started into a process group, each with its own GPU where there are GPUs."""
    global _store
    if os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"]:
        # All communication stays on this machine. It also works where the host name does not resolve.
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    try:
        _store, number, processes = next(dist.rendezvous("env://", timeout=PATIENCE))
        cuda = _take_gpus(_store)
        # The host's own numbers go by gloo in any case.
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=_store, rank=number, world_size=processes, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this training could not be joined: {error}") from None


def _take_gpus(store: dist.Store) -> bool:
    here, mine = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    if os.environ.get(gpu_locks.CHOICE):
        # One process takes all GPUs at once: two trainings that take them one by one could deadlock.
        key = f"gpus of {os.environ.get('GROUP_RANK', '0')}"
        if mine == 0:
            store.set(key, ",".join(gpu_locks.take_several(here)))
        os.environ["CUDA_VISIBLE_DEVICES"] = store.get(key).decode()
    if not torch.cuda.is_available():
        return False
    if torch.cuda.device_count() < here:
        raise UserError(
            f"{here} processes need as many GPUs, and this job sees {torch.cuda.device_count()}: lower "
            "compute.processes, or give the job more (the resource gpu of the profile)"
        )
    torch.cuda.set_device(mine)
    return True


# What all agree upon --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Error handling for a process that waits for another one that has ended."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"another of the {size()} processes of this training has ended without a word (was it killed, or out of "
            f"memory?). Run again: what was finished is kept, and training goes on from its last checkpoint [{error}]"
        ) from None


def decided(value: int) -> int:
    """Broadcast of the first process's decision."""
    if size() == 1:
        return value
    said = torch.tensor(int(value))
    with _told():
        dist.broadcast(said, 0)
    return int(said)


def of_first(array: np.ndarray | None) -> np.ndarray | None:
    """Broadcast of the first process's array, of any shape; all processes have one of the same type, or none has."""
    if size() == 1 or array is None:
        return array
    shape = [decided(extent) for extent in [array.ndim, *array.shape]][1:]
    out = torch.from_numpy(array.copy() if first() else np.empty(shape, array.dtype))
    with _told():
        dist.broadcast(out, 0)
    return out.numpy()


@contextlib.contextmanager
def held(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Context in which the first process holds a lock for all processes."""
    with contextlib.ExitStack() as stack:
        if first():
            stack.enter_context(lock)
        decided(1)
        yield


def check_same(network: nn.Module) -> None:
    """Stop where the processes' weights differ, which only a bug or a faulty machine can cause."""
    if size() == 1:
        return
    own = torch.stack([value.detach().double().sum() for value in network.parameters()]).cpu()
    theirs = own.clone()
    with _told():
        dist.broadcast(theirs, 0)
    if not torch.equal(own.nan_to_num(), theirs.nan_to_num()):
        raise UserError(
            "the processes of this training no longer have the same weights, so it would go wrong: this is a fault of "
            "the program or of the machine; train with compute.processes: 1"
        )


def check_batch(batch: int, whose: str) -> None:
    """Check that every process gets an image."""
    if batch < size():
        raise UserError(f"{whose}: a batch of {batch} cannot be divided among {size()} processes: take fewer of these")


class SharedResume(Resume):
    """Checkpoint that the first process writes and all read; it does not depend on their number."""

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none."""
        state = super().load()
        if decided(state is not None) != (state is not None):
            raise UserError(f"{self.path} is not there for all processes of this training: is its disk shared?")
        return state

    def due(self) -> bool:
        """Whether a checkpoint is due, in the process that writes it."""
        return first() and super().due()

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        if first():
            super().save(state)

    def clear(self) -> None:
        """Remove the checkpoint."""
        if first():
            super().clear()


# Parts of a batch -----------------------------------------------------------------------------------------------------


def _sum(values: Tensor) -> None:
    with _told():
        dist.all_reduce(values)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, count: int) -> Tensor:
        ctx.own = part(count)
        out = mine.new_zeros((count, *mine.shape[1:]))
        out[ctx.own] = mine
        _sum(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # Every process computes the same loss, so each has the whole gradient: no sum is needed.
        return grad[ctx.own], None


def whole(mine: Tensor, count: int) -> Tensor:
    """All-gather of `count` rows, of which each process has computed its `part`; gradients flow back to that part."""
    return mine if size() == 1 else _Whole.apply(mine, count)


def add_up(values: Iterable[Tensor]) -> None:
    """All-reduce: replace every tensor by its sum over the processes."""
    if size() == 1:
        return
    bucket: list[Tensor] = []
    for value in values:
        bucket.append(value)
        if sum(map(torch.numel, bucket)) >= BUCKET:
            _add_up(bucket)
            bucket = []
    if bucket:
        _add_up(bucket)


def _add_up(bucket: list[Tensor]) -> None:
    # One message instead of many: each has its own latency.
    flat = torch.cat([value.reshape(-1) for value in bucket])
    _sum(flat)
    for value, total in zip(bucket, flat.split([value.numel() for value in bucket]), strict=True):
        value.copy_(total.view_as(value))


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm with the statistics of the batch over all processes. (torch's own SyncBatchNorm needs a GPU.)"""

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) of this process -> the same, normalised as a part of the whole batch."""
        if not self.training:
            return super().forward(x)
        count, mean, variance = _statistics(x.detach())
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return _Normalised.apply(x, self.weight, self.bias, mean, variance, count, self.eps)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values a channel, mean (C,) and variance (C,) of the whole batch, from this process's part x."""
    channels = x.shape[1]
    # A row for each process: how many values, their mean, and the sum of their squared distances from it. Squares
    # taken from the common zero would lose digits where the mean is large (Chan et al. 1983).
    table = x.new_zeros((size(), 1 + 2 * channels), dtype=torch.float64)
    if len(x):
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        count = x.numel() // channels
        table[rank()] = torch.cat([mean.new_full((1,), count), mean, variance * count]).double()
    _sum(table)
    counts, means, squares = table.split([1, channels, channels], dim=1)
    count = counts.sum()
    mean = (counts * means).sum(dim=0) / count
    squares = (squares + counts * (means - mean).square()).sum(dim=0)
    return count.float(), mean.float(), (squares / count).float()


class _Normalised(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, where mean and deviation depend on the whole batch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        over = (0, 2, 3)
        distance, slope = x.float() - mean.view(-1, 1, 1), grad.float()
        own = torch.stack([slope.sum(dim=over), (slope * distance).sum(dim=over) * scale])
        total = own.clone()
        _sum(total)
        along, across = total / count
        # What a value does to the mean and to the deviation of all is taken from its own slope.
        distance *= (across * scale).view(-1, 1, 1)
        out = (slope - distance - along.view(-1, 1, 1)) * (scale * weight).view(-1, 1, 1)
        # Gradients of the weights cover this process's part; `add_up` sums them over all processes.
        return out.to(x.dtype), own[1], own[0], None, None, None, None


def share_statistics(network: nn.Module) -> None:
    """Synchronise a network's BatchNorm statistics over the processes, where there are several."""
    if size() > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                # In place: parameters, running statistics and names stay what they are.
                module.__class__ = SharedBatchNorm
