"""Files of published data sets: where they are looked for, their checksums, their download. Torch-free.

A file is looked for in `dataset.root`, which is never written to, then in the user's cache folder, and only
then downloaded, by torchvision, to the cache folder.
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

from rnnclf.data.cache import CHUNK, cache_root
from rnnclf.errors import DataError

PATIENCE = 20  # seconds that a server may be silent
LARGEST = 2**30  # bytes that a file may unpack to; the largest published, EMNIST byclass, has 0.55 of it


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it, with the MD5 that they, or torchvision, state for it.

    content_md5: the MD5 of what a .gz holds, where it is known: then the file may be there unpacked, too.
    """

    name: str
    md5: str
    urls: tuple[str, ...] = ()
    content_md5: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the file may be there."""
        return (self.name, self.name.removesuffix(".gz")) if self.content_md5 else (self.name,)


@dataclass(frozen=True)
class Shelf:
    """Where the files of a data set lie: `folder` below the root, the root itself, `folder` in the cache."""

    what: str
    folder: str
    root: str | None

    def folders(self) -> list[Path]:
        own = [Path(self.root) / self.folder, Path(self.root)] if self.root else []
        return [*own, self.cache()]

    def cache(self) -> Path:
        return cache_root() / self.folder

    def seek(self, file: Published) -> Path | None:
        """The file where it is already, or None."""
        paths = (folder / name for folder in self.folders() for name in file.names)
        return next((path for path in paths if path.is_file()), None)

    def path(self, file: Published, wanted: str) -> Path:
        """The file, downloaded if need be. Raises DataError, which asks for `wanted`, if it cannot be had."""
        return self.seek(file) or self._fetched(file, wanted)

    def _fetched(self, file: Published, wanted: str) -> Path:
        try:
            return download(file, self.cache())
        except Exception as error:  # urllib, ssl, socket and torchvision raise a dozen kinds
            raise DataError(
                f"No {self.what} here, and the download failed ({type(error).__name__}: {error})."
                f" Put {wanted} into {self.folders()[0]},"
                " name another folder with dataset.root=DIR, or take dataset=digits, which needs no files."
            ) from error


def download(file: Published, folder: Path) -> Path:
    """Fetches a file from the first of its addresses that gives it whole, into `folder`."""
    from torchvision.datasets import utils

    folder.mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torchvision sets none: a silent network would hang for ever
    try:
        for number, url in enumerate(file.urls, start=1):
            # aside first: an interrupted download must not be found as a file later
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                try:
                    utils.download_url(url, aside, file.name, file.md5)
                    return Path(aside, file.name).replace(folder / file.name)
                except Exception:
                    if number == len(file.urls):
                        raise
        raise DataError(f"no address of {file.name} is known")
    finally:
        socket.setdefaulttimeout(patience)


def refuse_changed(file: Published, path: Path) -> None:
    """Raises DataError where a file is not the published one."""
    digest = hashlib.md5(usedforsecurity=False)
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
            f"{path} is not the published one: it has MD5 {digest.hexdigest()}, expected {file.md5}."
        )


def read_unchanged(file: Published, path: Path) -> bytes:
    """The bytes of a published file. Raises DataError where they are not the published ones."""
    refuse_changed(file, path)
    return path.read_bytes()


def content_of(file: Published, path: Path) -> bytes:
    """What a .gz file holds, checked. Raises DataError where that is not what was published."""
    if file.content_md5 is None:
        return unpacked(read_unchanged(file, path), str(path))
    expected = f"; its unpacked content should have MD5 {file.content_md5}."
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
            f"{path} is not the published one: its unpacked content has MD5 {found},"
            f" expected {file.content_md5}."
        )
    return content


def unpacked(packed: bytes, what: str) -> bytes:
    """The content of gzip bytes. Raises DataError where they are damaged or unpack to more than LARGEST."""
    try:
        with gzip.open(io.BytesIO(packed)) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{what} cannot be read ({error}).") from error
    if len(content) > LARGEST:
        raise DataError(f"{what} unpacks to more than {LARGEST:,} bytes: this is no published file.")
    return content
