"""What is said of the machine."""

import subprocess
import sys

import torch

from sine_cli.models.device import peak_memory

CPU = torch.device("cpu")


def test_the_peak_of_memory_is_kept_when_it_is_given_back() -> None:
    before = peak_memory(CPU)
    held = torch.ones(2**28)  # 1 GiB
    during = peak_memory(CPU)
    del held
    assert during >= max(before, 2**30)
    assert peak_memory(CPU) >= during - 2**20  # the kernel counts pages a little late


def test_the_peak_of_memory_is_a_process_s_own_and_not_that_of_its_parent() -> None:
    held = torch.ones(2**29)
    print_peak = "from sine_cli.models.device import *; print(peak_memory(torch.device('cpu')))"
    child = subprocess.run([sys.executable, "-c", print_peak], capture_output=True, text=True, check=True)
    assert held.nbytes == 2 * 2**30
    assert 50e6 < int(child.stdout) < 1.5e9
