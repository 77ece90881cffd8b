"""final_fit=true: trained once more on the training and the validation sequences."""

import pytest
import torch

from rnnclf import RNNClassifier, checkpoint
from rnnclf.console.training import _summary as training_summary
from rnnclf.hydra_app.compose import load_config
from rnnclf.training.loop import fit
from rnnclf.training.state import Training
from rnnclf.workflows import final
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.loading import build_model
from rnnclf.workflows.resume import resume_run
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import Data, Watcher, recipe, train
from tests.workflows.killed_runs import Kill

pytestmark = pytest.mark.long  # runs, not functions: some tenths of a second each

WORDS = (
    "dataset=digits dataset.validation=149 dataset.test=1500 hidden=4 threads=1 seed=3 batch_size=30 epochs=3"
)


def config_of(words=""):
    return load_config([*WORDS.split(), *words.split()])


def weights_of(folder):
    return checkpoint.load(RunFolder(folder).best).model_tensors()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The reports of a run with a final fit, and of one without."""
    base = tmp_path_factory.mktemp("runs")
    return [
        train(config_of(f"select=last {more}"), base / name)
        for name, more in (("fitted", "final_fit=true"), ("plain", ""))
    ]


def test_the_saved_model_is_that_of_a_training_on_both_splits(runs):
    config = config_of()
    data = Data.of(config, Watcher())
    both = final.joined(data.splits.train, data.splits.validation)
    assert len(both) == 297
    assert len(set(both.ids_N.tolist())) == 297
    torch.manual_seed(3)
    model = build_model(config, *data.shape)
    # 148 sequences in 5 batches, 3 times: 15 steps; 297 in 10 batches are 1.5 epochs, so 2
    training = Training(model, recipe(load_config([*WORDS.split(), "epochs=2"]), data))
    for _ in fit(training, both, data.splits.validation):
        pass
    assert same(weights_of(runs[0].folder.path), dict(model.state_dict()))


def test_only_validation_is_scored_by_the_model_before(runs):
    fitted, plain = (run.results for run in runs)
    assert fitted["final_fit"]
    assert not plain["final_fit"]
    assert fitted["validation"] == plain["validation"]
    assert fitted["test"] != plain["test"]
    shown = [str(training_summary(run).renderables[-1]) for run in runs]
    assert all("last epoch, 3;" in text and "by validation" not in text for text in shown)
    assert ["trained once more" in text for text in shown] == [True, False]
    assert not same(weights_of(runs[0].folder.path), weights_of(runs[1].folder.path))


def test_it_stops_where_the_best_epoch_was(monkeypatch):
    config = config_of("epochs=8")
    data = Data.of(config, Watcher())
    steps = []
    for best, most in ((8, 99), (4, 99), (0.2, 99), (8, 13)):
        seen = []

        def reason(seen=seen, most=most):
            return "No time is left." if len(seen) >= most else ""

        parts = data.splits.train, data.splits.validation
        _, why = final.fitted_to_all(config, recipe(config, data), *parts, best, seen.append, reason)
        steps.append(len(seen))
        assert why == ("No time is left." if most == 13 else "")
    assert steps == [40, 20, 10, 13]  # 10 steps an epoch; at least one of them, unless time is over


def test_eval_says_that_validation_was_trained_on(runs):
    for report, known in zip(runs, (149, 0), strict=True):
        (scored,) = evaluate([report.folder.path], ["split=validation"])
        assert scored.trained_on == known
        (scored,) = evaluate([report.folder.path], [])
        assert scored.trained_on == 0
        assert scored.recorded_correct == scored.evaluation.score.correct


class KilledInTheEnd(Watcher):
    def note(self, sentence):
        if sentence.startswith("Training once more"):
            raise Kill


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_final_fit_and_resumed_it_ends_the_same(runs, tmp_path, monkeypatch, moment):
    watcher = KilledInTheEnd() if moment == "before" else Watcher()
    if moment == "after":
        monkeypatch.setattr("rnnclf.workflows.train._write_results", killed)
    with pytest.raises(Kill):
        train(config_of("select=last final_fit=true"), tmp_path / "run", watcher)
    monkeypatch.undo()
    report = resume_run(RunFolder(tmp_path / "run"))
    assert same(weights_of(tmp_path / "run"), weights_of(runs[0].folder.path))
    for split in ("train", "validation", "test"):
        assert report.results[split] == runs[0].results[split]


def killed(*_):
    raise Kill


def test_python_trains_once_more_too():
    x, y = torch.randn(60, 5, 2).numpy(), [0, 1] * 30
    words = {"hidden": 3, "epochs": 2, "batch_size": 10, "threads": 1}
    before, after = (RNNClassifier(**words, final_fit=final_fit).fit(x, y) for final_fit in (False, True))
    assert len(before.history_) == len(after.history_) == 2
    assert not same(dict(before.model_.state_dict()), dict(after.model_.state_dict()))
