"""The stages of forward."""

from __future__ import annotations

from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.schedule.gathering import GatheredStep
from rnnclf.engine.machine.schedule.layout import Layout
from rnnclf.engine.machine.schedule.levels import Levels, Stages, store_what_passes_need
from rnnclf.engine.machine.schedule.plan import ONE, Place


def place_operands(step: GatheredStep, layout: Layout) -> list[tuple[Node, Place]]:
    """Lays out inputs, one and state so that the main state begins a vector, right behind the one.

    Returns the pieces of the new state, each with its place in the operands of the next time step.
    """
    inputs = sum(piece.width for piece in step.x)
    begin = layout.padded(inputs + 1)
    at = begin - 1 - inputs
    for piece in step.x:
        layout.places[piece] = Place("operands", at)
        at += piece.width
    layout.places[ONE] = Place("operands", at)
    layout.widths["operands"] = begin
    pairs = zip((p for leaf in step.old for p in leaf), (p for leaf in step.new for p in leaf), strict=True)
    moves: list[tuple[Node, Place]] = []
    for old, new in sorted(pairs, key=lambda pair: pair[0] is not step.main):
        layout.reserve_for(old, "operands")
        moves.append((new, Place("operands", layout.places[old].column, 1)))
    for new, place in moves:
        if new.op not in ("x", "old", "const", "fill"):
            layout.places.setdefault(new, place)
    return moves


def place_results(step: GatheredStep, layout: Layout) -> list[tuple[Node, Place]]:
    """Lays out the gradients of the state, the outputs that are no part of it, and their gradients.

    Returns the pieces of the outputs, each with its place.
    """
    moves: list[tuple[Node, Place]] = []
    for leaf in step.d_new:
        for piece in leaf:
            layout.reserve_for(piece, "state_gradients")
    first = 0
    for piece in step.out or []:
        moves.append((piece, layout.reserve("outputs", piece.width)))
        layout.places.setdefault(*moves[-1])
        gradient = step.nodes.make("dout", attr=(first,), width=piece.width)
        layout.reserve_for(gradient, "output_gradients")
        first += piece.width
    return moves


def forward_stages(layout: Layout, saved: dict[Node, None], moves: list[tuple[Node, Place]]) -> Stages:
    """Places what forward stores, and says in which pass.

    Args:
        saved: what backward needs.
        moves: the new state and the outputs, and where they go.
    """
    roots = [node for node, _ in moves]
    levels = Levels([*roots, *saved], lambda node: not node.args)
    stored: dict[Node, None] = {node: None for node in roots if node.args}
    stored |= saved
    stored |= {operand: None for node in levels.gathers() for operand in node.args if operand.args}
    store_what_passes_need(stored, [], levels)
    groups = levels.groups()
    for group in groups:
        buffer = "saved" if any(node in saved for node in group) else "forward_scratch"
        for node in group:
            layout.reserve_for(node, buffer)
    for node in stored:
        layout.reserve_for(node, "saved" if node in saved else "forward_scratch")
    stages = Stages()
    for group in groups:
        products = layout.products(group, layout.places[group[0]])
        stages.stage(levels[group[0]].stage).products += products
    stages.add_rowsums(levels)
    stages.add_stores([(node, layout.places[node]) for node in stored], levels)
    # a piece that equals another one, the inputs or the old state has a second place
    seconds = [(node, place) for node, place in moves if layout.places.get(node) != place]
    stages.add_stores(seconds, levels)
    return stages
