"""The user's cache folder. Everything in it can be deleted at any time."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def cache_root() -> Path:
    """$XDG_CACHE_HOME/rnnclf, or ~/.cache/rnnclf.

    In a container there may be no home folder, or one that cannot be written: then it is a private folder in
    the system's temporary one. The result may not exist, and it may be impossible to create.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "rnnclf"
    try:
        root = Path.home() / ".cache" / "rnnclf"
    except RuntimeError:  # no HOME, and a user without a name
        return _temporary_root()
    return root if _can_exist(root) else _temporary_root()


def _can_exist(folder: Path) -> bool:
    """Whether the folder exists or can be made."""
    for place in (folder, *folder.parents):
        try:
            place.stat()
        except FileNotFoundError:
            continue
        except OSError:  # not ours to look into
            return False
        return place == folder or os.access(place, os.W_OK | os.X_OK)
    return False


def _temporary_root() -> Path:
    nowhere = Path(os.devnull) / "rnnclf"
    try:
        folder = Path(tempfile.gettempdir()) / f"rnnclf-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    except (OSError, AttributeError):  # nothing can be written; Windows has no getuid
        return nowhere
    return folder if is_private(folder) else nowhere  # its name can be guessed: another user may have made it


def is_private(folder: Path) -> bool:
    """Whether a folder exists, belongs to this user, and cannot be written by anybody else. Not a link.

    On Windows, where folders have no such owner, a folder in the user's profile counts as private.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    return os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
