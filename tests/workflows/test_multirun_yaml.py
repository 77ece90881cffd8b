"""What resume makes of folders and of a multirun.yaml that are not what they should be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnclf.errors import RnnclfError
from rnnclf.hydra_app.compose import parsed
from rnnclf.hydra_app.grammar import literal, quoted
from rnnclf.workflows import ledger
from tests.damage import DAMAGE, damaged
from tests.workflows.sweeps import SMALL, states


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist: give a run folder or a sweep folder."),
        (["file"], "file is a file: give a run folder or a sweep folder."),
        (["empty"], "empty is not a run folder: it has no status.json."),
        (["run", "hidden=3"], "hidden cannot be changed when a run is resumed: only epochs can."),
        (["run", "epochs=many"], "epochs must be a whole number, got 'many'."),
        (["run", "epochs=1,2"], "'epochs=1,2' gives several values: give one."),
    ],
)
def test_what_cannot_be_resumed_is_told_in_a_sentence(cli, words, message):
    Path("file").touch()
    Path("empty").mkdir()
    Path("run").mkdir()
    done = cli("resume", *words)
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")


CANARY = {
    "launcher": {"hydra": {"launcher": {"_target_": "os.system", "command": "touch canary"}}},
    "name": {"hydra": {"runtime": {"choices": {"hydra/launcher": "../evil"}}}},
    "callback": {"hydra": {"callbacks": {"evil": {"_target_": "os.system", "command": "touch canary"}}}},
    "words": {
        "hydra": {
            "overrides": {
                "hydra": [
                    "hydra.launcher._target_=os.system", "hydra.job.env_set.X=1",
                    "hydra.launcher.n_jobs=${x:1}", "hydra.launcher.setup=[touch canary]",
                    "hydra.launcher.python=touch canary", 7,
                ],
                "task": ["seed=0", "+hydra.callbacks.evil._target_=os.system"],
            },
            "sweeper": {"_target_": "x.BasicSweeper", "params": {"seed": "${oc.env:HOME}"}},
            "job": {"config_name": "config"},
        },
    },
    "long": {
        "hydra": {
            "sweeper": {"_target_": "x.BasicSweeper"},
            "overrides": {"task": [f"seed={[0] * 10_000}"]},
            "job": {"config_name": "config"},
        },
    },
    "source": {
        "hydra": {
            "sweeper": {"_target_": "x.BasicSweeper"},
            "overrides": {"task": ["seed=0"]},
            "job": {"config_name": "config"},
            "runtime": {"config_sources": [{"provider": ["main"]}]},
        },
    },
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("text", ["", "{", *map(yaml.safe_dump, CANARY.values())])
def test_a_strange_multirun_yaml_runs_nothing_of_its_own(cli, two_jobs, text):
    """The jobs are known from their folders; the launcher is the basic one, and nothing can be added."""
    sweep = two_jobs
    (sweep / "1" / "results.json").unlink()
    (sweep / "multirun.yaml").write_text(text)
    assert ledger.launching(sweep, []) == []
    refused = cli("resume", sweep, "seed=5")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: sweep/multirun.yaml ")
    resumed = cli("resume", sweep)
    assert resumed.exit_code == 0, resumed.output
    assert states(sweep) == {"0": "done", "1": "done"}
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("joblib", ["hydra.launcher.n_jobs=3", "hydra.sweeper.max_batch_size=2"]),
        ("submitit_local", ["hydra.launcher.timeout_min=600"]),
        ("slurm", [f"hydra.launcher.{w}" for w in ("max_num_timeout=9", "signal_delay_s=60", "gres=gpu:1")]),
        ("ray", ["+hydra.launcher.ray.remote.num_gpus=0.5", "hydra.launcher.ray.remote.max_retries=-1"]),
    ],
)
def test_the_launcher_of_the_sweep_is_taken_again_with_its_limits(tmp_path, launcher, words):
    hydra = {"runtime": {"choices": {"hydra/launcher": launcher}}, "overrides": {"hydra": words}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    assert ledger.launching(tmp_path, []) == [f"hydra/launcher={launcher}", *words]
    assert ledger.launching(tmp_path, ["hydra/launcher=basic"]) == ["hydra/launcher=basic"]


WORDS = [*SMALL, "cell=basic,lstm", "seed=range(0,3)"]
RECORDED = yaml.safe_dump(
    {
        "hydra": {
            "sweeper": {
                "_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
                "params": None,
            },
            "overrides": {"task": WORDS, "hydra": ["hydra.launcher.n_jobs=3"]},
            "job": {"config_name": "config"},
            "runtime": {"choices": {"hydra/launcher": "joblib"}, "config_sources": [{"provider": "main"}]},
        }
    }
).encode()


@settings(max_examples=60, deadline=None)
@given(st.tuples(*DAMAGE))
def test_no_damage_to_multirun_yaml_ends_in_a_traceback(tmp_path_factory, damage):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "multirun.yaml").write_bytes(damaged(RECORDED, *damage))
    for word in ledger.launching(folder, []):
        assert re.fullmatch(r"hydra/launcher=\w+|hydra\.launcher\.n_jobs=[\w.:+-]+", word)
    try:
        kept = ledger._other_words(folder, ["seed=7"])
    except RnnclfError:
        return
    assert not [word for word in kept if word.startswith("seed=") or "hydra" in word]


@given(st.text(alphabet="ab '\\/\"$,{}[]=:é", max_size=12).filter(lambda text: "${" not in text))
def test_any_folder_can_be_named_in_hydras_grammar(text):
    assert parsed([f"key={quoted(text)}"]) == {"key": text}
    assert parsed([f"key={literal(text)}"]) == {"key": text}


def test_a_plain_path_is_typed_as_it_is():
    assert literal("data/my-table_2.csv") == "data/my-table_2.csv"
