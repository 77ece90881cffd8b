"""MNIST, each image a sequence of its rows.

Files are looked for in `dataset.root`, then in the user's cache folder, and only then downloaded, by
torchvision, to the cache folder. torchvision is imported for a download only: its mirrors and its
checksums of the packed files are used there; what is read from disk, packed or not, is checked
against the MD5 of the unpacked content below.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnclf.data.base import SequenceDataset, Source, Splits, fingerprint_of
from rnnclf.errors import DataError
from rnnclf.options import option

if TYPE_CHECKING:
    import numpy as np

CONTENT_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass
class MNIST(Source):
    """70,000 handwritten digits of 28 × 28 pixels, read row by row: 28 steps of 28 features in [0, 1].

    LeCun et al. 1998. 10,000 of them are the test set; the customary validation set is the first
    5,000 of the others.
    """

    name: str = "mnist"
    validation: int = option(5000, "training images set aside to choose the best epoch", low=1)
    split: str = option("first", "which ones: a stratified draw, or the first", choices=("random", "first"))
    root: str | None = option(None, "folder of the files, never written to; null: the cache folder")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is not None:
            # absolute, so that a checkpoint finds its data from any folder
            self.root = str(Path(self.root).expanduser().absolute())

    def load(self) -> Splits:
        import torch

        x_train, y_train, x_test, y_test = (self._read(name) for name in CONTENT_MD5)
        classes = tuple(map(str, range(10)))

        def dataset(x: Any, y: Any) -> SequenceDataset:
            return SequenceDataset(torch.from_numpy(x).float() / 255, torch.from_numpy(y).long(), classes)

        whole = dataset(x_train, y_train)
        train, validation = self._set_aside(whole, self.validation, "validation")
        fingerprint = fingerprint_of(x_train, y_train, x_test, y_test)
        return Splits(train, validation, dataset(x_test, y_test), fingerprint)

    def _read(self, name: str) -> np.ndarray[Any, Any]:
        path = self._find(name)
        content = _content(path)
        found, expected = hashlib.md5(content).hexdigest(), CONTENT_MD5[name]
        if found != expected:
            raise DataError(
                f"{path} is not MNIST's {name}: its unpacked content has MD5 {found}, expected {expected}."
            )
        return _parse_idx(content)

    def _find(self, name: str) -> Path:
        folders = [Path(self.root) / "MNIST" / "raw", Path(self.root)] if self.root else []
        for folder in [*folders, _cache()]:
            for path in (folder / f"{name}.gz", folder / name):
                if path.is_file():
                    return path
        try:
            return _download(f"{name}.gz")
        except Exception as error:  # urllib, ssl, socket and torchvision raise a dozen kinds
            searched = folders[0] if folders else _cache()
            raise DataError(
                f"No MNIST here, and the download failed ({type(error).__name__}: {error})."
                f" Put {', '.join(f'{n}.gz' for n in CONTENT_MD5)} into {searched},"
                " name another folder with dataset.root=DIR, or take dataset=digits, which needs no files."
            ) from error


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rnnclf" / "MNIST" / "raw"


def _download(file: str) -> Path:
    """Fetches one packed file from torchvision's mirrors into the cache folder."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    md5 = dict(datasets.MNIST.resources)[file]
    _cache().mkdir(parents=True, exist_ok=True)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none: a silent network would hang for ever
    try:
        for number, mirror in enumerate(datasets.MNIST.mirrors, start=1):
            # aside first: an interrupted download must not be found as a file later
            with tempfile.TemporaryDirectory(dir=_cache()) as aside:
                try:
                    download_url(mirror + file, aside, file, md5)
                    return Path(aside, file).replace(_cache() / file)
                except Exception:
                    if number == len(datasets.MNIST.mirrors):
                        raise
        raise DataError("torchvision names no mirror of MNIST.")
    finally:
        socket.setdefaulttimeout(patience)


def _content(path: Path) -> bytes:
    try:
        packed = path.read_bytes()
        return gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        expected = CONTENT_MD5[path.name.removesuffix(".gz")]
        raise DataError(
            f"{path} cannot be read ({error}); its unpacked content should have MD5 {expected}."
        ) from error


def _parse_idx(content: bytes) -> np.ndarray[Any, Any]:
    """The unsigned bytes of an IDX file: two zero bytes, type 8, number of dimensions, their sizes."""
    import numpy as np

    shape = struct.unpack_from(f">{content[3]}I", content, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape).copy()
