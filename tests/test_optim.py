"""Optimizers and schedules: what they do is what torch does, and every option counts."""

import math
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from rnnclf.errors import ConfigError
from rnnclf.optim import OPTIMIZERS, SCHEDULES, SGD, Cosine, OneCycle

each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS.names())
each_schedule = pytest.mark.parametrize("name", SCHEDULES.names())


def problem():
    """Points on a plane, and a linear model that does not know it yet."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    x_NI = torch.randn(32, 4, dtype=torch.float64)
    y_NK = x_NI @ torch.randn(4, 2, dtype=torch.float64) + 0.5
    return model, x_NI, y_NK


def run(model, torch_optimizer, x_NI, y_NK, rates):
    """One step for each of `rates`; returns the loss before each."""
    losses = []
    for rate in rates:
        for group in torch_optimizer.param_groups:
            group["lr"] = rate
        torch_optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x_NI), y_NK)
        loss.backward()
        torch_optimizer.step()
        losses.append(loss.item())
    return losses


def weights_after(optimizer, steps):
    model, x_NI, y_NK = problem()
    run(model, optimizer.build(model), x_NI, y_NK, [optimizer.lr] * steps)
    return {name: weight.detach() for name, weight in model.named_parameters()}


@each_optimizer
def test_least_squares_converge(name):
    model, x_NI, y_NK = problem()
    optimizer = OPTIMIZERS[name](lr=0.05)
    rates = [optimizer.lr * Cosine().factor(step, 400) for step in range(400)]
    losses = run(model, optimizer.build(model), x_NI, y_NK, rates)
    assert losses[-1] < 1e-4 * losses[0]


def torch_adam(weights, o):
    return torch.optim.Adam(weights, o.lr, (o.beta1, o.beta2), o.eps, o.weight_decay)


def torch_adamw(weights, o):
    return torch.optim.AdamW(weights, o.lr, (o.beta1, o.beta2), o.eps, o.weight_decay)


def torch_sgd(weights, o):
    return torch.optim.SGD(
        weights, o.lr, momentum=o.momentum, weight_decay=o.weight_decay, nesterov=o.nesterov
    )


def torch_rmsprop(weights, o):
    return torch.optim.RMSprop(weights, o.lr, o.alpha, o.eps, o.weight_decay, o.momentum)


TORCH = {"adam": torch_adam, "adamw": torch_adamw, "sgd": torch_sgd, "rmsprop": torch_rmsprop}
ALTERNATIVES = {
    "lr": 0.03,
    "weight_decay": 0.2,
    "beta1": 0.7,
    "beta2": 0.9,
    "eps": 0.1,
    "momentum": 0.5,
    "nesterov": True,
    "alpha": 0.8,
}


def own_options(kind):
    return [field.name for field in fields(kind) if field.name != "name"]


def test_every_optimizer_has_its_torch_twin_here():
    assert set(TORCH) == set(OPTIMIZERS.names())


@each_optimizer
@pytest.mark.parametrize("changed", [False, True], ids=["defaults", "all options changed"])
def test_ten_steps_equal_those_of_torch(name, changed):
    kind = OPTIMIZERS[name]
    optimizer = kind(**({option: ALTERNATIVES[option] for option in own_options(kind)} if changed else {}))
    ours, x_NI, y_NK = problem()
    theirs, _, _ = problem()
    with_bias_as_matrix(ours)
    with_bias_as_matrix(theirs)
    rates = [optimizer.lr] * 10
    run(ours, optimizer.build(ours), x_NI, y_NK, rates)
    run(theirs, TORCH[name](theirs.parameters(), optimizer), x_NI, y_NK, rates)
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=0, atol=1e-12)


def with_bias_as_matrix(model):
    """Weight decay leaves a bias alone, as a matrix of one row it is decayed as torch does."""
    model.bias = nn.Parameter(model.bias.detach().unsqueeze(0))


@each_optimizer
def test_weight_decay_touches_matrices_only(name):
    kind = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    before = [weight.detach().clone() for weight in model.parameters()]
    torch_optimizer = kind(weight_decay=0.5).build(model)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    torch_optimizer.step()
    for weight, old in zip(model.parameters(), before, strict=True):
        if weight.ndim > 1:
            assert ((weight - old) * old < 0).all()  # every value moved towards zero
        else:
            assert torch.equal(weight, old)


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, kind in OPTIMIZERS.items() for option in own_options(kind)]
)
def test_every_option_changes_the_trajectory(name, option):
    kind = OPTIMIZERS[name]
    usual = weights_after(kind(), steps=3)
    changed = weights_after(kind(**{option: ALTERNATIVES[option]}), steps=3)
    assert not torch.equal(usual["weight"], changed["weight"])


@each_optimizer
def test_frozen_weights_are_left_out(name):
    model = nn.Linear(4, 2)
    model.weight.requires_grad_(False)
    groups = OPTIMIZERS[name]().build(model).param_groups
    assert [id(weight) for group in groups for weight in group["params"]] == [id(model.bias)]


@each_optimizer
@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_learning_rate_out_of_range_is_refused(name, lr):
    with pytest.raises(ConfigError, match=f"lr must be above 0, got {lr}"):
        OPTIMIZERS[name](lr=lr)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match="nesterov needs a momentum above 0"):
        SGD(nesterov=True, momentum=0.0)


# Schedules


def factors(schedule, total):
    return [schedule.factor(step, total) for step in range(total)]


def torch_factors(scheduler_of, total):
    """The rates that one of torch's schedulers gives an optimizer with a rate of 1."""
    torch_optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(torch_optimizer)
    rates = []
    for _ in range(total):
        rates.append(torch_optimizer.param_groups[0]["lr"])
        torch_optimizer.step()
        if len(rates) < total:
            scheduler.step()
    return rates


