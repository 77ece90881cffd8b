"""Draws the test accuracy of a tutorial run beside the published runs of the same recipe.

    python benchmarks/tutorial/curve.py benchmarks/tutorial/epochs.csv docs/tutorial.svg    (needs matplotlib)

Prints the figures that docs/tutorial.md quotes. epochs.csv beside this file is that of the run quoted there;
reference.csv holds what the versions of chapter 14's notebook of github.com/ageron/handson-ml, named in its
header, have printed.
"""

import csv
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt

LATE = 50  # the epochs after this one are the level that a run has reached


def read(path: Path) -> dict[str, list[float]]:
    """The columns of a CSV file, as numbers."""
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def main(run: Path, picture: Path) -> None:
    ours = read(run)["test_accuracy"]
    reference = read(Path(__file__).with_name("reference.csv"))
    epochs = [int(epoch) for epoch in reference.pop("epoch")]
    mean = [statistics.mean(values) for values in zip(*reference.values(), strict=True)]

    print(f"ours: mean of the last {LATE} epochs {statistics.mean(ours[LATE:]):.4f},", end=" ")
    print(f"sd {statistics.stdev(ours[LATE:]):.4f}, last {ours[-1]:.4f}, best {max(ours):.4f}")
    late = [value for curve in reference.values() for value in curve[LATE:]]
    print(f"published: mean of the last {LATE} {statistics.mean(late):.4f}, sd {statistics.stdev(late):.4f}")
    for epoch in (1, 2, 3, 5, 10, 20, 30, 50, 100):
        low, high = (pick(curve[epoch - 1] for curve in reference.values()) for pick in (min, max))
        print(f"| {epoch} | {ours[epoch - 1]:.4f} | {mean[epoch - 1]:.4f} | {low:.4f} – {high:.4f} |")

    figure, axes = plt.subplots(figsize=(8, 4.2))
    for number, curve in enumerate(reference.values()):
        label = "six published runs" if number == 0 else None
        axes.plot(epochs, curve, color="0.75", linewidth=0.8, label=label)
    axes.plot(epochs, mean, color="black", linewidth=1.2, label="their mean")
    axes.plot(epochs, ours, color="tab:green", linewidth=1.6, label="rnnclf train experiment=tutorial")
    axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0.94, 0.99), xlim=(1, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
