"""Trials as a study of Optuna, in memory. Optuna is optional, and imported only here and where it is used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rnnclf.errors import ConfigError
from rnnclf.tuning.space import Choice, Dimension, Real, Space
from rnnclf.tuning.trials import Select, Trial

if TYPE_CHECKING:
    import optuna


@contextmanager
def silent_optuna() -> Iterator[None]:
    """Optuna's log and warnings are off in this context. Raises ConfigError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import optuna
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise ConfigError("Searching needs Optuna: pip install 'rnnclf[tune]'.") from error
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """The dimensions as Optuna has them, in an order that does not depend on that of the words."""
    return {key: _distribution(space[key]) for key in sorted(space)}


def study_of(
    space: Space, trials: Sequence[Trial], select: Select, sampler: optuna.samplers.BaseSampler | None = None
) -> optuna.Study:
    """A study with all trials.

    A pruned run counts with its score when it was pruned, which is low: that is why it was. A failed one
    counts as the worst, so that the search leaves settings that diverge or need too much memory; Optuna
    would forget it.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    known = distributions(space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    ended = [trial for trial in trials if trial.state != "running"]
    worst = min((value for trial in ended if (value := trial.value(select)) is not None), default=0.0)
    for trial in sorted(trials, key=lambda trial: trial.number):
        running = trial.state == "running"
        value = worst if trial.state == "failed" else trial.value(select)
        study.add_trial(
            create_trial(
                params={key: trial.point[key] for key in known},
                distributions=known,
                state=TrialState.RUNNING if running else TrialState.COMPLETE,
                value=None if running else (worst if value is None else value),
            )
        )
    return study


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    if isinstance(dimension, Real):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
