"""Slurm's queue, as its command squeue shows it. Standard library only."""

from __future__ import annotations

import os
import subprocess
import time

TRIES = 3
PAUSE = 2.0  # seconds between two questions to the controller, which others ask, too


def own_jobs() -> set[str]:
    """The numbers of the user's jobs that wait, run or end; for an array, its own number.

    Empty if there is no Slurm, or if it does not answer.
    """
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F"]
    for attempt in range(TRIES):
        time.sleep(PAUSE if attempt else 0)
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except FileNotFoundError:
            break
        except (OSError, subprocess.SubprocessError):  # a busy controller
            continue
        return set(answer.stdout.split())
    return set()
