"""Prints the figures that are expected of experiments, as YAML for their files in conf/experiment.

    python benchmarks/recipes/expected.py                      every experiment that was measured
    python benchmarks/recipes/expected.py better tutorial

results.jsonl beside this file has a line for each run: "row", the experiment's name; "words", those of the
command line; "seed", "test" (accuracy), "seconds", "commit" and, if it is another machine
than HARDWARE, "hardware". Of two lines for the same words and seed, the later counts. The figures of
experiment=tutorial are those of the run in benchmarks/tutorial/epochs.csv.
"""

import csv
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import lines as read

from rnnclf.hydra_app.experiments import NO_SETTINGS

TUTORIAL = Path(__file__).parent.parent / "tutorial" / "epochs.csv"
HARDWARE = "2 cores of an AMD EPYC, one thread a run"


def figures(name: str, lines: list[dict]) -> list[dict]:
    """The figures of an experiment, an entry for each set of words beside its own."""
    runs: dict[str, dict[int, dict]] = {}
    for line in lines:
        if line["row"] == name:
            runs.setdefault(words_beside(name, line["words"]), {})[line["seed"]] = line
    return [summary(words, list(by_seed.values())) for words, by_seed in sorted(runs.items())]


def words_beside(name: str, words: str) -> str:
    """The settings that the words choose beside the experiment; none if they spell out the experiment."""
    typed = words.split()
    settings = [word for word in typed if word.partition("=")[0] not in ("experiment", *NO_SETTINGS)]
    return " ".join(settings) if f"experiment={name}" in typed else ""


def summary(words: str, runs: list[dict]) -> dict:
    """One entry: mean and deviation of the test accuracy over the seeds, the median time of a run."""
    tests = [run["test"] for run in runs]
    entry = {"words": words} if words else {}
    entry |= {"accuracy": round(statistics.mean(tests), 6)}
    if len(tests) > 1:
        entry["sd"] = round(statistics.stdev(tests), 6)
    entry |= {"seeds": len(tests), "seconds": round(statistics.median(run["seconds"] for run in runs))}
    for key, default in (("hardware", HARDWARE), ("commit", "")):
        entry[key] = ", ".join(dict.fromkeys(run.get(key, default) for run in runs))
    return entry


def of_tutorial(path: Path = TUTORIAL) -> dict:
    """The entry of experiment=tutorial: the test accuracy of the epoch with the best validation accuracy."""
    with open(path) as file:
        epochs = list(csv.DictReader(file))
    best = max(
        epochs, key=lambda epoch: (float(epoch["validation_accuracy"]), -float(epoch["validation_loss"]))
    )
    seconds = round(sum(float(epoch["seconds"]) for epoch in epochs))
    facts = {"hardware": "2 CPU cores", "commit": "62f1548"}  # see docs/tutorial.md
    source = {"source": "benchmarks/tutorial/epochs.csv"}
    return {"accuracy": float(best["test_accuracy"]), "seeds": 1, "seconds": seconds, **facts, **source}


def block(entries: list[dict]) -> str:
    """The YAML of these entries."""
    text = "expected:  # benchmarks/recipes/expected.py prints this\n"
    for entry in entries:
        for number, (key, value) in enumerate(entry.items()):
            shown = json.dumps(value, ensure_ascii=False)  # quoted: 1234567 and 12e4567 are numbers in YAML
            text += f"  {'-' if number == 0 else ' '} {key}: {shown}\n"
    return text


def main(names: list[str]) -> None:
    lines = read()
    for name in names or sorted({"tutorial", *(line["row"] for line in lines)}):
        entries = [of_tutorial()] if name == "tutorial" else figures(name, lines)
        print(f"# conf/experiment/{name}.yaml\n{block(entries) if entries else 'no runs'}")


if __name__ == "__main__":
    main(sys.argv[1:])
