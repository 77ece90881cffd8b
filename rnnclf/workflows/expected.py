"""Whether a run of an experiment is what the file of the experiment expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnnclf.errors import ConfigError
from rnnclf.expectation import Expectation
from rnnclf.hydra_app.experiments import expectation_of
from rnnclf.workflows.runs import RunFolder


@dataclass(frozen=True)
class Judged:
    """The test accuracy of a run beside the one that was expected."""

    expectation: Expectation
    bounds: tuple[float, float]
    """The accuracies that are as expected."""
    accuracy: float

    @property
    def within(self) -> bool:
        return self.bounds[0] <= self.accuracy <= self.bounds[1]


def judged(run: RunFolder, results: Mapping[str, Any]) -> Judged | None:
    """A run beside the figures of its experiment; None if it has none, or if its words change the experiment.

    results: the content of results.json.
    """
    if results["extended"]:  # trained for more epochs than the experiment
        return None
    try:
        found = expectation_of(run.read_status().get("overrides", []), run.path / ".hydra" / "hydra.yaml")
    except ConfigError:  # the file was changed while the run trained, whose results are to be shown
        return None
    if found is None:
        return None
    test = results["test"]
    return Judged(found, found.bounds(test["total"]), test["accuracy"])
