"""What a run asks of the machine."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from rnnclf.workflows.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**26)  # 256 MiB, 65,536 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = min(faults() for _ in range(4))
keep_freed_memory()
print(usual, min(faults() for _ in range(4)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at once")
def test_memory_of_the_last_step_is_there_for_the_next_one():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert usual >= 65536
    assert kept < 100
