"""From the graph of a step to a plan: which products run when, what is stored where, what backward reads.

plan(graph, lanes)
  gathering          sums of products become one node
  saving             what backward computes, and what forward has to save for it
  forward, backward  stages: products, passes, stores (levels.py says in which order, layout.py where)
  weight_gradients   outer products and sums over sequences and time steps
"""

from __future__ import annotations

from rnnclf.engine.machine.graph import Node, UncoveredError
from rnnclf.engine.machine.schedule.backward import Backward
from rnnclf.engine.machine.schedule.forward import forward_stages, place_operands, place_results
from rnnclf.engine.machine.schedule.gathering import gather
from rnnclf.engine.machine.schedule.layout import Layout
from rnnclf.engine.machine.schedule.levels import reached
from rnnclf.engine.machine.schedule.plan import Constant, Place, Plan, Stage
from rnnclf.engine.machine.schedule.saving import backward_needs
from rnnclf.engine.machine.trace.tracer import Graph

__all__ = ["Place", "Plan", "plan"]


def plan(graph: Graph, lanes: int) -> Plan:
    """A plan for a traced step. lanes: numbers in a vector register.

    Raises:
        UncoveredError: the step is a chain of too many operations.
    """
    try:
        return _plan(graph, lanes)
    except RecursionError:
        raise UncoveredError("its step is a chain of too many operations") from None


def _plan(graph: Graph, lanes: int) -> Plan:
    step, layout = gather(graph), Layout(lanes)
    moves = [*place_operands(step, layout), *place_results(step, layout)]
    forward = step.forward_nodes()
    needs = backward_needs(step, forward)
    forward_list = forward_stages(layout, needs.saved, moves)
    places = layout.places
    layout.forget("forward_scratch")
    backward = Backward(step, layout, needs, forward)
    vectors, vector_at, constants = _constants([*forward_list, *backward.stages], layout)

    def places_of(parts: list[list[Node]]) -> list[list[Place]]:
        return [[layout.places[piece] for piece in pieces] for pieces in parts]

    return Plan(
        graph=graph,
        lanes=lanes,
        widths=layout.row_strides(),
        forward=list(forward_list),
        backward=list(backward.stages),
        last=backward.last,
        outers=backward.sums.outers,
        matrices=layout.matrices,
        vectors=vectors,
        vector_at=vector_at,
        places=places,
        places_back=layout.places,
        assembly=backward.sums.assembly,
        sums=backward.sums.size,
        weights=layout.weights,
        constants=constants,
        x_at=layout.places[step.x[0]].column,
        state_at=places_of(step.old),
        carry_at=places_of(step.d_new),
        dx_at=backward.input_places,
        kept=list(needs.saved),
    )


def _constants(stages: list[Stage], layout: Layout) -> tuple[list[Constant], dict[Node, int], int]:
    """What passes read from weights number by number, the offset of each node, and the size of all.

    Vectors come first, so that they are aligned, then single numbers.
    """
    passes = [one for stage in stages for one in stage.passes]
    roots = [
        node
        for one in passes
        for node in (*(n for n, _ in one.stores), *(n for n, _ in one.colsums), *one.rowsums)
    ]
    used = [node for node in reached(roots, stop=lambda node: node.op == "gather") if node.op == "vec"]
    constants: list[Constant] = []
    offsets: dict[Node, int] = {}
    size = 0
    for node in sorted(used, key=lambda node: (node.width == 1, node.number)):
        par, first = node.attr
        constants.append(Constant(par, first, node.width, size))
        offsets[node] = size
        size += layout.padded(node.width) if node.width > 1 else 1
    return constants, offsets, size
