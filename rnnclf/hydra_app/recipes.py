"""Which recipe a command uses: files in conf/recipe that choose the settings a user leaves out."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from rnnclf.errors import ConfigError
from rnnclf.hydra_app.grammar import FUNCTION, meant, parts
from rnnclf.hydra_app.setup import conf_dir
from rnnclf.hydra_app.sources import is_own
from rnnclf.optim import OPTIMIZERS


def with_recipe(words: list[str]) -> list[str]:
    """Overrides in Hydra's grammar, with recipe=auto in front if all their data sets are the user's own.

    A word of the user's wins over the recipe, also where it says the same thing in another way: epochs over
    updates, patience over select=last, an optimizer over the learning rate of another one.

    Raises ConfigError for recipe=auto with other data, or beside an experiment.
    """
    given = dict(word.split("=", 1) for word in words)
    names = [meant(part) for part in parts(given.get("dataset", "mnist"))]
    own = all(map(is_own, names)) and not FUNCTION.fullmatch(given.get("dataset", ""))
    experiment = given.get("experiment", "null") != "null"
    asked = "auto" in parts(given.get("recipe", ""))
    if asked and not own:
        raise ConfigError("recipe=auto is for data of your own, such as dataset=my.csv: leave it out.")
    if asked and experiment:
        raise ConfigError("recipe=auto and an experiment both choose the settings: leave one out.")
    if not asked and ("recipe" in given or experiment or not own):
        return words
    more = [] if asked else ["recipe=auto"]
    if "epochs" in given and "updates" not in given:
        more.append("updates=null")
    if "updates" in given and "epochs" not in given:
        more.append("epochs=1")
    if given.get("patience", "null") != "null" and "select" not in given:
        more.append("select=best")
    if "optimizer" in given and "optimizer.lr" not in given:
        kind = dict(OPTIMIZERS.items()).get(given["optimizer"])
        rates = [option.default for option in fields(kind) if option.name == "lr"] if kind else []
        more += [f"optimizer.lr={rate}" for rate in rates]
    return [*more, *words]


@cache
def values_of_recipe() -> dict[str, Any]:
    """The keys of conf/recipe/auto.yaml and their values, such as optimizer.lr."""
    plain: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "recipe" / "auto.yaml"))
    chosen = {key.split("/")[-1]: name for entry in plain.pop("defaults") for key, name in entry.items()}
    for key, value in plain.items():
        chosen |= (
            {f"{key}.{name}": part for name, part in value.items()}
            if isinstance(value, dict)
            else {key: value}
        )
    return chosen