@pytest.mark.parametrize(("warmup", "total"), [(0.3, 100), (0.3, 7), (0.25, 8), (0.5, 3), (0.9, 41)])
@pytest.mark.parametrize(("start", "final"), [(0.04, 4e-6), (0.5, 0.1), (0.1, 0.5)])
def test_onecycle_equals_that_of_torch(warmup, total, start, final):
    expected = torch_factors(
        lambda torch_optimizer: lr_scheduler.OneCycleLR(
            torch_optimizer,
            max_lr=1.0,
            total_steps=total,
            pct_start=warmup,
            div_factor=1 / start,
            final_div_factor=start / final,
            cycle_momentum=False,
        ),
        total,
    )
    assert factors(OneCycle(warmup=warmup, start=start, final=final), total) == pytest.approx(expected)


@pytest.mark.parametrize("total", [1, 2, 9, 100])
@pytest.mark.parametrize("final", [0.0, 0.3])
def test_cosine_equals_that_of_torch(total, final):
    expected = torch_factors(
        lambda torch_optimizer: lr_scheduler.CosineAnnealingLR(torch_optimizer, total, eta_min=final), total
    )
    assert factors(Cosine(final=final), total) == pytest.approx(expected)


def test_warmup_rises_evenly_to_one_and_falls_from_there():
    f = factors(Cosine(warmup=0.25, final=0.1), 40)
    assert f[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert f[10:] == pytest.approx(factors(Cosine(final=0.1), 30))


def test_onecycle_goes_from_start_over_one_to_final():
    f = factors(OneCycle(warmup=0.3, start=0.04, final=0.01), 10)
    assert (f[0], f[2], f[-1]) == pytest.approx((0.04, 1.0, 0.01))
    assert f == sorted(f[:3]) + sorted(f[3:], reverse=True)


def test_constant_is_one():
    assert factors(SCHEDULES["constant"](), 5) == [1.0] * 5


@each_schedule
@pytest.mark.parametrize("warmup", [1e-9, 0.1, 1 / 3, 0.5, 2 / 3, 0.9, 1 - 2**-53])
def test_every_step_of_short_trainings_has_a_factor(name, warmup):
    kind = SCHEDULES[name]
    schedule = kind(**({"warmup": warmup} if "warmup" in own_options(kind) else {}))
    for total in range(1, 20):
        f = factors(schedule, total)
        assert all(0 <= factor <= 1 for factor in f), total
        assert max(f) > 0, total


@each_schedule
@pytest.mark.parametrize("warmup", [1e-9, 0.3, 0.9, 1 - 2**-53])
def test_training_of_one_step_has_the_full_rate(name, warmup):
    kind = SCHEDULES[name]
    schedule = kind(**({"warmup": warmup} if "warmup" in own_options(kind) else {}))
    assert schedule.factor(0, 1) == 1


SHARES = {
    "warmup": st.floats(0, 1, exclude_min=True, exclude_max=True),
    "start": st.floats(0, 1, exclude_min=True),
    "final": st.floats(0, 1),
}


@pytest.mark.long
@settings(deadline=None)
@given(data=st.data(), total=st.integers(1, 10**7))
@each_schedule
def test_factors_stay_between_zero_and_one(name, data, total):
    kind = SCHEDULES[name]
    schedule = kind(**{option: data.draw(SHARES[option], label=option) for option in own_options(kind)})
    step = data.draw(st.integers(0, total - 1), label="step")
    assert 0 <= schedule.factor(step, total) <= 1


OTHER_FACTORS = {"warmup": 0.6, "start": 0.3, "final": 0.2}


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, kind in SCHEDULES.items() for option in own_options(kind)]
)
def test_every_option_changes_the_factors(name, option):
    kind = SCHEDULES[name]
    assert factors(kind(**{option: OTHER_FACTORS[option]}), 20) != factors(kind(), 20)


@pytest.mark.parametrize("kind", [Cosine, OneCycle])
@pytest.mark.parametrize(("option", "value"), [("warmup", 1.0), ("warmup", -0.1), ("final", 1.1)])
def test_shares_out_of_range_are_refused(kind, option, value):
    with pytest.raises(ConfigError, match=f"{option} must be .*, got {value}"):
        kind(**{option: value})


@pytest.mark.slow
@pytest.mark.long
def test_torchs_compiler_is_not_imported_for_a_step():
    code = (
        "import sys, torch; from rnnclf.optim import OPTIMIZERS\n"
        "for kind in dict(OPTIMIZERS.items()).values():\n"
        "    model = torch.nn.Linear(2, 2); optimizer = kind().build(model)\n"
        "    model(torch.ones(1, 2)).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
