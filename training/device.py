"""Where training runs: one GPU, several by torchrun, or the CPU; and in which precision.

Owns the choice and the exchange between processes. With torchrun every process draws patches of
its own, gradients are averaged, and process 0 alone validates, exports and writes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Workers:
    """One process among those that train together: the one that asks.

    Attributes
    ----------
    rank
        Of this process; 0 leads.
    count
        How many there are.
    device
        On which this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def average(self, gradients: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over all processes."""
        if self.count == 1:
            return
        for gradient in gradients:
            distributed.all_reduce(gradient)
            gradient /= self.count

    def agreed(self, value: float) -> float:
        """Return process 0's value in every process: clocks differ, decisions must not."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return float(shared)

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which the network runs: bfloat16 where the hardware has it.

        Elsewhere it is emulated, and slower than full precision.
        """
        if self.device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = torch.cpu._is_avx512_bf16_supported()
        if not fast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def worker_count() -> int:
    """Return how many processes train together: given by torchrun's environment, or one."""
    return int(os.environ.get("WORLD_SIZE", 1))


def join_workers() -> Workers:
    """Return this process's place: given by torchrun's environment, or alone."""
    rank, count = int(os.environ.get("RANK", 0)), worker_count()
    gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if count > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if gpu else "gloo")
    return Workers(rank, count, device)
