"""Keeps trackers up to date while a run trains. Errors of a tracker are notes and never end the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rnnclf.training.loop import EpochResult
from rnnclf.training.state import BatchProgress
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.tracking import Mirror, reason_of, trackers_of, typed
from rnnclf.workflows.train import RunInfo, Watcher

PATIENCE = 100  # times as long as an attempt took, until the next: a dead server then costs 1 % of the time


@contextmanager
def mirrored(run: RunFolder, watch: Watcher, chosen: str | None = None) -> Iterator[Watcher]:
    """Yields the watcher to train with, which passes everything on to `watch`.

    chosen: a tracker, besides those that follow the run already.
    """
    names = dict.fromkeys([*trackers_of(run.path), *([] if chosen is None else [chosen])])
    if not names:
        yield watch
        return
    mirrors = [Attempts(Mirror(run, name), watch.note) for name in names]
    for mirror in mirrors:  # before the run looks at the clock
        watch.reading(f"importing {mirror.mirror.name}", 0.0)
        mirror.load()
    try:
        yield MirroringWatcher(watch, mirrors)
    finally:  # also after an interrupt: status.json says by now how the run ended
        for mirror in mirrors:
            mirror.end()


class Attempts:
    """A mirror whose errors are notes. After one, it rests for a while and then begins anew."""

    def __init__(self, mirror: Mirror, note: Callable[[str], None]) -> None:
        self.mirror, self.note = mirror, note
        self.begun = self.noted = False
        self.rests_until = 0.0

    def load(self) -> None:
        self._attempt(self.mirror.load)

    def begin(self) -> None:
        self.begun = True
        self._attempt(self.mirror.connect)

    def catch_up(self) -> None:
        if time.monotonic() >= self.rests_until:
            self._attempt(self.mirror.catch_up)

    def end(self) -> None:
        if not self.begun:
            return
        if not self._attempt(self.mirror.end):
            self._attempt(lambda: self.mirror.note_behind(True))
        elif self.noted:
            self.note(f"tracker={self.mirror.name} can be reached again, and nothing is missing in it")

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether it went well."""
        began = time.monotonic()
        try:
            work()
            return True
        except Exception as error:
            now = time.monotonic()
            self.rests_until = now + PATIENCE * (now - began)
            self.mirror.forget()
            if not self.noted:
                name, folder = self.mirror.name, typed(self.mirror.run.path)
                self.note(
                    f"tracker={name} failed, and the run goes on without it: {reason_of(error)}."
                    f" To send what is missing afterwards: rnnclf track {folder} tracker={name}"
                )
            self.noted = True
            return False


class MirroringWatcher(Watcher):
    """Passes all events on, and then brings the mirrors up to date."""

    def __init__(self, watch: Watcher, mirrors: list[Attempts]) -> None:
        self.watch, self.mirrors = watch, mirrors

    def reading(self, what: str, share: float) -> None:
        self.watch.reading(what, share)

    def started(self, info: RunInfo) -> None:
        self.watch.started(info)
        for mirror in self.mirrors:
            mirror.begin()

    def batch(self, progress: BatchProgress) -> None:
        self.watch.batch(progress)

    def epoch(self, result: EpochResult, best: bool) -> None:
        self.watch.epoch(result, best)
        for mirror in self.mirrors:
            mirror.catch_up()

    def note(self, sentence: str) -> None:
        self.watch.note(sentence)
