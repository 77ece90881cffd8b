"""The equations of the papers once more, in NumPy, without a look at the cells' own code.

Each function takes (x, state, weights, cell): the inputs of one step (B, n), the state before it as a list
of arrays (B, …) in the order of its parts, all stored weights by name, and the cell for its options. It
returns the output (B, h) and the state after the step.
"""

from tests.equations import classic, dynamical, gated, gates, statespace, structured

PARTS = (classic, gated, dynamical, structured, gates, statespace)
EQUATIONS = {name: equations for part in PARTS for name, equations in part.EQUATIONS.items()}

assert len(EQUATIONS) == sum(len(part.EQUATIONS) for part in PARTS), "a cell is restated twice"
