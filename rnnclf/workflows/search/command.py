"""The command `rnnclf tune`, and going on with a search. Prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rnnclf.config import Config, known_keys
from rnnclf.errors import ConfigError, RnnclfError
from rnnclf.files import claim_folder, made_folder
from rnnclf.hydra_app import Job
from rnnclf.hydra_app.checks import plan
from rnnclf.hydra_app.grammar import meant
from rnnclf.hydra_app.recipes import with_recipe
from rnnclf.hydra_app.search_words import searched
from rnnclf.hydra_app.words import anchored
from rnnclf.registry import nearest
from rnnclf.tuning.defaults import default_space, starting_point
from rnnclf.tuning.space import Space, edge_points
from rnnclf.tuning.space import words as words_of
from rnnclf.tuning.study import silent_optuna
from rnnclf.workflows import ledger
from rnnclf.workflows.ensemble import choose
from rnnclf.workflows.ensemble_file import save
from rnnclf.workflows.jobs import Finished, JobsWatcher, refuse_missing_data
from rnnclf.workflows.pretrained import continued_jobs
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import OUTPUTS, RunFolder
from rnnclf.workflows.search.asking import Asking, only_worker, planned
from rnnclf.workflows.search.outcome import Outcome
from rnnclf.workflows.search.record import KEYS, TRIALS, Search, read_search, with_words
from rnnclf.workflows.search.training import train_trial
from rnnclf.workflows.search.trials import Trials
from rnnclf.workflows.sweep import rank_sweep
from rnnclf.workflows.sweep_folder import ensemble_record, is_sweep, refuse_used_folder
from rnnclf.workflows.work import Queue
from rnnclf.workflows.workers import run_jobs, share_cores

FOLDER = "hydra.sweep.dir"


def tune(words: list[str], watch: JobsWatcher, places: int = 1) -> Finished:
    """Searches for the settings that train best.

    words: as of a sweep, and trials=, budget=, sampler=, prune= and seeds=. Without a range of values, a
        space is searched that suits the cell and the optimizer.
    places: the number of trials that run at once.

    Raises an RnnclfError for words that do not go together, before anything is written.
    """
    own, others = _apart(words, lambda key: key in KEYS)
    where, others = _apart(others, lambda key: key == FOLDER)
    _refuse_misspelt(others)
    search, config = _search(others, own, watch.note)
    folder = _folder(where, config.name)
    search.write(folder)
    return _run(folder, search, watch, places)


def resume_search(folder: Path, words: list[str], watch: JobsWatcher, places: int = 1) -> Finished:
    """Goes on with a search, or works on it beside others.

    words: trials=, budget= or seeds=, to search longer.

    Raises an RnnclfError.
    """
    own, others = _apart(words, lambda key: key in ("trials", "budget", "seeds"))
    if others:
        raise ConfigError(f"'{others[0]}' cannot be changed in a search: only trials, budget and seeds can.")
    search = with_words(read_search(folder), own)
    if own:
        with only_worker(folder):
            search.write(folder)
    return _run(folder, search, watch, places)


def _apart(words: list[str], is_own: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The words whose keys are `is_own`, and the others."""
    own = [word for word in words if "=" in word and is_own(word.partition("=")[0].strip())]
    return own, [word for word in words if word not in own]


def _refuse_misspelt(words: list[str]) -> None:
    """Raises ConfigError for `budgte=10m`: what composes configurations does not know these words."""
    known = known_keys()
    for key in (word.partition("=")[0].strip() for word in words if "=" in word):
        if key not in known and (meant := nearest(key, [*known, *KEYS])) in KEYS:
            raise ConfigError(f"No key named '{key}'. Did you mean '{meant}'?")


