"""Which keys of a search matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rnnclf.tuning.space import Space
from rnnclf.tuning.study import silent_optuna, study_of
from rnnclf.tuning.trials import Select, Trial

FEWEST = 10  # trials; with fewer, the forest sees little but chance


class Importance(NamedTuple):
    """The share of the variance of the score that each key explains, largest first; or why there is none."""

    shares: dict[str, float] | None
    reason: str = ""


def importance(space: Space, trials: Sequence[Trial], seed: int, select: Select = "best") -> Importance:
    """The importance of each key, from the trials that were done or pruned.

    Functional ANOVA with a random forest (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html):
    the variance of the forest's prediction along one key, averaged over all others. Shares add up to 1, and
    concern the whole space, not only its good part. The same arguments give the same shares.

    Raises ConfigError if Optuna is not installed.
    """
    scored = [t for t in trials if t.state in ("done", "pruned") and t.value(select) is not None]
    if len(scored) < FEWEST:
        return Importance(None, f"needs at least {FEWEST} trials with a score, not {len(scored)}")
    if len({trial.value(select) for trial in scored}) == 1:
        return Importance(None, "all trials have the same score")
    varied = {key for key in space if len({trial.point[key] for trial in scored}) > 1}
    if not varied:
        return Importance(None, "all trials have the same values")
    with silent_optuna():
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        study = study_of({key: space[key] for key in varied}, scored, select)
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    shares = {key: float(found.get(key, 0.0)) for key in space}
    return Importance(dict(sorted(shares.items(), key=lambda item: -item[1])))
