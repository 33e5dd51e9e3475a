"""Writes the tile of ``tile.py`` as LLVM IR: the only file that knows the intermediate language.

One emitter serves every CPU: the vector width and the block size are constants of the call, and LLVM turns the
vectors into AVX-512, AVX2, SSE or NEON registers. Importing this module teaches the compiler what ``tile`` means.

The loop nest around the registers::

    sums[r][v] = D
    for o, m, i:
        vector[v] = B                     one load a vector, shared by all rows
        for r:
            sums[r][v] += broadcast(A[r]) · vector[v]
    C = sums
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from tinytorch.kernels.tile import tile

_INDEX = ir.IntType(64)


class _Block:
    """Vector loads, stores and masks of one tile, for one element type."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, vectors: int, width: int, lanes: ir.Value | None):
        self.builder = builder
        self.element = element
        self.vectors = vectors
        self.width = width
        self.type = ir.VectorType(element, width)
        self.bytes = 4 if isinstance(element, ir.FloatType) else 8
        self.masks = [self._mask(lanes, v) for v in range(vectors)] if lanes is not None else None

    def _mask(self, lanes: ir.Value, vector: int) -> ir.Value:
        """True where the lane's number is below ``lanes``."""
        wide = ir.VectorType(ir.IntType(32), self.width)
        numbers = ir.Constant(wide, [vector * self.width + lane for lane in range(self.width)])
        limit = self.splat(self.builder.trunc(lanes, ir.IntType(32)), wide)
        return self.builder.icmp_signed("<", numbers, limit)

    def splat(self, scalar: ir.Value, kind: ir.VectorType | None = None) -> ir.Value:
        kind = kind or self.type
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)

    def load(self, pointer: ir.Value, vector: int) -> ir.Value:
        where = self._vector_pointer(pointer, vector)
        if self.masks is None:
            loaded = self.builder.load(where)
            loaded.align = self.bytes
            return loaded
        kinds = [self.type, where.type, ir.IntType(32), ir.VectorType(ir.IntType(1), self.width), self.type]
        name = f"llvm.masked.load.v{self.width}{self._suffix}.p0"
        function = self._declare(name, self.type, kinds[1:])
        align = ir.Constant(ir.IntType(32), self.bytes)
        return self.builder.call(function, [where, align, self.masks[vector], ir.Constant(self.type, None)])

    def store(self, value: ir.Value, pointer: ir.Value, vector: int) -> None:
        where = self._vector_pointer(pointer, vector)
        if self.masks is None:
            self.builder.store(value, where).align = self.bytes
            return
        kinds = [self.type, where.type, ir.IntType(32), ir.VectorType(ir.IntType(1), self.width)]
        name = f"llvm.masked.store.v{self.width}{self._suffix}.p0"
        function = self._declare(name, ir.VoidType(), kinds)
        self.builder.call(function, [value, where, ir.Constant(ir.IntType(32), self.bytes), self.masks[vector]])

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a·b + c; one rounding where the CPU has such an instruction, two where it has not."""
        name = f"llvm.fmuladd.v{self.width}{self._suffix}"
        return self.builder.call(self._declare(name, self.type, [self.type] * 3), [a, b, c])

    @property
    def _suffix(self) -> str:
        return f"f{8 * self.bytes}"

    def _vector_pointer(self, pointer: ir.Value, vector: int) -> ir.Value:
        where = self.builder.gep(pointer, [ir.Constant(_INDEX, vector * self.width)])
        return self.builder.bitcast(where, self.type.as_pointer())

    def _declare(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)


def _row_pointers(builder: ir.IRBuilder, pointer: ir.Value, stride: ir.Value, rows: int) -> list[ir.Value]:
    """Addresses of ``rows`` rows; one address register serves three of them (base, +1 and +2 strides)."""
    pointers = [pointer]
    for r in range(1, rows):
        steps = r % 3 or 3
        pointers.append(builder.gep(pointers[r - steps], [builder.mul(stride, ir.Constant(_INDEX, steps))]))
    return pointers


@contextmanager
def _loop(builder: ir.IRBuilder, count: ir.Value, carried: list[ir.Value]) -> Iterator[tuple[ir.Value, list[ir.Value]]]:
    """``for index in range(count)`` with loop-carried values.

    The body receives the index and the values, and replaces the list's items with their successors; after the loop
    the list holds the final ones.
    """
    before, head = builder.block, builder.append_basic_block("head")
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_INDEX)
    index.add_incoming(ir.Constant(_INDEX, 0), before)
    phis = [builder.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, after)
    builder.position_at_end(body)
    values = list(phis)
    yield index, values
    index.add_incoming(builder.add(index, ir.Constant(_INDEX, 1)), builder.block)
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    carried[:] = phis


def _emit(builder: ir.IRBuilder, block: _Block, rows: int, args: dict[str, ir.Value]) -> None:
    """The body of one tile, as the module's docstring draws it."""
    c, d, a, b = (builder.gep(args[name], [args[f"{name}_at"]]) for name in "cdab")
    starts = _row_pointers(builder, d, args["d_row"], rows)
    sums = [block.load(start, v) for start in starts for v in range(block.vectors)]
    state = [*sums, a, b]
    _nest(builder, block, rows, args, state, "omi")
    ends = _row_pointers(builder, c, args["c_row"], rows)
    for r, end in enumerate(ends):
        for v in range(block.vectors):
            block.store(state[r * block.vectors + v], end, v)


