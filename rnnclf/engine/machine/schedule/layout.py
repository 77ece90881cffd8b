"""Where values and packed weights lie: columns of buffers, and neighbours that one product can cover.

Every value begins at a multiple of the vector's lanes, and stores fill it up with zeros to the next multiple.
So two values that follow each other can be operands of one product as if they were one:

    operands:   inputs | one | state  0 0 | second part of the state  0 0 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rnnclf.engine.machine.graph import Node
from rnnclf.engine.machine.schedule.plan import BUFFERS, ONE, Block, Matrix, Operand, Place, Product

T = TypeVar("T")


def width_of(operand: Operand) -> int:
    return operand.width if isinstance(operand, Node) else 1


class Layout:
    """Gives out places in buffers and among the packed weights."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.places: dict[Operand, Place] = {}
        self.widths = dict.fromkeys(BUFFERS, 0)
        self.matrices: list[Matrix] = []
        self.weights = 0

    def padded(self, width: int) -> int:
        return -(-width // self.lanes) * self.lanes

    def reserve(self, buffer: str, width: int) -> Place:
        """The next free columns of a buffer."""
        place = Place(buffer, self.widths[buffer])
        self.widths[buffer] += self.padded(width)
        return place

    def reserve_for(self, node: Node, buffer: str) -> None:
        """The same for a node, unless it has a place."""
        if node not in self.places:
            self.places[node] = self.reserve(buffer, node.width)

    def forget(self, buffer: str) -> None:
        """What lies in this buffer is lost."""
        self.places = {node: place for node, place in self.places.items() if place.buffer != buffer}

    def row_strides(self) -> dict[str, int]:
        """The distance between rows, in numbers.

        Multiples of 1 KiB would put the rows of a batch into the same few lines of the processor's cache.
        """
        padded = {name: self.padded(width) for name, width in self.widths.items()}
        return {name: w + self.lanes if w and w * 4 % 1024 == 0 else w for name, w in padded.items()}

    # neighbours

    def position(self, operand: Operand) -> tuple[int, int, int]:
        place = self.places[operand]
        return BUFFERS.index(place.buffer), place.time, place.column

    def are_neighbours(self, a: Operand, b: Operand) -> bool:
        """Whether b follows a with nothing but zeros, or the one, between.

        What lies there is multiplied by weights of zero, and zero times NaN is NaN.
        """
        first, second = self.places[a], self.places[b]
        if (first.buffer, first.time) != (second.buffer, second.time):
            return False
        begin, end = first.column + width_of(a), second.column
        if begin == end:
            return True
        # behind a single number there is no padding: it is stored alone
        is_padded = width_of(a) > 1 and first.buffer in ("operands", "backward_scratch", "saved")
        return is_padded and 0 < end - begin < self.lanes and not self._is_used(first, begin, end)

    def _is_used(self, like: Place, begin: int, end: int) -> bool:
        """Whether a value other than the one begins between these columns of a buffer."""
        return any(
            begin <= place.column < end
            for operand, place in self.places.items()
            if (place.buffer, place.time) == (like.buffer, like.time) and operand != ONE
        )

    def runs(self, items: Iterable[T], operand: Callable[[T], Operand]) -> list[list[T]]:
        """Items in the order of their operands' places, those of neighbours together."""
        found: list[list[T]] = []
        for item in sorted(items, key=lambda item: self.position(operand(item))):
            if found and self.are_neighbours(operand(found[-1][-1]), operand(item)):
                found[-1].append(item)
            else:
                found.append([item])
        return found

    def extent(self, run: Sequence[Operand]) -> tuple[Place, int]:
        """The place of neighbours, and how many columns they take."""
        begin, end = self.places[run[0]], self.places[run[-1]]
        return begin, end.column + width_of(run[-1]) - begin.column

    # products

    def products(
        self,
        group: list[Node],
        target: Place,
        operand: Callable[[Node], Node] = lambda node: node,
        add: bool = False,
    ) -> list[Product]:
        """The products that compute `gather` nodes with the same operands, whose results are neighbours.

        Args:
            operand: the node that a product is to read instead of another.
            add: whether the first product adds to what is at the target.
        """
        _, biases = group[0].attr
        terms: list[tuple[Operand, int | None]] = [(operand(a), n) for n, a in enumerate(group[0].args)]
        if biases:
            terms.append((ONE, None))
        found: list[Product] = []
        for run in self.runs(terms, lambda term: term[0]):
            matrix = self._matrix(group, run)
            begin = self.places[run[0][0]]
            found.append(Product(begin, matrix, target, add or bool(found), results=group))
        return found

    def _matrix(self, group: list[Node], run: list[tuple[Operand, int | None]]) -> Matrix:
        begin, rows = self.extent([operand for operand, _ in run])
        blocks: list[Block] = []
        column = 0
        for node in group:
            dots, biases = node.attr
            for operand, number in run:
                row = self.places[operand].column - begin.column
                if number is None:
                    blocks += [Block(par, 0, 1, first, node.width, row, column) for par, first in biases]
                else:
                    par, k, k_count, first = dots[number]
                    blocks.append(Block(par, k, k_count, first, node.width, row, column))
            column += self.padded(node.width)
        matrix = Matrix(rows, column, blocks, self.weights)
        self.matrices.append(matrix)
        self.weights += rows * column
        return matrix
