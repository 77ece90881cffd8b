"""Answers of a trained classifier while its sequences arrive, a step at a time. Prints nothing.

Shapes: C channels, K classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnclf.data.matching import UNIT
from rnnclf.data.step_lines import Step, StepLines
from rnnclf.errors import ConfigError, DataError
from rnnclf.export.step import ClassifierStep, Memory, refuse_streaming
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.setup import register
from rnnclf.registry import did_you_mean
from rnnclf.workflows import machine
from rnnclf.workflows.early import promise
from rnnclf.workflows.loading import load_model, one_checkpoint, with_times_told
from rnnclf.workflows.stream_source import wanted_of, window_of

FREE_KEYS = ("dataset", "threads", "plugins")
FIXED = ("device=cpu", "precision=float32")
ENOUGH = 100  # intervals between steps that tell whether times are in another unit

ONE = torch.ones(1)  # the time between steps without times

Note = Callable[[str], None]


class Answer(NamedTuple):
    """What the classifier says of a sequence after a step.

    id: of the sequence, or its number from 0 if lines have none. step: the number of the step, from 1 on.
    place: of the most probable class. probability_K: of each class.
    """

    id: str | int
    step: int
    place: int
    probability_K: list[float]


@dataclass(frozen=True)
class Choice:
    """Which answers are given: after every so many steps of a sequence or, of windows, for every so many; or
    one for each sequence.

    last: at its end. when: as soon as a class is so probable, otherwise at its end.
    sequences: how many are kept apart. skip_bad: whether lines that cannot be read are left out.
    """

    every: int = 1
    last: bool = False
    when: float | None = None
    sequences: int = 10_000
    skip_bad: bool = False

    def __post_init__(self) -> None:
        given = {"--every": self.every != 1, "--last": self.last, "--when": self.when is not None}
        if len(both := [word for word, yes in given.items() if yes]) > 1:
            raise ConfigError(f"{both[0]} and {both[1]} do not go together: leave one out.")
        if self.when is not None and not 0 < self.when < 1:
            raise ConfigError(f"--when must be a probability between 0 and 1, got {self.when:g}.")

    @property
    def once(self) -> bool:
        """Whether each sequence gets one answer."""
        return self.last or self.when is not None


class _Run(NamedTuple):
    """The steps from some point on that one answer is about: those of a sequence, or of a window.

    logits: None before the first step that is not left out.
    """

    memory: Memory
    steps: int = 0
    logits: Tensor | None = None


@dataclass
class _Sequence:
    """What is kept of a sequence that goes on.

    runs: one, or of windows those that have begun, the oldest first. answer: the last one, if it may have to
    be given at the end. decided: whether its only answer has been given.
    """

    id: str | int
    steps: int = 0
    time: int | float | None = None
    runs: list[_Run] = field(default_factory=list)
    answer: Answer | None = None
    decided: bool = False


@dataclass
class _Lines:
    """How many steps were taken, how many lines could not be read, and why the first one.

    skip_bad: whether such lines are left out.
    """

    skip_bad: bool
    taken: int = 0
    bad: int = 0
    first: DataError | None = None

    def refuse(self, error: DataError) -> None:
        """Counts a line that cannot be read. Raises the error unless such lines are left out."""
        if not self.skip_bad:
            raise error
        self.bad, self.first = self.bad + 1, self.first or error


class Stream:
    """A classifier that takes lines and gives answers.

    classes: the names of its classes.
    """

    def __init__(
        self, path: Path, words: Sequence[str], choice: Choice, note: Note = lambda text: None
    ) -> None:
        """note: takes remarks for the user, as sentences.

        Raises an RnnclfError if `path` holds no model, or one that cannot answer step by step.
        """
        _register(parsed(list(words)))
        own = [] if any(word.startswith("threads=") for word in words) else ["threads=1"]
        loaded = with_times_told(load_model(one_checkpoint(path), [*words, *own, *FIXED]))
        self.choice, self.classes, self._note = choice, loaded.learned.classes, note
        self._preparation = loaded.learned.preparation
        refuse_streaming(loaded.model.stack, self._preparation)
        self._window = window_of(loaded)
        if choice.when is not None:
            note(promise(loaded.checkpoint, choice.when))
        machine.prepare(loaded.config)
        self._wanted = wanted_of(loaded)
        self._step = ClassifierStep(loaded.model.eval(), self._preparation)
        self._step.use_engines()
        self._start, self._temperature = self._step.beginning(), loaded.checkpoint.temperature
        self._drops = self._preparation.missing == "drop"
        self._open: OrderedDict[str | int, _Sequence] = OrderedDict()
        self._number = self._dropped = 0
        self._intervals: list[float] = []

    def answers(self, arrivals: Iterable[list[tuple[int, bytes]]], name: str) -> Iterator[list[Answer]]:
        """The answers to lines of text, each with its number. Those that arrived together are answered
        together, in their order.

        name: what messages call their source. Raises DataError for a line that cannot be read, unless such
        lines are left out, and if there is none that can.
        """
        reader, lines, begun = StepLines(name, self._wanted), _Lines(self.choice.skip_bad), False
        with torch.inference_mode():
            for arrived in arrivals:
                waiting: list[Step] = []
                for line, text in arrived:
                    if not text.strip():
                        if not reader.id:
                            yield from self._taken(waiting, reader, lines)
                            yield self._ended()
                            waiting = []
                        continue
                    if not begun:
                        begun, is_header = True, reader.begin(text, line)
                        for sentence in reader.notes:
                            self._note(sentence)
                        if is_header:
                            continue
                    try:
                        waiting.append(reader.step(text, line))
                    except DataError as error:
                        yield from self._taken(waiting, reader, lines)
                        waiting = []
                        lines.refuse(error)
                yield from self._taken(waiting, reader, lines)
        yield self._ended()
        if not lines.taken:
            raise DataError(_nothing(name, begun, lines))
        self._conclude(lines)

    def _taken(self, steps: list[Step], reader: StepLines, lines: _Lines) -> Iterator[list[Answer]]:
        """The answers that are due after steps that arrived together."""
        due = self._after_all(steps, reader) if len(steps) > 1 else None
        if due is not None:
            lines.taken += len(steps)
            yield due
            return
        for step in steps:
            try:
                due = self._after(step, reader)
            except DataError as error:
                lines.refuse(error)
                continue
            lines.taken += 1
            yield due

    def _after(self, step: Step, reader: StepLines) -> list[Answer]:
        """The answers that are due after a step. Raises DataError, and then nothing has changed."""
        sequence = self._sequence_of(step)
        if sequence.decided:
            return self._kept(sequence)
        runs, logits = self._advanced(sequence, step, self._elapsed(step, sequence.time, reader)), None
        if self._window:
            if runs and runs[0].steps == self._window[0]:
                logits, runs = runs[0].logits, runs[1:]
        elif not self._leaves_out(step):
            logits = runs[0].logits
        logit_K = [] if logits is None else logits[0].tolist()
        if not math.isfinite(sum(logit_K)):
            place = f"{reader.name}, line {step.line}"
            raise DataError(f"{place}: the answer is not finite. Are the values in the usual units?")
        self._watch(step, sequence.time, reader)
        sequence.runs, sequence.steps, sequence.time = runs, sequence.steps + 1, step.time
        due = self._answered(sequence, logit_K) if logit_K else []
        return [*self._kept(sequence), *due]

    def _after_all(self, steps: list[Step], reader: StepLines) -> list[Answer] | None:
        """The answers that are due after several steps, in their order. None if these have to be taken one by
        one, and then nothing has changed."""
        sequences = {self._key_of(step): self._sequence_of(step) for step in steps}
        together = self._step.at_once and not self._window
        if not together or len(self._open.keys() | sequences.keys()) > self.choice.sequences:
            return None
        places: dict[str | int, list[int]] = {key: [] for key in sequences}
        for place, step in enumerate(steps):
            places[self._key_of(step)].append(place)
        found = {}
        for key, sequence in sequences.items():
            own = [steps[place] for place in places[key]]
            logits_TK, memory = self._advanced_all(sequence, own, reader)
            if logits_TK is None:
                return None
            found[key] = logits_TK.tolist(), memory
        due: list[tuple[int, Answer]] = []
        for key, (logits, memory) in found.items():
            sequence = sequences[key]
            for place, logit_K in zip(places[key], logits, strict=True):
                if sequence.decided:
                    break
                self._watch(steps[place], sequence.time, reader)
                sequence.steps, sequence.time = sequence.steps + 1, steps[place].time
                due += [(place, answer) for answer in self._answered(sequence, logit_K)]
            sequence.runs = [] if sequence.decided else [_Run(memory, sequence.steps)]
        for step in steps:
            self._kept(sequences[self._key_of(step)])
        return [answer for _, answer in sorted(due, key=lambda pair: pair[0])]

    def _key_of(self, step: Step) -> str | int:
        return self._number if step.id is None else step.id

    def _sequence_of(self, step: Step) -> _Sequence:
        key = self._key_of(step)
        return self._open.get(key) or _Sequence(key)

    def _elapsed(self, step: Step, before: int | float | None, reader: StepLines) -> float:
        """The time since the step before; 1 without times. Raises DataError if it goes back."""
        if step.time is None:
            return 1.0
        if before is None:
            return 0.0
        passed = (step.time - before) / reader.unit
        if passed < 0:
            place, whose = f"{reader.name}, line {step.line}", "" if step.id is None else f" of '{step.id}'"
            raise DataError(f"{place}: the time is before that of the last step{whose}.")
        return passed

    def _watch(self, step: Step, before: int | float | None, reader: StepLines) -> None:
        """Doubts the unit of the times if the first intervals are far from those of the training data."""
        if len(self._intervals) == ENOUGH or step.time is None or before is None:
            return
        self._intervals.append((step.time - before) / reader.unit)
        if len(self._intervals) < ENOUGH or self._preparation.missing != "mask":
            return
        ratio = sum(self._intervals) / ENOUGH / self._preparation.interval
        if not 1 / UNIT < ratio < UNIT:
            way, by = ("further apart", ratio) if ratio > 1 else ("closer together", 1 / max(ratio, 1e-9))
            self._note(
                f"The first steps are {by:,.0f} times {way} than those of the training data: are their times"
                " in another unit?"
            )

    def _leaves_out(self, step: Step) -> bool:
        return self._drops and any(value != value for value in step.values_C)

    def _advanced(self, sequence: _Sequence, step: Step, elapsed: float) -> list[_Run]:
        """The runs of a sequence after a step."""
        runs = sequence.runs
        if sequence.steps % self._window[1] == 0 if self._window else not runs:
            runs = [*runs, _Run(self._start)]
        if self._leaves_out(step):
            return [run._replace(steps=run.steps + 1) for run in runs]
        found = []
        x = torch.tensor([step.values_C], dtype=self._step.dtype)
        passed = ONE if elapsed == 1 else torch.tensor([elapsed])
        for run in runs:
            logits, memory = self._step.advance(x, passed, run.memory)
            found.append(_Run(memory, run.steps + 1, logits))
        return found

    def _advanced_all(
        self, sequence: _Sequence, steps: list[Step], reader: StepLines
    ) -> tuple[Tensor | None, Memory]:
        """The logits (T, K) after each of several steps of a sequence, and what is remembered after the last
        one. None for logits if a time or a logit is wrong, whichever it is."""
        before = sequence.runs[0].memory if sequence.runs else self._start
        if sequence.decided:
            return torch.zeros(len(steps), len(self.classes)), before
        times = [sequence.time, *(step.time for step in steps)]
        try:
            passed = [self._elapsed(step, time, reader) for step, time in zip(steps, times, strict=False)]
        except DataError:
            return None, before
        x_TC = torch.tensor([step.values_C for step in steps], dtype=self._step.dtype)
        logits_TK, memory = self._step.advance_all(x_TC, torch.tensor(passed), before)
        return (logits_TK if logits_TK.isfinite().all() else None), memory

    def _answered(self, sequence: _Sequence, logit_K: list[float]) -> list[Answer]:
        """The answer after the last step of a sequence, if one is due now; it may be kept for the end."""
        choice, number = self.choice, sequence.steps
        count = (number - self._window[0]) // self._window[1] + 1 if self._window else number
        if count % choice.every:
            return []
        place, probability_K = logit_K.index(max(logit_K)), _softmax(logit_K, self._temperature)
        answer = Answer(sequence.id, number, place, probability_K)
        if not choice.once:
            return [answer]
        if choice.when is None or probability_K[place] < choice.when:
            sequence.answer = answer
            return []
        sequence.decided, sequence.answer, sequence.runs = True, None, []
        return [answer]

    def _kept(self, sequence: _Sequence) -> list[Answer]:
        """Keeps a sequence as the latest, and forgets the oldest if there are too many: its answers."""
        self._open[sequence.id] = sequence
        self._open.move_to_end(sequence.id)
        if len(self._open) <= self.choice.sequences:
            return []
        _, oldest = self._open.popitem(last=False)
        self._dropped += 1
        if self._dropped == 1:
            self._note(
                f"More than {self.choice.sequences:,} sequences are open: '{oldest.id}', which has waited"
                " longest for a step, is dropped, and begins anew if it goes on. To keep more, set"
                " --sequences."
            )
        return [] if oldest.answer is None else [oldest.answer]

    def _ended(self) -> list[Answer]:
        """The answers of all sequences, which end here, in the order in which they began."""
        answers = [sequence.answer for sequence in self._open.values() if sequence.answer is not None]
        self._number += bool(self._open)
        self._open.clear()
        return answers

    def _conclude(self, lines: _Lines) -> None:
        if self._dropped > 1:
            self._note(f"{self._dropped:,} sequences were dropped, because too many were open.")
        if lines.bad:
            many = "1 line was" if lines.bad == 1 else f"{lines.bad:,} lines were"
            self._note(f"{many} left out; the first: {lines.first}")


def _softmax(logit_K: list[float], temperature: float) -> list[float]:
    """Probabilities in float64, for a few classes faster than by torch."""
    highest = max(logit_K)
    weight_K = [math.exp((logit - highest) / temperature) for logit in logit_K]
    total = sum(weight_K)
    return [weight / total for weight in weight_K]


def _nothing(name: str, begun: bool, lines: _Lines) -> str:
    if lines.bad:
        return f"No line could be read; the first: {lines.first}"
    return (
        f"{name} has a header but no steps." if begun else f"{name} is empty: it needs a line for each step."
    )


def _register(values: Mapping[str, Any]) -> None:
    """Registers plugins. Raises ConfigError for words that mean nothing here."""
    for key in values:
        if key.split(".")[0] not in FREE_KEYS:
            hint = did_you_mean(key, FREE_KEYS)
            raise ConfigError(
                f"'{key}' cannot be changed for a stream: the checkpoint fixes it.{hint}"
                f" You can set {', '.join(FREE_KEYS)}."
            )
    plugins = values.get("plugins", [])
    register([str(name) for name in (plugins if isinstance(plugins, list) else [plugins])])
