"""docs/machine-code.md prints what the generator makes of its example."""

from __future__ import annotations

from rnnclf.cells import CELLS
from rnnclf.engine.machine.schedule.planner import plan
from rnnclf.engine.machine.trace.tracer import record
from tests.conftest import ROOT


def test_graph_and_plan_are_those_of_the_cell():
    page = (ROOT / "docs" / "machine-code.md").read_text(encoding="utf-8")
    module = CELLS["ugrnn"](hidden_size=20).build(3)
    graph = record(module.cell, vars(module.prepared()), 3)
    assert str(plan(graph, lanes=8)) in page
    nodes = set(map(str, graph.nodes.known.values()))
    shown = [
        line.partition("   ")[0] for line in page.splitlines() if line.startswith("%") and '"' not in line
    ]
    assert len(shown) > 10
    assert set(shown) <= nodes
