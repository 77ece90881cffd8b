"""What we call of wandb and trackio, keeping everything in a JSON file as their servers would, and a reader
for each tracker."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from rnnclf.workflows.runs import RunFolder

WANDB = '''
"""Each run is a file of its own; nothing of an earlier one is kept."""
import json, pathlib

class Settings(dict):
    def __init__(self, **options):
        super().__init__(options)

class Run:
    def __init__(self, folder, facts):
        self.file, self.facts, self.summary = folder / "run.json", facts, {}
        self.facts["rows"] = []
        self.write()

    def write(self):
        self.file.write_text(json.dumps(self.facts))

    def log(self, values, step):
        self.facts["rows"].append({"step": step, **values})
        self.write()

    def finish(self, exit_code):
        self.facts |= {"exit": exit_code, "summary": self.summary}
        self.write()

def init(*, project, group, id, name, config, resume, mode, reinit, dir, settings):
    print("wandb: tracking run", id)
    count = len(list(pathlib.Path(dir).glob("wandb/*-of-*")))
    folder = pathlib.Path(dir) / "wandb" / f"offline-run-{count}-{id}"
    folder.mkdir(parents=True)
    return Run(folder, {"id": id, "project": project, "group": group, "config": config, "mode": mode})
'''

TRACKIO = {
    "__init__.py": '''
"""Keeps what it is told, also twice, but loses the last three calls when it is killed."""
import json, pathlib

STORE = pathlib.Path("trackio.json")

class Run:
    def __init__(self, facts):
        self.facts, self.rows = facts, json.loads(STORE.read_text()) if STORE.exists() else []

    def log(self, values, step):
        self.rows.append({"run": self.facts["name"], "step": step, **values})
        STORE.write_text(json.dumps(self.rows[:-3]))

current = None

def finish():
    STORE.write_text(json.dumps(current.rows))

def init(*, project, name, group, config, resume, embed, auto_log_gpu, auto_log_cpu):
    global current
    print("* Trackio project initialized:", project)
    current = Run({"project": project, "name": name, "group": group})
    return current
''',
    "sqlite_storage.py": """
import json
from trackio import STORE

class SQLiteStorage:
    @staticmethod
    def get_logs(project, run):
        return [row for row in json.loads(STORE.read_text()) if row["run"] == run] if STORE.exists() else []
""",
}


def write_stand_ins(place: Path) -> None:
    (place / "wandb.py").write_text(WANDB)
    (place / "trackio").mkdir()
    for name, text in TRACKIO.items():
        (place / "trackio" / name).write_text(text)


def told(name: str, run: RunFolder, key: str) -> list[tuple[int, float]]:
    """The steps and values that a tracker holds, in its order."""
    ident = json.loads(run.tracker.read_text())["id"]
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.path))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars(key)]
    if name == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        (found,) = client.search_runs(experiments, f"tags.`rnnclf.run` = '{ident}'")
        history = client.get_metric_history(found.info.run_id, key)
        return [(metric.step, metric.value) for metric in history]
    if name == "wandb":
        (file,) = run.path.glob("wandb/offline-run-*/run.json")
        rows = json.loads(file.read_text())["rows"]
    else:
        rows = [row for row in json.loads(Path("trackio.json").read_text()) if row["run"] == ident]
    return [(row["step"], row[key]) for row in rows if key in row]


COLUMNS = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "seconds")


def write_epochs(run: RunFolder, epochs: int) -> None:
    """So many lines of epochs.csv; the loss of the second epoch is NaN."""
    with open(run.epochs, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for epoch in range(1, epochs + 1):
            loss = "nan" if epoch == 2 else 1 / epoch
            writer.writerow([epoch, 2 / epoch, loss, epoch / 64, epoch / 4])
