"""The processes of a training run: one on a laptop, or many under `torchrun` or the `deepspeed` launcher."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

# Else DeepSpeed warns that it guesses.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
for _name in ("DeepSpeed", "deepspeed"):
    logging.getLogger(_name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*torch.distributed.*is deprecated.*", category=FutureWarning)

import deepspeed  # noqa: E402  (reads the environment and creates its logger on import)
import deepspeed.ops  # noqa: E402
import transformers  # noqa: E402

from codec.io.errors import UserError  # noqa: E402
from training.engine.launch import end_with_launcher  # noqa: E402

# Words of gloo, NCCL and their sockets for a process that has ended.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Socket|store", re.IGNORECASE)

deepspeed.utils.logger.setLevel(logging.WARNING)
transformers.utils.logging.disable_progress_bar()  # of reading and writing weights, beside that of the run


def join() -> None:
    """Join the other processes that a launcher started, or be the only one. Calling it again changes nothing.

    Gloo serves CPU tensors, NCCL those on GPUs. A process without a launcher needs no port: its store is in memory.
    """
    if dist.is_initialized():
        return
    if is_launched():
        end_with_launcher()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if is_launched():
        if torch.cuda.is_available():
            torch.cuda.set_device(_own_gpu(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()))
        dist.init_process_group(backend)
    else:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    if not torch.cuda.is_available():
        # DeepSpeed would compile a C++ shared-memory all-reduce at first use: half a minute and a compiler for what
        # gloo already does.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    atexit.register(dist.destroy_process_group)


def _own_gpu(local_rank: int, gpus: int) -> int:
    """The GPU of a process, one each. Raises UserError where there are more processes than GPUs."""
    if local_rank >= gpus:
        raise UserError(
            f"process {local_rank} of this machine has no GPU of its own, for there {'is' if gpus == 1 else 'are'} "
            f"{gpus}: start as many processes as there are GPUs (--processes {gpus})"
        )
    return local_rank


def is_launched() -> bool:
    """Whether a launcher started this process: it sets the address of the rendezvous."""
    return "MASTER_ADDR" in os.environ


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def device() -> torch.device:
    """Where this process computes."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def any_process(flag: bool) -> bool:
    """Whether `flag` holds in at least one process. Collective."""
    if world_size() == 1:
        return flag
    tensor = torch.tensor(int(flag))  # on the CPU: gloo, so that no GPU is waited for
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return bool(tensor.item())


def total(*values: float) -> list[float]:
    """Sum of each value over all processes. Collective."""
    sums = torch.tensor(values, dtype=torch.float64)  # on the CPU: gloo, so that no GPU is waited for
    if world_size() > 1:
        dist.all_reduce(sums)
    return sums.tolist()


def gather(value: Any) -> list[Any]:
    """`value` of every process, in the order of their ranks. Collective."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A UserError in any process is raised in all, so that none continues alone. Collective."""
    problem = None
    try:
        yield
    except UserError as error:
        problem = error
    messages = [text for text in gather(None if problem is None else str(problem)) if text is not None]
    if messages:
        raise problem or UserError(messages[0])


@contextlib.contextmanager
def lost_processes() -> Iterator[None]:
    """Raise UserError for a broken connection to another process, which is how its end shows."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise UserError(
            f"process {rank()} of the run has lost another one, whose message is the reason; resume with --resume"
        ) from error
