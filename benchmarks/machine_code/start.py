"""What machine code costs at the start of a process, and in memory, for every sequential cell.

    taskset -c 0 python benchmarks/machine_code/start.py OUT.jsonl [ROUNDS]

Each figure comes from a process of its own, which has imported torch. cold_s and warm_s: CPU seconds from
the import of the engine to the gradients of the first batch (150 units, 150 sequences, 28 steps of 28
features), with an empty cache folder and with a full one; loop_s: the same with the loop. cold_MiB,
loop_MiB: by how much the most memory of the process grew meanwhile. Medians of the rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from statistics import median

FIRST_BATCH = """
import json, resource, sys, time
import torch
from rnnclf.cells import CELLS
from rnnclf.engine.unrolling import unroll
torch.set_num_threads(1)
module = CELLS[sys.argv[1]](hidden_size=150).build(28)
x_TBI = torch.randn(28, 150, 28)
torch.nn.functional.linear(x_TBI, torch.randn(600, 28)).tanh().sum()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, begin = peak(), time.process_time()
y, _ = unroll(module, x_TBI, engine=sys.argv[2], every_step=False)
if y.requires_grad:
    torch.autograd.grad(y.sum(), list(module.parameters()), allow_unused=True)
print(json.dumps([time.process_time() - begin, peak() - before]))
"""


def first_batch(cell: str, engine: str, cache: str) -> tuple[float, float]:
    """CPU seconds and MiB."""
    command = [sys.executable, "-c", FIRST_BATCH, cell, engine]
    found = subprocess.run(
        command, env=os.environ | {"XDG_CACHE_HOME": cache}, capture_output=True, text=True, check=True
    )
    seconds, mebibytes = json.loads(found.stdout)
    return seconds, mebibytes


def main() -> None:
    from rnnclf.cells import CELLS

    out, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for cell, kind in CELLS.items():
        if "machine" not in kind().engines:
            continue
        runs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as cache:
                engines = ("machine", "machine", "loop")
                runs.append([first_batch(cell, engine, cache) for engine in engines])
        (cold_s, cold), (warm_s, _), (loop_s, loop) = (
            tuple(median(run[n][k] for run in runs) for k in (0, 1)) for n in range(3)
        )
        line = {"cell": cell, "cold_s": cold_s, "warm_s": warm_s, "loop_s": loop_s}
        line |= {"cold_MiB": cold, "loop_MiB": loop}
        print("  ".join(f"{k} {v:.2f}" if k != "cell" else f"{v:10s}" for k, v in line.items()), flush=True)
        with open(out, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
