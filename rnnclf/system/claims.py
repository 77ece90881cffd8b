"""Claims on folders: one process at a time writes into a folder, also where several machines share it.

A claim is two things together. The kernel's lock on FOLDER/.lock ends with the processes that hold it,
however they end, so on one machine it is always right. Many network file systems have no such lock, or one
that each machine keeps to itself. So a claim also has a record, FOLDER/.claim: it is created by one process
only, says whose it is, and is touched every BEAT seconds as long as its process lives. A process on another
kernel takes a folder only if the record is older than STALE, by the clock of the file system, since those of
machines differ.

A process that was silent for so long, stopped or cut off from the file system, may go on after its folder was
taken. It has to call `refuse_lost` before it writes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from rnnclf.errors import InUseError, OutputError
from rnnclf.files import open_regular, read_record, refuse_odd

LOCK, RECORD = ".lock", ".claim"
BEAT = 10.0  # seconds between two touches of a record
STALE = 60.0  # seconds without a touch after which a process on another machine counts as dead
WAITS = (0, 0.02, 0.1)  # seconds before each try: whoever looks whether a folder is claimed holds its lock


@dataclass(frozen=True)
class Owner:
    """The content of a record."""

    token: str
    """Different for each claim."""
    kernel: str
    """Whether a lock of that process would be seen here."""
    host: str
    pid: int


@dataclass(eq=False)
class Claim:
    """A folder that this process has claimed."""

    folder: Path
    owner: Owner
    descriptor: int
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def record(self) -> Path:
        return self.folder / RECORD

    def release(self) -> None:
        """Ends the claim, and with it the kernel's lock in all children that were forked in the meantime.
        They inherited it, whatever work they do."""
        self.ended.set()
        if (owner := owner_of(self.folder)) and owner.token == self.owner.token:
            with suppress(OSError):
                self.record.unlink()
        _unlock(self.descriptor)
        os.close(self.descriptor)

    def is_lost(self) -> bool:
        """Whether another process has taken the folder."""
        owner = owner_of(self.folder)
        return owner is not None and owner.token != self.owner.token

    def keep_alive(self) -> None:
        """Touches the record until the claim ends."""
        while not self.ended.wait(BEAT):
            with suppress(OSError):  # it was taken, or the file system is away for a moment
                os.utime(self.record)

    @contextmanager
    def inherited(self) -> Iterator[None]:
        """In a forked child: a context in which the folder counts as claimed by the child."""
        _inherited[self.folder.absolute()] = self
        try:
            yield
        finally:
            del _inherited[self.folder.absolute()]


_inherited: dict[Path, Claim] = {}
"""Claims of the process that forked this one, by folder."""
_held: dict[Path, Claim] = {}
"""Claims of this process, by folder."""


def claim(folder: Path) -> Claim:
    """Claims a folder. Raises InUseError if another process has claimed it, and OutputError if it cannot
    be written to."""
    lock = folder / LOCK
    try:
        descriptor = open_regular(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise OutputError(f"Cannot write {lock}: {error.strerror}.") from error
    try:
        if not any(_locked(descriptor, wait) for wait in WAITS):
            raise InUseError(f"{folder} is being trained by another process.")
        made = Claim(folder, _recorded(folder, descriptor), descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    threading.Thread(target=made.keep_alive, daemon=True).start()
    return made


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A context in which this process has claimed a folder, or its parent has on its behalf. Raises as
    `claim` does."""
    place = folder.absolute()
    if place in _inherited:
        yield
        return
    made = claim(folder)
    _held[place] = made
    try:
        yield
    finally:
        del _held[place]
        made.release()


