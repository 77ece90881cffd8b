"""Optimizers and learning-rate schedules, by their names on the command line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from rnnclf.errors import ConfigError
from rnnclf.options import Component, option
from rnnclf.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer


@cache
def _torch_class(name: str) -> Callable[..., TorchOptimizer]:
    """A class of torch.optim without the decorators for torch's compiler: these import the compiler at their
    first call, which takes a second at every start and is of no use here."""
    import torch

    kind = getattr(torch.optim, name)
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {method: inspect.unwrap(getattr(kind, method)) for method in wrapped}
    return type(name, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


def make_step(optimizer: TorchOptimizer) -> None:
    """Does the same as optimizer.step(). For Adam and AdamW on a CPU, it calls torch's fused operation
    directly: the checks around it take as long as the operation itself, and longer with cold caches."""
    import torch

    operation = {"Adam": torch._fused_adam_, "AdamW": torch._fused_adamw_}.get(type(optimizer).__name__)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    new = any(weight not in optimizer.state or weight.device.type != "cpu" for weight in weights)
    if operation is None or new or optimizer._optimizer_step_pre_hooks:
        optimizer.step()
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            states = [optimizer.state[weight] for weight in weights]
            steps = [state["step"] for state in states]
            for step in steps:
                step += _one()
            operation(
                weights,
                [weight.grad for weight in weights],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=None,
            )


@cache
def _one() -> Tensor:
    """1 as a tensor, since a number would be converted to a tensor each time."""
    import torch

    return torch.ones(())


@dataclass
class Optimizer(Component):
    """Base of every optimizer."""

    lr: float = option(
        0.002, "learning rate; at each step it is multiplied by the factor of the schedule", above=0
    )
    weight_decay: float = option(
        0.0, "how strongly weight matrices are pulled towards 0; biases never are", low=0
    )

    def build(self, model: nn.Module) -> TorchOptimizer:
        """The torch optimizer for all weights of `model`; biases and gains are never decayed."""
        raise NotImplementedError(f"{type(self).__name__} must define build(model).")

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        weights = [w for w in model.parameters() if w.requires_grad]
        if not self.weight_decay:  # each group takes as long as all weights in one
            return [{"params": weights, "weight_decay": 0.0}]
        return [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]


@dataclass
class Adam(Optimizer):
    """Adam: adaptive moments; weight decay is added to the gradient."""

    name: str = "adam"
    beta1: float = option(0.9, "decay rate of the mean of the gradients", low=0, below=1)
    beta2: float = option(0.999, "decay rate of the mean of the squared gradients", low=0, below=1)
    eps: float = option(1e-8, "added to the divisor, against division by zero", above=0)

    def build(self, model: nn.Module) -> TorchOptimizer:
        return _torch_class("Adam")(self._groups(model), **self._settings())

    def _settings(self) -> dict[str, Any]:
        # fused: one pass over all weights instead of one per operation and weight
        return {"lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps, "fused": True}


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101)."""

    name: str = "adamw"
    weight_decay: float = option(
        0.01, "how strongly weight matrices are pulled towards 0; biases never are", low=0
    )

    def build(self, model: nn.Module) -> TorchOptimizer:
        return _torch_class("AdamW")(self._groups(model), **self._settings())


@dataclass
class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: str = "sgd"
    lr: float = option(
        0.1, "learning rate; at each step it is multiplied by the factor of the schedule", above=0
    )
    momentum: float = option(
        0.9, "momentum: share of the last step that is added to the next; 0: none", low=0, below=1
    )
    nesterov: bool = option(False, "look ahead along the momentum (Nesterov)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            raise ConfigError("optimizer.nesterov needs a momentum above 0, got 0.")

    def build(self, model: nn.Module) -> TorchOptimizer:
        return _torch_class("SGD")(
            self._groups(model),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            fused=True,
        )


@dataclass
class RMSprop(Optimizer):
    """RMSprop: steps divided by the running root mean square of the gradient."""

    name: str = "rmsprop"
    lr: float = option(
        0.001, "learning rate; at each step it is multiplied by the factor of the schedule", above=0
    )
    alpha: float = option(0.99, "decay rate of the mean of the squared gradients", low=0, below=1)
    momentum: float = option(
        0.0, "momentum: share of the last step that is added to the next; 0: none", low=0, below=1
    )
    eps: float = option(1e-8, "added to the divisor, against division by zero", above=0)

    def build(self, model: nn.Module) -> TorchOptimizer:
        return _torch_class("RMSprop")(
            self._groups(model), lr=self.lr, alpha=self.alpha, momentum=self.momentum, eps=self.eps
        )


@dataclass
class Schedule(Component):
    """Base of every schedule, which gives the factor on the learning rate at each step."""

    def factor(self, step: int, total: int) -> float:
        """The factor on the learning rate at `step` (counted from 0) of `total` steps."""
        raise NotImplementedError(f"{type(self).__name__} must define factor(step, total).")


@dataclass
class Constant(Schedule):
    """A constant learning rate."""

    name: str = "constant"

    def factor(self, step: int, total: int) -> float:
        return 1.0


@dataclass
class Cosine(Schedule):
    """A linear warm-up, then half a cosine wave from 1 down to `final`."""

    name: str = "cosine"
    warmup: float = option(
        0.0, "share of all steps in which the learning rate rises from 0 to optimizer.lr", low=0, below=1
    )
    final: float = option(
        0.0, "learning rate after the last step, as a fraction of optimizer.lr", low=0, high=1
    )

    def factor(self, step: int, total: int) -> float:
        warmup_steps = int(self.warmup * total)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return _cosine(1.0, self.final, (step - warmup_steps) / (total - warmup_steps))


@dataclass
class OneCycle(Schedule):
    """One cycle: from `start` up to 1, then down to `final`, each along half a cosine wave.

    Smith & Topin 2018, https://arxiv.org/abs/1708.07120, in two phases, like torch's OneCycleLR.
    """

    name: str = "onecycle"
    warmup: float = option(
        0.3, "share of all steps in which the learning rate rises to optimizer.lr", above=0, below=1
    )
    start: float = option(
        0.04, "learning rate at the first step, as a fraction of optimizer.lr", above=0, high=1
    )
    final: float = option(
        4e-6, "learning rate at the last step, as a fraction of optimizer.lr", low=0, high=1
    )

    def factor(self, step: int, total: int) -> float:
        top, end = max(self.warmup * total - 1, 0), total - 1
        if step <= top:
            return _cosine(self.start, 1.0, step / top if top else 1.0)
        return _cosine(1.0, self.final, (step - top) / (end - top))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optimizer", {"adam": Adam, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSprop}
)
SCHEDULES: Registry[type[Schedule]] = Registry(
    "schedule", {"constant": Constant, "cosine": Cosine, "onecycle": OneCycle}
)
