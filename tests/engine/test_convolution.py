"""Convolutions, summed and transformed, are sums over all earlier steps.

Shapes: T time, B batch, S convolved signals.
"""

import pytest
import torch

from rnnclf.engine import convolution
from rnnclf.engine.convolution import convolve
from rnnclf.engine.fft import weighted_sum
from rnnclf.engine.machine import convolution as machine

WAYS = [convolution._Summed.apply, convolution._Transformed.apply]


def summed_in_torch(kernel_TS, source_TBS):
    steps = range(len(source_TBS))
    return torch.stack([sum(kernel_TS[k] * source_TBS[t - k] for k in range(t + 1)) for t in steps])


def agree_with_gradients(found_TBS, expected_TBS, given, **tolerance):
    torch.testing.assert_close(found_TBS, expected_TBS, **tolerance)
    probe_TBS = torch.randn_like(expected_TBS)
    found, expected = (torch.autograd.grad(y_TBS, given, probe_TBS) for y_TBS in (found_TBS, expected_TBS))
    torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("time", [1, 2, 7, 50])
def test_a_convolution_is_the_sum_over_all_earlier_steps(dtype, time):
    torch.manual_seed(0)
    kernel_TS = torch.randn(time, 3, dtype=dtype, requires_grad=True)
    source_TBS = torch.randn(time, 2, 3, dtype=dtype, requires_grad=True)
    expected_TBS = summed_in_torch(kernel_TS, source_TBS)
    agree_with_gradients(convolve(kernel_TS, source_TBS), expected_TBS, [kernel_TS, source_TBS])
    torch.testing.assert_close(weighted_sum(kernel_TS, source_TBS), expected_TBS[-1])


@pytest.mark.parametrize("way", WAYS, ids=["summed", "transformed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signals", [16, 17, 40, 64])
@pytest.mark.parametrize("time", [1, 2, 11, 12, 13, 25, 47, 48, 49, 130])
def test_all_lengths_and_widths(way, dtype, signals, time):
    torch.manual_seed(time)
    kernel_TS = torch.randn(time, signals, dtype=dtype, requires_grad=True)
    source_TBS = torch.randn(time, 3, signals, dtype=dtype, requires_grad=True)
    expected_TBS = summed_in_torch(kernel_TS, source_TBS)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    agree_with_gradients(way(kernel_TS, source_TBS), expected_TBS, [kernel_TS, source_TBS], **tolerance)


@pytest.mark.parametrize("way", WAYS, ids=["summed", "transformed"])
def test_views_are_read_as_they_are(way):
    kernel_ST = torch.randn(16, 9, dtype=torch.float64, requires_grad=True)
    wide_BTS = torch.randn(4, 9, 40, dtype=torch.float64, requires_grad=True)
    kernel_TS, source_TBS = kernel_ST.t(), wide_BTS[::2, :, 10:26].transpose(0, 1)
    expected_TBS = summed_in_torch(kernel_TS, source_TBS)
    agree_with_gradients(way(kernel_TS, source_TBS), expected_TBS, [kernel_ST, wide_BTS])


def test_nothing_is_written_beside_the_result():
    """Also not where the last vector overlaps the one before it, or where a tile is not whole."""
    for signals in (16, 19, 33):
        memory = torch.full((13 * 3 * signals + 200,), 7.0)
        v_TBS = memory[100:-100].view(13, 3, signals)
        a_TBS, b_TBS = torch.randn(13, 3, signals), torch.randn(13, 3, signals)
        machine._run(a_TBS, b_TBS, v_TBS, backward=False)
        assert (memory[:100] == 7).all()
        assert (memory[-100:] == 7).all()
        assert (v_TBS != 7).all()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_a_batch_and_give_the_same_sums(threads, monkeypatch):
    monkeypatch.setattr(machine, "WORTH", machine.Worth(1, 1))
    torch.manual_seed(0)
    kernel_TS = torch.randn(20, 16, dtype=torch.float64, requires_grad=True)
    source_TBS = torch.randn(20, 7, 16, dtype=torch.float64, requires_grad=True)
    expected_TBS = summed_in_torch(kernel_TS, source_TBS)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert len(machine._rows(source_TBS)) == threads
        agree_with_gradients(convolve(kernel_TS, source_TBS), expected_TBS, [kernel_TS, source_TBS])
    finally:
        torch.set_num_threads(before)


def test_which_signals_are_summed(monkeypatch):
    def is_summed(signals_TBS):
        return convolution._can_be_summed(signals_TBS)

    short = torch.zeros(convolution.MOST_SUMMED, 1, 16)
    assert is_summed(short)
    assert is_summed(short.double())
    assert not is_summed(torch.zeros(convolution.MOST_SUMMED + 1, 1, 16))
    assert not is_summed(torch.zeros(5, 1, 1))  # fill no vector
    assert not is_summed(torch.zeros(5, 1, 16, dtype=torch.complex64))
    assert not is_summed(torch.zeros(5, 1, 16, dtype=torch.bfloat16))
    assert not is_summed(torch.zeros(5, 1, 16, device="meta"))
    with monkeypatch.context() as patch:
        patch.setattr("rnnclf.engine.choose.Engine.installed", False)  # no llvmlite
        assert not is_summed(short)


def test_without_machine_code_convolutions_are_transformed(monkeypatch):
    def broken(text, names):
        raise OSError("no memory may be executed")

    monkeypatch.setattr(machine, "compiled", broken)
    machine._compiled.cache_clear()
    try:
        kernel_TS, source_TBS = torch.randn(9, 16), torch.randn(9, 2, 16)
        found_TBS = convolve(kernel_TS, source_TBS)
        assert not convolution._can_be_summed(source_TBS)
    finally:
        machine._compiled.cache_clear()
    torch.testing.assert_close(found_TBS, summed_in_torch(kernel_TS, source_TBS), rtol=1e-4, atol=1e-4)
