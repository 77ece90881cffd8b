"""The next point of a search."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from rnnclf.tuning.space import Point, Real, Space, size_of
from rnnclf.tuning.study import distributions, silent_optuna, study_of
from rnnclf.tuning.trials import Select, Trial

if TYPE_CHECKING:
    import optuna

Sampler: TypeAlias = Literal["tpe", "gp", "random"]
SAMPLERS: dict[Sampler, str] = {
    "tpe": "the tree-structured Parzen estimator (Bergstra et al. 2011): milliseconds a point",
    "gp": "a Gaussian process: seconds a point, for runs that take minutes",
    "random": "points at random (Bergstra & Bengio 2012)",
}
"""What proposes points. Only samplers whose draws follow from the points so far: not CMA-ES, for instance,
whose state is in a storage."""

RANDOM: Sampler = "random"
RANDOM_FIRST = 8  # trials before a model of the score is worth something
ATTEMPTS = 4  # draws until one is new


def propose(
    space: Space, trials: Sequence[Trial], sampler: Sampler, seed: int, select: Select = "best"
) -> Point | None:
    """A new point; None if all points of the space were proposed already.

    The draw depends on nothing but the arguments: the same trials give the same point in another process.
    Trials that are running are taken for bad ones, so that workers side by side try different points.

    Raises ConfigError if Optuna is not installed.
    """
    taken = {_key(trial.point) for trial in trials}
    size = size_of(space)
    if size is not None and len(taken) >= size:
        return None
    drawn = random.Random(f"{seed}/{len(trials)}")  # text is hashed in the same way everywhere
    with silent_optuna():
        for name in (sampler, RANDOM):  # at chance where the sampler insists, as on a corner of the space
            study = study_of(space, trials, select, _sampler(name, drawn.getrandbits(32)))
            for _ in range(ATTEMPTS):
                point = _point(space, study.ask(distributions(space)))
                if _key(point) not in taken:
                    return point
    return point if size is None else _free(space, taken, drawn.randrange(size))


def _sampler(name: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import GPSampler, RandomSampler, TPESampler

    if name == "tpe":
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=RANDOM_FIRST)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=RANDOM_FIRST)
    return RandomSampler(seed=seed)


def _point(space: Space, trial: optuna.Trial) -> Point:
    """The point that Optuna asks for, in the order of the space, with short numbers."""
    return {
        key: dimension.rounded(trial.params[key]) if isinstance(dimension, Real) else trial.params[key]
        for key, dimension in space.items()
    }


def _key(point: Point) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(point.items()))


def _free(space: Space, taken: set[tuple[tuple[str, object], ...]], first: int) -> Point:
    """The first point from position `first` on that is not taken, where Optuna only asks for taken ones."""
    size = size_of(space) or 0
    positions = ((first + offset) % size for offset in range(size))
    points = (_at(space, position) for position in positions)
    return next(point for point in points if _key(point) not in taken)


def _at(space: Space, position: int) -> Point:
    """The point at a position from 0 to the number of points - 1: a number whose digits are the values."""
    point: Point = {}
    for key, dimension in space.items():
        assert not isinstance(dimension, Real)
        position, digit = divmod(position, dimension.size)
        point[key] = dimension.value(digit)
    return point