def _nest(
    builder: ir.IRBuilder,
    block: _Block,
    rows: int,
    args: dict[str, ir.Value],
    state: list[ir.Value],
    loops: str,
) -> None:
    """Run the reduction loops ``loops``, outermost first; ``state`` is the sums and the two operand pointers."""
    if not loops:
        _step(builder, block, rows, args, state)
        return
    name, inner = loops[0], loops[1:]
    with _loop(builder, args[f"n_{name}"], state) as (_, values):
        a, b = values[-2:]
        _nest(builder, block, rows, args, values, inner)
        values[-2] = builder.gep(a, [args[f"a_{name}"]])
        values[-1] = builder.gep(b, [args[f"b_{name}"]])


def _step(builder: ir.IRBuilder, block: _Block, rows: int, args: dict[str, ir.Value], state: list[ir.Value]) -> None:
    """One rank-1 update of the register block."""
    a, b = state[-2:]
    shared = [block.load(b, v) for v in range(block.vectors)]
    for r, pointer in enumerate(_row_pointers(builder, a, args["a_row"], rows)):
        broadcast = block.splat(builder.load(pointer))
        for v in range(block.vectors):
            at = r * block.vectors + v
            state[at] = block.multiply_add(broadcast, shared[v], state[at])


_FIELDS = {
    "c": ("c", "c_at", "c_row"),
    "d": ("d", "d_at", "d_row"),
    "a": ("a", "a_at", "a_row", "a_o", "a_m", "a_i"),
    "b": ("b", "b_at", "b_o", "b_m", "b_i"),
    "counts": ("n_o", "n_m", "n_i"),
}


@intrinsic(prefer_literal=True)
def _tile(typing_context, rows, vectors, masked, width, c, d, a, b, counts, lanes):  # type: ignore[no-untyped-def]
    """Numba's door to ``_emit``: takes the tuples of the contract apart."""
    n_rows, n_vectors, is_masked, n_width = (kind.literal_value for kind in (rows, vectors, masked, width))
    signature = types.void(rows, vectors, masked, width, c, d, a, b, counts, types.int64)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        args: dict[str, ir.Value] = {}
        for (name, fields), kind, value in zip(_FIELDS.items(), signature.args[4:9], values[4:9], strict=True):
            args.update(zip(fields, cgutils.unpack_tuple(builder, value), strict=True))
            if name != "counts":
                args[name] = context.make_array(kind[0])(context, builder, args[name]).data
        element = args["c"].type.pointee
        block = _Block(builder, element, n_vectors, n_width, values[9] if is_masked else None)
        _emit(builder, block, n_rows, args)
        return context.get_dummy_value()

    return signature, generate


@overload(tile, prefer_literal=True)
def _compiled_tile(rows, vectors, masked, width, c, d, a, b, counts, lanes):  # type: ignore[no-untyped-def]
    def call(rows, vectors, masked, width, c, d, a, b, counts, lanes):  # type: ignore[no-untyped-def]
        _tile(rows, vectors, masked, width, c, d, a, b, counts, lanes)  # type: ignore[call-arg]

    return call


# Numba's cache looks at a function's own source only. Kernels that use the tile close over this digest, so that a
# change here compiles them anew.
DIGEST = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:16]