def is_claimed(folder: Path) -> bool:
    """Whether a process has claimed the folder."""
    try:
        descriptor = open_regular(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        has_locks = _has_locks(descriptor)
        return has_locks is None or _is_living(folder, owner_of(folder), has_locks)
    finally:
        os.close(descriptor)


def refuse_lost(folder: Path) -> None:
    """Raises InUseError if another process has taken a folder that this one, or its parent, had claimed."""
    place = folder.absolute()
    mine = _inherited.get(place) or _held.get(place)
    if mine is None:
        return
    owner = owner_of(folder)
    if owner is not None and owner.token != mine.owner.token:
        raise InUseError(
            f"{folder} was taken over by a process on {owner.host}, because this one had been silent for"
            f" {STALE:g} s. Nothing more is written here."
        )


def owner_of(folder: Path) -> Owner | None:
    """Whose record there is; None if there is none, or one that nobody can read."""
    return _read(folder / RECORD)


def _read(record: Path) -> Owner | None:
    try:
        found = json.loads(read_record(record))
        refuse_odd(found)
        owner = Owner(**{key: found[key] for key in Owner.__annotations__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    texts = owner.token, owner.kernel, owner.host
    return owner if all(isinstance(text, str) for text in texts) and isinstance(owner.pid, int) else None


def _locked(descriptor: int, wait: float = 0) -> bool:
    """Waits for `wait` seconds, and returns whether the lock could be had; true where there is none."""
    time.sleep(wait)
    return _has_locks(descriptor) is not None


def _has_locks(descriptor: int) -> bool | None:
    """Takes the kernel's lock. Returns None if another process holds it, and False where there are no locks:
    on Windows and some network file systems."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _recorded(folder: Path, descriptor: int) -> Owner:
    """Writes the record of a folder whose lock this process holds. Raises InUseError if another machine's
    process has claimed the folder."""
    mine = Owner(secrets.token_hex(16), _kernel(), socket.gethostname(), os.getpid())
    for _ in range(len(WAITS)):
        if _created(folder / RECORD, mine):
            return mine
        owner = owner_of(folder)
        if _is_living(folder, owner, bool(_has_locks(descriptor))):
            where = f" {owner.pid} on {owner.host}" if owner is not None else ""
            raise InUseError(f"{folder} is being trained by process{where}.")
        _remove(folder, owner, mine.token)
    raise InUseError(f"{folder} is being trained by another process.")


def _created(record: Path, owner: Owner) -> bool:
    """Creates the record, whole from the start. Returns whether there was none."""
    draft = record.with_name(f"{RECORD}.{owner.token}")
    try:
        draft.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        try:
            os.link(draft, record)
        except FileExistsError:
            return False
        except OSError:  # a file system without links: for a moment the record may be empty
            return _created_in_place(record, owner)
        return True
    except OSError as error:
        raise OutputError(f"Cannot write {record}: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def _created_in_place(record: Path, owner: Owner) -> bool:
    try:
        with open(record, "x", encoding="utf-8") as file:
            json.dump(asdict(owner), file)
    except FileExistsError:
        return False
    return True


def _remove(folder: Path, owner: Owner | None, token: str) -> None:
    """Removes the record of a dead process. Of several processes that try, only one succeeds: each renames
    what it finds, and puts it back if it is no longer the record of the dead one."""
    record, aside = folder / RECORD, folder / f"{RECORD}.{token}"
    try:
        os.rename(record, aside)
    except OSError:
        return
    now = _read(aside)
    if now != owner:
        with suppress(OSError):
            os.link(aside, record)
    with suppress(OSError):
        aside.unlink()


def _is_living(folder: Path, owner: Owner | None, has_locks: bool) -> bool:
    """Whether the process of a record may still be alive, if its kernel's lock, which this process holds,
    does not tell."""
    if owner is not None and owner.kernel == _kernel() and has_locks:
        return False
    try:
        touched = (folder / RECORD).stat().st_mtime
    except OSError:
        return False
    return _file_system_time(folder) - touched < STALE


def _file_system_time(folder: Path) -> float:
    """The time by the clock that dates files in this folder; the machine's where nothing can be written."""
    probe = folder / f"{RECORD}.{secrets.token_hex(16)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


@cache
def _kernel() -> str:
    """Names the running kernel: containers on one kernel see each other's locks, machines do not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return socket.gethostname()
