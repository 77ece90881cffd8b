"""Shows a search: what is searched, the trials while they run, and what was found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group
from rich.text import Text

from rnnclf.console.screen import interval, mean_and_sd, print_plain, screen, seconds_in_words, short
from rnnclf.console.sweep_display import board, line, looking, show_failed
from rnnclf.console.tables import PlainTable
from rnnclf.durations import roughly
from rnnclf.escaping import one_line
from rnnclf.metrics import percent
from rnnclf.tuning.space import as_typed, described
from rnnclf.tuning.space import words as words_of
from rnnclf.workflows.search.outcome import Outcome
from rnnclf.workflows.search.record import Search
from rnnclf.workflows.search.trials import Seen, Trials
from rnnclf.workflows.sweep_progress import JobsFollowed

SHOWN = 10  # trials of the table at the end
BAR = 20  # columns


def how_searched(search: Search) -> str:
    """When a search ends, and how it chooses."""
    ends = [f"at most {search.trials} trials"] if search.trials is not None else []
    ends += [f"{search.budget} of training"] if search.budget is not None else []
    how = (
        f"by {search.sampler}" if search.prune == "none" else f"by {search.sampler}, pruned by {search.prune}"
    )
    return f"{', '.join(ends)}, {how}"


def show_search(folder: Path, search: Search) -> None:
    """Prints what is searched, and where."""
    print_plain(f"searching {how_searched(search)}; folder {short(folder)}")
    if search.seeds:
        print_plain(f"then the best point with {search.seeds} other seed{'s' * (search.seeds != 1)}")
    for key, dimension in search.space.items():
        print_plain(f"  {described(key, dimension)}")


@contextmanager
def search_display(folder: Path, search: Search) -> Iterator[None]:
    """Shows the trials while they run, and prints a line for each that ends."""
    console, followed, trials = screen(), JobsFollowed(folder, from_now=True), Trials(folder, search)
    told = {one.trial.number for one in trials.seen() if one.trial.state != "running"}

    def look() -> Group:
        outcome = Outcome(folder, search, trials.seen())
        for one in outcome.seen:
            if one.trial.number not in told and one.trial.state != "running":
                told.add(one.trial.number)
                _show_ended(one, outcome)
        return board(followed.progress().running, [*_lines(outcome)], console)

    with looking(look):
        show_search(folder, search)
        yield


def _lines(outcome: Outcome) -> Iterator[Text]:
    """How far a search has come."""
    search, parts = outcome.search, [f"{outcome.count('done')} done"]
    parts += [f"{n} {state}" for state in ("pruned", "failed") if (n := outcome.count(state))]
    if search.trials is not None:
        parts[0] = f"{len(outcome.seen)} of {search.trials} trials: {parts[0]}"
    if search.seconds is not None:
        parts.append(f"{roughly(max(search.seconds - outcome.seconds, 0.0))} of {search.budget} left")
    yield line(", ".join(parts), "bold")
    if outcome.best is not None:
        yield line(f"best so far: {_in_words(outcome.best)}")


def _in_words(one: Seen) -> str:
    accuracy = "" if one.accuracy is None else f" {percent(one.accuracy)}"
    return f"#{one.trial.number}{accuracy}  {' '.join(words_of(one.trial.point))}"


def _show_ended(one: Seen, outcome: Outcome) -> None:
    epochs = len(one.trial.curve)
    if one.trial.state == "failed":
        show_failed(_in_words(one), one.run, one.status)
    elif one.trial.state == "pruned":
        print_plain(f"{_in_words(one)}: pruned after {epochs} epoch{'s' * (epochs != 1)}")
    else:
        is_best = outcome.best is not None and outcome.best.trial.number == one.trial.number
        print_plain(f"{_in_words(one)}{': the best so far' * is_best}")


def show_outcome(outcome: Outcome) -> None:
    """Prints the best trials, which settings matter, and the best point with other seeds."""
    console = screen()
    counts = [f"{n} {state}" for state in ("done", "pruned", "failed", "running", "stopped")
              if (n := outcome.count(state))]  # fmt: skip
    one = len(outcome.seen) == 1
    trials = f"{len(outcome.seen)} trial{'' if one else 's'}: {', '.join(counts) or 'none'}"
    if outcome.ranked:
        console.print(_table(outcome))
    console.print(Text(f"{trials}; {seconds_in_words(outcome.seconds)} of training", style="dim"))
    if outcome.seen and outcome.count("failed") == len(outcome.seen):
        console.print(Text(f"all trials failed, the first: {one_line(outcome.seen[0].reason)}", style="red"))
    for text in [*_importance(outcome), *_repeated(outcome), *_ensemble(outcome)]:
        console.print(text, soft_wrap=True)
    console.print(f"folder: {short(outcome.folder)}", soft_wrap=True, markup=False)
    if outcome.command is not None:
        console.print(f"train the best: {outcome.command}", soft_wrap=True, markup=False)
    console.print(f"search longer: rnnclf resume {short(outcome.folder)} {longer(outcome)}",
                  soft_wrap=True, markup=False)  # fmt: skip


def longer(outcome: Outcome) -> str:
    """The words with which a search goes on behind its end."""
    search = outcome.search
    words = [f"trials={2 * search.trials}"] if search.trials is not None else []
    if search.budget is not None:
        words.append(f"budget={re.sub('[0-9]+', lambda number: str(2 * int(number[0])), search.budget)}")
    return " ".join(words)


def _table(outcome: Outcome) -> PlainTable:
    """The best trials, with a column for each setting."""
    table = PlainTable()
    table.add_column("", justify="right")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("validation", justify="right", no_wrap=True)
    table.add_column("epochs", justify="right", no_wrap=True)
    for key in outcome.search.space:
        table.add_column(one_line(key), justify="right")
    for rank, seen in enumerate(outcome.ranked[:SHOWN], start=1):
        state = outcome.state_of(seen)
        epochs = f"{len(seen.trial.curve)}{'' if state == 'done' else f' {state}'}"
        score = "" if seen.accuracy is None else percent(seen.accuracy)
        values = [one_line(as_typed(value)) for value in seen.trial.point.values()]
        table.add_row(str(rank), f"#{seen.trial.number}", score, epochs, *values)
    return table


def _importance(outcome: Outcome) -> Iterator[Text]:
    shares = outcome.importance.shares
    if shares is None:
        yield Text(f"which settings matter: {outcome.importance.reason}", style="dim")
        return
    yield Text("which settings matter (share of the variance of the score)")
    width = max(map(len, shares))
    for key, share in shares.items():
        yield (
            Text(f"  {key:{width}}  ").append("━" * round(BAR * share), style="green").append(f" {share:.0%}")
        )


def _ensemble(outcome: Outcome) -> Iterator[Text]:
    if outcome.ensemble is None:
        return
    members, test = outcome.ensemble.members, outcome.ensemble.scores["test"]
    one = len(members) == 1
    which = "the best trial alone" if one else f"{len(members)} trials"
    yield Text(
        f"an ensemble of {which}: test {percent(test['accuracy'])} ({interval(test['interval95'])});"
        f" rnnclf eval {short(outcome.ensemble.path)}"
    )


def _repeated(outcome: Outcome) -> Sequence[Text]:
    """The best point with other seeds: what to expect of it."""
    found, best = outcome.repeated, outcome.best
    if best is None:
        return []
    if found is None:
        return [Text("The best trial was chosen by its score, which is too optimistic: add seeds=5.")]
    n = len(found.done)
    return [
        Text(
            f"the best with {n} other seed{'s' * (n != 1)}: validation {mean_and_sd(found.validation)}, test"
            f" {mean_and_sd(found.test)}; {short(outcome.winner)}"  # type: ignore[arg-type]
        )
    ]