def _search(words: list[str], own: list[str], note: Callable[[str], None]) -> tuple[Search, Config]:
    """The search that words describe, and the configuration of one of its points."""
    with silent_optuna():  # which must be installed
        pass
    space, fixed, notes = searched(words)
    for sentence in notes:
        note(sentence)
    fixed = [anchored(word, str(Path.cwd())) for word in fixed]
    space = space or _default(fixed)
    search = Search(tuple(fixed), space)
    jobs = [planned(search, point) for point in edge_points(space)]
    refuse_missing_data(jobs)
    config = jobs[0].config
    start = None
    with suppress(RnnclfError):  # what one would train without a search may not be valid
        start = starting_point(space, _usual(search.words).to_plain())
    search = replace(search, seed=config.seed, select=config.select, start=start)  # type: ignore[arg-type]
    if not any(word.startswith(("trials=", "budget=")) for word in own):
        own = [*own, f"trials={TRIALS}"]
    return with_words(search, own), config


def _default(fixed: list[str]) -> Space:
    space = default_space(_usual(fixed).to_plain(), [word.partition("=")[0] for word in fixed])
    if not space:
        raise ConfigError("Nothing is left to search: give a range, such as 'hidden=range(16,129,16)'.")
    return space


def _usual(words: Iterable[str]) -> Config:
    """The configuration without a search."""
    (job,) = continued_jobs(plan(with_recipe([*words])))
    return job.config


def _folder(where: list[str], name: str | None) -> Path:
    if not where:
        return claim_folder(Path(OUTPUTS), name=name or "")
    folder = Path(meant(where[-1].partition("=")[2]))
    refuse_used_folder(folder)
    return made_folder(folder)


def _run(folder: Path, search: Search, watch: JobsWatcher, places: int) -> Finished:
    if places > 1:
        share_cores(places)
    trials = Trials(folder, search)
    with watch.searching(folder, search):
        run_jobs(Asking(folder, search).take, partial(train_trial, trials=trials, watch=watch), watch, places)
    outcome = Outcome.of(folder, search)
    if outcome.count("running"):
        watch.left_to_others(folder, outcome.count("running"))
    else:
        if outcome.best is not None and search.seeds:
            _repeat_best(outcome, watch, places)
        _average(outcome, watch)  # last: it starts threads of polars, which a forked job would wait for
    outcome = Outcome.of(folder, search)
    outcome.write()
    watch.search_ended(outcome)
    results = {"folder": str(folder), **outcome.to_dict()}
    return Finished(results, failed=not outcome.count("done"))


def _average(outcome: Outcome, watch: JobsWatcher) -> None:
    """Chooses an ensemble of the trials that are done, where there are several."""
    done = [one.run.path for one in outcome.seen if one.trial.state == "done"]
    if len(done) > 1:
        try:
            save(choose(done), ensemble_record(outcome.folder))
        except RnnclfError as error:
            watch.note(f"There is no ensemble of the trials: {error}")


def _repeat_best(outcome: Outcome, watch: JobsWatcher, places: int) -> None:
    """Trains the best point with other seeds than that by which it was chosen."""
    search, folder, best = outcome.search, outcome.winner, outcome.best
    assert folder is not None
    assert best is not None
    with only_worker(outcome.folder):
        first = search.seed + 1
        words = [*search.words, *words_of(best.trial.point)]
        words = [word for word in words if not word.startswith(("seed=", "name="))]
        jobs = continued_jobs(plan(with_recipe([*words, f"seed=range({first},{first + search.seeds})"])))
        if is_sweep(folder):
            ledger.add_jobs(folder, jobs)
        else:
            with ledger.create_sweep(folder, jobs):
                pass
    with watch.jobs_run(folder):
        run_jobs(Queue(folder).take, partial(_train_quietly, watch=watch), watch, places)
    rank_sweep(folder)


def _train_quietly(job: Job, watch: JobsWatcher) -> float | None:
    report = resume_run(RunFolder(job.folder, job.number), conclude=watch.save)
    return None if report is None else report.scores["validation"].accuracy
