"""What a command imports."""

from __future__ import annotations

import json
import subprocess
import sys


def modules_after(code: str) -> set[str]:
    """The modules that are loaded in a fresh process after `code`."""
    script = f"import sys, json\n{code}\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def command(words: list[str], exit_code: int) -> str:
    lines = ["from typer.testing import CliRunner", "from rnnclf.cli import app"]
    return "\n".join([*lines, f"assert CliRunner().invoke(app, {words}).exit_code == {exit_code}"])
