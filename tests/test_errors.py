"""Memory that ran out is told from other failures, whoever says so."""

import pytest
import torch

from sine_cli.errors import ran_out

SAID = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB, other allocations: 2.29 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:12])
def test_memory_that_ran_out_is_known_by_what_each_allocator_says(error: RuntimeError | MemoryError) -> None:
    assert ran_out(error)


def test_memory_that_this_machine_cannot_give_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert ran_out(caught.value)


def test_other_failures_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.matmul(torch.zeros(2, 3), torch.zeros(2, 3))
    assert not ran_out(caught.value)
