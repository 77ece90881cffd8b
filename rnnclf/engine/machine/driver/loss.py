"""The loss in the driver: weighted cross-entropy with label smoothing, of logits that become their gradients.

For a sequence of class y, with w the weights of the classes, s the smoothing and K classes:

    target_k = w (s / K + (1 - s) [k = y])        w is w_k with smoothing, otherwise w_y, as in torch
    loss     = Σ_k target_k (log Σ_j exp z_j - z_k)        divided by the sum of w_y over the batch
"""

from __future__ import annotations

from typing import Any

from rnnclf.engine.machine.driver.function import F64, DriverFunction
from rnnclf.engine.machine.driver.tables import Part, Shared
from rnnclf.engine.machine.emit.instructions import I64, CodeModule


def write_loss(module: CodeModule) -> Any:
    """loss(part): writes the part's share of the batch's loss and its number of correct predictions to
    `totals`, in float64; where gradients are wanted, replaces the logits by theirs and adds those up for the
    bias.

    A loss that is too large for the model's precision becomes infinite, as in torch.
    """
    return _Loss(module).write()


class _Loss(DriverFunction):
    def __init__(self, module: CodeModule) -> None:
        super().__init__(module, "loss", "part")
        self.part = self.record(Part, self.a["part"])
        self.shared = self.record(Shared, self.part.shared)
        self.exp, self.log = module.declare("exp", F64, F64), module.declare("log", F64, F64)
        classes = self.b.sitofp(self.shared.classes, F64)
        self.smoothing = self.load(self.shared.smoothing, F64)
        self.is_smooth = self.b.fcmp_ordered(">", self.smoothing, F64(0.0))
        self.share = self.b.fdiv(self.smoothing, classes)
        self.rest = self.b.fsub(F64(1.0), self.smoothing)

    def write(self) -> Any:
        b, part = self.b, self.part
        batch_weight = self._batch_weight()
        loss, correct = (*self.variables(F64, F64(0.0)), *self.variables(I64, I64(0)))
        with self.loop(0, part.rows) as row:
            y = self._label(self.add(part.first, row))
            z = self.at(part.z, (row, self.shared.z_row))
            best = self._best(z)
            b.store(b.add(b.load(correct), b.zext(b.icmp_signed("==", best, y), I64)), correct)
            largest = self._logit(z, best)
            exp_sum, target_sum = self._sums(z, y, largest)
            self._add_loss(loss, z, y, largest, exp_sum)
            with b.if_then(self.is_set(self.shared.learns)):
                self._differentiate(z, y, largest, b.fdiv(target_sum, exp_sum), batch_weight)
        value = self.widened(self.narrowed(b.load(loss)))
        self.store(b.fdiv(value, batch_weight), part.totals)
        self.store(b.sitofp(b.load(correct), F64), self.add(part.totals, 8))
        return self.end()

    def _label(self, position: Any) -> Any:
        """The class of the sequence at a position in the batch."""
        return self.load_integer(self.shared.labels, self.load_integer(self.shared.chosen, position))

    def _weight(self, k: Any) -> Any:
        return self.load(self.at(self.shared.class_weights, (k, 8)), F64)

    def _batch_weight(self) -> Any:
        (total,) = self.variables(F64, F64(0.0))
        with self.loop(0, self.shared.batch) as position:
            self.add_to(total, self._weight(self._label(position)))
        return self.b.load(total)

    def _logit(self, z: Any, k: Any) -> Any:
        return self.widened(self.load(self.at(z, (k, self.size)), self.number))

    def _target(self, k: Any, y: Any) -> Any:
        b = self.b
        share = b.fadd(self.share, b.select(b.icmp_signed("==", k, y), self.rest, F64(0.0)))
        return b.fmul(self._weight(b.select(self.is_smooth, k, y)), share)

    def _best(self, z: Any) -> Any:
        """The first class with the largest logit."""
        b, (best,) = self.b, self.variables(I64, I64(0))
        with self.loop(1, self.shared.classes) as k:
            better = b.fcmp_ordered(">", self._logit(z, k), self._logit(z, b.load(best)))
            b.store(b.select(better, k, b.load(best)), best)
        return b.load(best)

    def _sums(self, z: Any, y: Any, largest: Any) -> tuple[Any, Any]:
        """Σ exp(z_k - largest) and Σ target_k."""
        b, (exp_sum, target_sum) = self.b, self.variables(F64, F64(0.0), F64(0.0))
        with self.loop(0, self.shared.classes) as k:
            self.add_to(exp_sum, b.call(self.exp, [b.fsub(self._logit(z, k), largest)]))
            self.add_to(target_sum, self._target(k, y))
        return b.load(exp_sum), b.load(target_sum)

    def _add_loss(self, loss: Any, z: Any, y: Any, largest: Any, exp_sum: Any) -> None:
        b, log_sum = self.b, self.b.call(self.log, [exp_sum])
        with self.loop(0, self.shared.classes) as k:
            distance = b.fsub(log_sum, b.fsub(self._logit(z, k), largest))
            self.add_to(loss, b.fmul(self._target(k, y), distance))

    def _differentiate(self, z: Any, y: Any, largest: Any, factor: Any, batch_weight: Any) -> None:
        b = self.b
        with self.loop(0, self.shared.classes) as k:
            share = b.fmul(factor, b.call(self.exp, [b.fsub(self._logit(z, k), largest)]))
            dz = self.narrowed(b.fdiv(b.fsub(share, self._target(k, y)), batch_weight))
            self.store(dz, self.at(z, (k, self.size)))
            bias = self.at(self.part.bias_sums, (k, self.size))
            self.store(b.fadd(self.load(bias, self.number), dz), bias)
