"""What a run asks of the machine."""

import platform
import subprocess
import sys

import pytest
import torch

from rnnclf import checkpoint
from rnnclf.config import Config
from rnnclf.errors import ConfigError
from rnnclf.hydra_app import load_config
from rnnclf.training import epoch as epoch_steps
from rnnclf.workflows import machine
from rnnclf.workflows.evaluate import evaluate
from rnnclf.workflows.loading import config_of
from rnnclf.workflows.runs import RunFolder
from rnnclf.workflows.train import train

SMALL = ["dataset=digits", "dataset.validation=30", "dataset.test=500", "hidden=8", "epochs=2", "threads=1"]

FAULTS = """
import resource
import torch
from rnnclf.workflows.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**26)  # 256 MiB, 65,536 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = min(faults() for _ in range(4))
keep_freed_memory()
print(usual, min(faults() for _ in range(4)))
"""


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to")


@pytest.mark.slow
@pytest.mark.long
@needs_glibc
def test_memory_of_the_last_step_is_there_for_the_next_one():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert usual >= 65536
    assert kept < 100


FREED = """
from rnnclf.workflows.machine import keep_freed_memory

def resident():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1])

before = resident()
blocks = [bytearray(2**16) for _ in range(1600)]  # 100 MiB in blocks that glibc takes from its heap
held, blocks = blocks.pop(), None  # the last one holds the heap's end where it is
keep_freed_memory()
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.long
@needs_glibc
def test_what_was_freed_before_is_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000


# Precision


def float32_products():
    backends = torch.backends
    return [one.fp32_precision for one in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has other names")
def test_float32_is_float32_and_tf32_is_tf32(monkeypatch):
    monkeypatch.setattr(machine, "supports_tf32", lambda device: True)
    machine.prepare(Config(precision="tf32", device="cpu"))
    assert float32_products() == ["tf32"] * 3
    for precision in ("float32", "bf16"):
        machine.prepare(Config(precision=precision, device="cpu"))
        assert float32_products() == ["ieee"] * 3


def test_tf32_is_refused_where_there_is_no_gpu_for_it(cli):
    message = "precision=tf32 needs an NVIDIA GPU of the Ampere generation or newer, and"
    done = cli("train", *SMALL, "device=cpu", "precision=tf32")
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_graphs_are_left_out_where_there_is_no_gpu_for_them(tmp_path, monkeypatch):
    config = load_config([*SMALL, "device=cpu"])
    assert config.graph
    monkeypatch.setattr(epoch_steps, "CapturedStep", None)
    train(config, RunFolder(tmp_path))


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_what_only_a_gpu_knows_is_left_out_where_a_checkpoint_is_used_without_one(tmp_path):
    train(load_config(SMALL), RunFolder(tmp_path))
    saved = checkpoint.load(tmp_path / "best.safetensors")
    header = {**saved.header, "config": {**saved.header["config"], "precision": "tf32"}}
    checkpoint.save(tmp_path / "best.safetensors", header, saved.tensors)
    config = config_of(checkpoint.load(tmp_path / "best.safetensors"))
    assert config.precision == "float32"
    (result,) = evaluate([tmp_path / "best.safetensors"], [])
    assert result.recorded_correct == result.evaluation.score.correct


@pytest.mark.long
def test_a_model_is_evaluated_in_the_precision_it_was_trained_in_unless_another_is_asked_for(tmp_path):
    report = train(load_config([*SMALL, "precision=bf16"]), RunFolder(tmp_path))
    (same,), (other,) = (evaluate([tmp_path], words) for words in ([], ["precision=float32"]))
    assert same.evaluation.score == report.scores["test"]
    assert other.evaluation.score.loss != same.evaluation.score.loss
    assert other.evaluation.score.loss == pytest.approx(same.evaluation.score.loss, rel=0.05)


def test_a_cell_that_bf16_does_not_go_with_is_said_before_the_first_step(tmp_path):
    with pytest.raises(ConfigError, match="precision=bf16 does not work with cell=lem here"):
        train(load_config([*SMALL, "cell=lem", "precision=bf16"]), RunFolder(tmp_path))
    assert not (tmp_path / "last.safetensors").exists()
