"""Finds, checks and downloads the files of published data sets. Torch-free.

A file is looked for in `dataset.root`, which is never written to, then in the user's cache folder. Otherwise
torchvision downloads it to the cache folder.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from rnnclf.data.cache import CHUNK
from rnnclf.errors import DataError
from rnnclf.system.user_cache import cache_root

TIMEOUT = 20  # seconds to wait for a server that sends nothing
LARGEST = 2**30  # bytes a file may unpack to; the largest published one takes 0.55 of it (EMNIST byclass)


@dataclass(frozen=True)
class Published:
    """A published file, with the MD5 given by its authors or by torchvision.

    content_md5: the MD5 of the unpacked content of a .gz file, if known; an unpacked file is then
        accepted, too.
    """

    name: str
    md5: str
    urls: tuple[str, ...] = ()
    content_md5: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The file names to look for."""
        return (self.name, self.name.removesuffix(".gz")) if self.content_md5 else (self.name,)


@dataclass(frozen=True)
class FileSearch:
    """Looks for a data set's files in `folder` below the root, the root itself, and `folder` in the cache."""

    what: str
    folder: str
    root: str | None

    def folders(self) -> list[Path]:
        own = [Path(self.root) / self.folder, Path(self.root)] if self.root else []
        return [*own, self.cache()]

    def cache(self) -> Path:
        return cache_root() / self.folder

    def find(self, file: Published) -> Path | None:
        """The path of the file if it is on disk, otherwise None."""
        paths = (folder / name for folder in self.folders() for name in file.names)
        return next((path for path in paths if path.is_file()), None)

    def path(self, file: Published, wanted: str) -> Path:
        """The path of the file, downloaded if necessary. Raises DataError, which asks for `wanted`."""
        return self.find(file) or self._downloaded(file, wanted)

    def _downloaded(self, file: Published, wanted: str) -> Path:
        try:
            return download(file, self.cache())
        except Exception as error:  # urllib, ssl, socket and torchvision raise many types
            raise DataError(
                f"No files of {self.what} found, and the download failed ({type(error).__name__}: {error})."
                f" Put {wanted} into {self.folders()[0]},"
                " set dataset.root=DIR to their folder, or use dataset=digits, which needs no files."
            ) from error


def download(file: Published, folder: Path) -> Path:
    """Downloads a file into `folder` from the first of its URLs that delivers it intact."""
    from torchvision.datasets import utils

    folder.mkdir(parents=True, exist_ok=True)
    previous_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision sets no timeout and could hang forever
    try:
        for number, url in enumerate(file.urls, start=1):
            # in a temporary folder: an interrupted download must not be mistaken for the file later
            with tempfile.TemporaryDirectory(dir=folder) as staging:
                try:
                    utils.download_url(url, staging, file.name, file.md5)
                    return Path(staging, file.name).replace(folder / file.name)
                except Exception:
                    if number == len(file.urls):
                        raise
        raise DataError(f"there is no URL for {file.name}")
    finally:
        socket.setdefaulttimeout(previous_timeout)


def refuse_changed(file: Published, path: Path) -> None:
    """Raises DataError if a file does not have the published MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    _refuse_size(path)
    try:
        with open(path, "rb") as opened:
            while block := opened.read(CHUNK):
                digest.update(block)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); it should have MD5 {file.md5}."
        ) from error
    if digest.hexdigest() != file.md5:
        raise DataError(
            f"{path} is not the published file: it has MD5 {digest.hexdigest()}, expected {file.md5}."
        )


def _refuse_size(path: Path) -> None:
    """Raises DataError for a file that is larger than any published one, before it is read."""
    if path.is_file() and (size := path.stat().st_size) > LARGEST:
        raise DataError(f"{path} has {size:,} bytes: this is not the published file.")


def read_unchanged(file: Published, path: Path) -> bytes:
    """The bytes of a published file. Raises DataError if it does not have the published MD5."""
    refuse_changed(file, path)
    return path.read_bytes()


def content_of(file: Published, path: Path) -> bytes:
    """The unpacked content of a .gz file. Raises DataError if it is not the published content."""
    if file.content_md5 is None:
        return unpacked(read_unchanged(file, path), str(path))
    expected = f"; its unpacked content should have MD5 {file.content_md5}."
    _refuse_size(path)
    try:
        packed = path.read_bytes()
        content = unpacked(packed, str(path)) if path.suffix == ".gz" else packed
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}){expected}") from error
    except DataError as error:
        raise DataError(str(error).removesuffix(".") + expected) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != file.content_md5:
        raise DataError(
            f"{path} is not the published file: its unpacked content has MD5 {found},"
            f" expected {file.content_md5}."
        )
    return content


def unpacked(packed: bytes, what: str) -> bytes:
    """Unpacks gzip bytes. Raises DataError if they are damaged or unpack to more than LARGEST."""
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{what} cannot be read ({error}).") from error
    if len(content) > LARGEST:
        raise DataError(f"{what} unpacks to more than {LARGEST:,} bytes: this is not the published file.")
    return content
