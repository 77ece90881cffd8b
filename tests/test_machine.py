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


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")


@needs_glibc
def test_memory_of_the_last_step_is_there_for_the_next_one():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert usual >= 65536
    assert kept < 100


FREED = """
from rnnclf.workflows.machine import keep_freed_memory

def resident():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1])

before = resident()
blocks = [bytearray(2**16) for _ in range(1600)]  # 100 MiB in blocks that glibc takes from its heap
held, blocks = blocks.pop(), None  # the last one holds the heap's end where it is
keep_freed_memory()
print(resident() - before)
"""


@needs_glibc
def test_what_was_freed_before_is_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000
