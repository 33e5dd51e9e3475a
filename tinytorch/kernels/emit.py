"""Writes ``tile`` and ``transform`` as LLVM IR: the only file that knows the intermediate language.

One emitter serves every CPU: the vector width and the block size are constants of the function that is written, and
LLVM turns the vectors into AVX-512, AVX2, SSE or NEON registers. Each size is a small function of its own, compiled in
some hundredths of a second, kept on disk, and called by its address.

The loop nest of a tile around the registers::

    sums[r][v] = D
    for o, m, i:
        vector[v] = B                     one load a vector, shared by all rows
        for r:
            sums[r][v] += broadcast(A[r]) · vector[v]
    C = clip(sums + E)
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from tinytorch.kernels import jit

_INDEX = ir.IntType(64)
_kept: list[Any] = []  # compiled functions, whose addresses are in use


def _int(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


# ---- vectors ------------------------------------------------------------------------------------------------------


class _Vectors:
    """Vector arithmetic of one element type and width; with ``lanes``, nothing beyond them is read or written."""

    def __init__(self, builder: ir.IRBuilder, width: int, itemsize: int):
        self.builder = builder
        self.width = width
        self.bytes = itemsize
        self.element = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.element, width)

    def mask(self, lanes: ir.Value) -> ir.Value:
        """True where the lane's number is below ``lanes``."""
        wide = ir.VectorType(ir.IntType(32), self.width)
        limit = self.splat(self.builder.trunc(lanes, ir.IntType(32)), wide)
        return self.builder.icmp_signed("<", ir.Constant(wide, list(range(self.width))), limit)

    def splat(self, scalar: ir.Value, kind: ir.VectorType | None = None) -> ir.Value:
        kind = kind or self.type
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)

    def constant(self, value: float) -> ir.Value:
        return ir.Constant(self.type, [value] * self.width)

    def load(self, pointer: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        where = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            loaded = self.builder.load(where)
            loaded.align = self.bytes
            return loaded
        align = ir.Constant(ir.IntType(32), self.bytes)
        return self._call("masked.load", [where, align, mask, ir.Constant(self.type, None)], self.type, ".p0")

    def load_bytes(self, pointer: ir.Value, mask: ir.Value | None) -> ir.Value:
        """As many bytes as a vector has numbers."""
        kind = ir.VectorType(ir.IntType(8), self.width)
        where, one = self.builder.bitcast(pointer, kind.as_pointer()), ir.Constant(ir.IntType(32), 1)
        if mask is None:
            loaded = self.builder.load(where)
            loaded.align = 1
            return loaded
        arguments = [where, one, mask, ir.Constant(kind, None)]
        function = ir.FunctionType(kind, [value.type for value in arguments])
        name = f"llvm.masked.load.v{self.width}i8.p0"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), arguments)

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None) -> None:
        where = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, where).align = self.bytes
            return
        align = ir.Constant(ir.IntType(32), self.bytes)
        self._call("masked.store", [value, where, align, mask], ir.VoidType(), ".p0")

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a·b + c; one rounding where the CPU has such an instruction, two where it has not."""
        return self._call("fmuladd", [a, b, c], self.type)

    def prefetch(self, pointer: ir.Value, to_write: int = 0, level: int = 3) -> None:
        flags = [ir.Constant(ir.IntType(32), value) for value in (to_write, level, 1)]
        where = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [where.type, *(flag.type for flag in flags)])
        self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0"), [where, *flags]
        )

    def clip(self, value: ir.Value, floor: ir.Value, ceiling: ir.Value) -> ir.Value:
        """NaN compares with nothing, and so stays."""
        value = self.builder.select(self.builder.fcmp_ordered(">", floor, value), floor, value)
        return self.builder.select(self.builder.fcmp_ordered("<", ceiling, value), ceiling, value)

    def at(self, pointer: ir.Value, vector: int) -> ir.Value:
        return self.builder.gep(pointer, [_int(vector * self.width)])

    def _call(self, name: str, values: Sequence[ir.Value], result: ir.Type, suffix: str = "") -> ir.Value:
        kind = ir.FunctionType(result, [value.type for value in values])
        full = f"llvm.{name}.v{self.width}f{8 * self.bytes}{suffix}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, full), values)


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
    index.add_incoming(_int(0), before)
    phis = [builder.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, after)
    builder.position_at_end(body)
    values = list(phis)
    yield index, values
    index.add_incoming(builder.add(index, _int(1)), builder.block)
    for phi, value in zip(phis, values, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    carried[:] = phis


# ---- the tile -----------------------------------------------------------------------------------------------------

_STRIDES = (
    "c_row", "d_row", "a_row", "a_o", "a_m", "a_i", "b_o", "b_m", "b_i", "e_row", "c_t", "d_t", "a_t", "f_i", "n_o",
    "n_m", "n_i", "n_e",
)  # fmt: skip


class _Tile:
    """One tile being written: ``rows × vectors`` sums in registers."""

    def __init__(self, vectors: _Vectors, shape: Sequence[int], sizes: ir.Value, lanes: ir.Value | None):
        self.v, self.builder = vectors, vectors.builder
        self.rows, self.columns, self.ahead = shape
        values = [self.builder.load(self.builder.gep(sizes, [_int(k)])) for k in range(len(_STRIDES))]
        self.size = dict(zip(_STRIDES, values, strict=True))
        left = [
            None if lanes is None else self.builder.sub(lanes, _int(k * vectors.width)) for k in range(self.columns)
        ]
        self.masks = [None if count is None else vectors.mask(count) for count in left]

    def write(self, pointers: Sequence[ir.Value], bounds: ir.Value, tiles: ir.Value) -> None:
        """A line of ``tiles`` tiles; ``pointers`` are c, d, a, b, e of the first."""
        floor, ceiling = (self.v.splat(self.builder.load(self.builder.gep(bounds, [_int(k)]))) for k in range(2))
        moving = list(pointers)
        with _loop(self.builder, tiles, moving) as (_, values):
            c, d, a, b, e = values
            following = self.builder.gep(a, [self.size["a_t"]])
            self._fetch(c, "c_row", to_write=1)
            with _loop(self.builder, self.size["n_e"], []):
                self._fetch(e, "e_row")
            state = [*self._block(d, "d_row"), a, b, following]
            self._nest(state, "omi")
            self._finish(state[:-3], c, e, floor, ceiling)
            steps = {0: "c_t", 1: "d_t", 2: "a_t", 4: "c_t"}
            for k, name in steps.items():
                values[k] = self.builder.gep(values[k], [self.size[name]])

    def _fetch(self, pointer: ir.Value, stride: str, to_write: int = 0) -> None:
        """Call for what the end of the tile needs, so that it comes while the sums are made."""
        for row in self._row_pointers(pointer, stride):
            for k, mask in enumerate(self.masks):
                if mask is None:  # short rows share cache lines
                    self.v.prefetch(self.v.at(row, k), to_write)

    def _finish(self, sums: list[ir.Value], c: ir.Value, e: ir.Value, floor: ir.Value, ceiling: ir.Value) -> None:
        with _loop(self.builder, self.size["n_e"], sums) as (_, values):
            values[:] = [self.builder.fadd(s, x) for s, x in zip(values, self._block(e, "e_row"), strict=True)]
        for number, row in enumerate(self._row_pointers(c, "c_row")):
            for k, mask in enumerate(self.masks):
                value = self.v.clip(sums[number * self.columns + k], floor, ceiling)
                self.v.store(value, self.v.at(row, k), mask)

    def _block(self, pointer: ir.Value, stride: str) -> list[ir.Value]:
        rows = self._row_pointers(pointer, stride)
        return [self.v.load(self.v.at(row, k), mask) for row in rows for k, mask in enumerate(self.masks)]

    def _row_pointers(self, pointer: ir.Value, stride: str) -> list[ir.Value]:
        """Addresses of the rows; one address register serves three of them (base, +1 and +2 strides)."""
        pointers = [pointer]
        for r in range(1, self.rows):
            steps = r % 3 or 3
            pointers.append(
                self.builder.gep(pointers[r - steps], [self.builder.mul(self.size[stride], _int(steps))])
            )  # fmt: skip
        return pointers

    def _nest(self, state: list[ir.Value], loops: str) -> None:
        """Run the reduction loops ``loops``, outermost first; ``state`` is the sums and the two operand pointers."""
        if not loops:
            self._step(state)
            return
        name = loops[0]
        with _loop(self.builder, self.size[f"n_{name}"], state) as (_, values):
            a, b = values[-3:-1]
            self._nest(values, loops[1:])
            values[-3] = self.builder.gep(a, [self.size[f"a_{name}"]])
            values[-2] = self.builder.gep(b, [self.size[f"b_{name}"]])

    def _step(self, state: list[ir.Value]) -> None:
        """One rank-1 update of the register block."""
        a, b, f = state[-3:]
        if self.ahead:
            self.v.prefetch(f)
            state[-1] = self.builder.gep(f, [self.size["f_i"]])
        shared = [self.v.load(self.v.at(b, k), mask) for k, mask in enumerate(self.masks)]
        for r, pointer in enumerate(self._row_pointers(a, "a_row")):
            broadcast = self.v.splat(self.builder.load(pointer))
            for k, vector in enumerate(shared):
                at = r * self.columns + k
                state[at] = self.v.multiply_add(broadcast, vector, state[at])


# ---- the transform ------------------------------------------------------------------------------------------------


class _Transform:
    """One T · X · Tᵀ being written; ``lanes`` tells the last vector's length where it may be short."""

    def __init__(self, vectors: _Vectors, matrix: Sequence[Sequence[float]], masked: bool):
        self.v, self.builder, self.matrix, self.masked = vectors, vectors.builder, matrix, masked
        self.outputs, self.inputs = len(matrix), len(matrix[0])

    def write(self, pointers: dict[str, ir.Value], lanes: ir.Value, finish: ir.Value | None) -> None:
        """``finish`` is how often ``extra`` is added (0 or 1) to results that are outputs; None for others."""
        reads = self._pointers(pointers["source"], pointers["places"], self.inputs, pointers["spare"])
        writes = self._pointers(pointers["sink"], pointers["targets"], self.outputs, pointers["spare"])
        extras = self._pointers(pointers["extra"], pointers["targets"], self.outputs, pointers["spare"])
        width = _int(self.v.width)
        count = self.builder.sdiv(self.builder.add(lanes, _int(self.v.width - 1)), width)
        watch = [self.v.constant(0.0)]
        with _loop(self.builder, count, watch) as (index, carried):
            at = self.builder.mul(index, width)
            mask = self.v.mask(self.builder.sub(lanes, at)) if self.masked else None
            results = self._sandwich([self.v.load(self.builder.gep(p, [at]), mask) for p in reads])
            if finish is not None:
                start = self.v.load(self.builder.gep(pointers["start"], [at]), mask)
                results = [self.builder.fadd(y, start) for y in results]
                for y in results:
                    carried[0] = self.v.multiply_add(y, self.v.constant(0.0), carried[0])
                self._finish(results, extras, pointers["bounds"], at, mask, finish)
            for pointer, y in zip(writes, results, strict=True):
                self.v.store(y, self.builder.gep(pointer, [at]), mask)
        if finish is not None:
            self._report(watch[0], pointers["flag"])

    def _finish(self, results, extras, bounds, at, mask, finish) -> None:  # type: ignore[no-untyped-def]
        floor, ceiling = (self.v.splat(self.builder.load(self.builder.gep(bounds, [_int(k)]))) for k in range(2))
        with _loop(self.builder, finish, results) as (_, values):
            for k, pointer in enumerate(extras):
                values[k] = self.builder.fadd(values[k], self.v.load(self.builder.gep(pointer, [at]), mask))
        results[:] = [self.v.clip(y, floor, ceiling) for y in results]

    def _report(self, watch: ir.Value, flag: ir.Value) -> None:
        """Add up the lanes of what is 0 if all results were finite and NaN otherwise."""
        total = self.builder.load(flag)
        for lane in range(self.v.width):
            total = self.builder.fadd(total, self.builder.extract_element(watch, ir.Constant(ir.IntType(32), lane)))
        self.builder.store(total, flag)

    def _pointers(self, base: ir.Value, table: ir.Value, side: int, spare: ir.Value) -> list[ir.Value]:
        pointers = []
        for k in range(side * side):
            place = self.builder.load(self.builder.gep(table, [_int(k)]))
            inside = self.builder.icmp_signed(">=", place, _int(0))
            pointers.append(self.builder.select(inside, self.builder.gep(base, [place]), spare))
        return pointers

    def _sandwich(self, x: list[ir.Value]) -> list[ir.Value]:
        """T · X · Tᵀ: each row of X first, then each column of what that makes."""
        n = self.inputs
        lines = [self._apply(x[row * n : (row + 1) * n]) for row in range(n)]
        columns = [self._apply([line[c] for line in lines]) for c in range(self.outputs)]
        return [columns[c][r] for r in range(self.outputs) for c in range(self.outputs)]

    def _apply(self, x: list[ir.Value]) -> list[ir.Value]:
        """T · x for a column x, sharing what rows of T have in common."""
        pairs = self._mirrored_columns()
        if pairs:
            return [self._by_pairs(row, x, pairs) for row in self.matrix]
        return [self._by_parity(row, x) for row in self.matrix]

    def _mirrored_columns(self) -> list[tuple[int, int]]:
        """Columns that differ in signs only, as those of the points p and −p do."""
        columns = [[abs(value) for value in column] for column in zip(*self.matrix, strict=True)]
        pairs: list[tuple[int, int]] = []
        for k in range(self.inputs - 1):
            if columns[k] == columns[k + 1] and (not pairs or pairs[-1][1] < k):
                pairs.append((k, k + 1))
        return pairs

    def _by_pairs(self, row: Sequence[float], x: list[ir.Value], pairs: list[tuple[int, int]]) -> ir.Value:
        """Σ row·x, mirrored columns added or subtracted first; LLVM makes each such sum once for all rows."""
        terms = []
        for j, k in pairs:
            join = self.builder.fadd if row[j] == row[k] else self.builder.fsub
            if row[j]:
                terms.append((row[j], join(x[j], x[k])))
        alone = set(range(self.inputs)) - {k for pair in pairs for k in pair}
        return self._weighted([*terms, *((row[k], x[k]) for k in sorted(alone))])

    def _by_parity(self, row: Sequence[float], x: list[ir.Value]) -> ir.Value:
        """Σ row·x as even part ± odd part, which the rows of p and −p share."""
        even = [(row[k], x[k]) for k in range(0, self.inputs, 2) if row[k]]
        odd = [(row[k], x[k]) for k in range(1, self.inputs, 2) if row[k]]
        if not even or not odd:
            return self._weighted(even or odd)
        sign = 1 if odd[-1][0] > 0 else -1
        join = self.builder.fadd if sign > 0 else self.builder.fsub
        return join(self._weighted(even), self._weighted([(sign * c, v) for c, v in odd]))

    def _weighted(self, terms: Sequence[tuple[float, ir.Value]]) -> ir.Value:
        """Σ c·v, starting from a term with c = 1 if there is one."""
        if not any(c for c, _ in terms):
            return self.v.constant(0.0)
        (first, value), *rest = sorted((t for t in terms if t[0]), key=lambda term: term[0] != 1)
        total = value if first == 1 else self.builder.fmul(self.v.constant(first), value)
        for c, v in rest:
            if abs(c) == 1:
                total = (self.builder.fadd if c > 0 else self.builder.fsub)(total, v)
            else:
                total = self.v.multiply_add(self.v.constant(c), v, total)
        return total


# ---- the gradient of a pooling ------------------------------------------------------------------------------------


def _write_pick(v: _Vectors, dy, winners, dx, tap, windows, step, lanes, masked) -> None:  # type: ignore[no-untyped-def]
    """For each window and lane: dx = dy where the window's winner is ``tap``, else 0."""
    builder, width = v.builder, _int(v.width)
    bytes_type = ir.VectorType(ir.IntType(8), v.width)
    wanted = v.splat(builder.trunc(tap, ir.IntType(8)), bytes_type)
    pointers = [dy, winners, dx]
    vectors = builder.sdiv(builder.add(lanes, _int(v.width - 1)), width)
    with _loop(builder, windows, pointers) as (_, moving):
        with _loop(builder, vectors, []) as (index, _):
            at = builder.mul(index, width)
            here = [builder.gep(pointer, [at]) for pointer in moving]
            mask = v.mask(builder.sub(lanes, at)) if masked else None
            taps = v.load_bytes(here[1], mask)
            won = builder.icmp_unsigned("==", taps, wanted)
            v.store(builder.select(won, v.load(here[0], mask), v.constant(0.0)), here[2], mask)
        steps = (lanes, lanes, step)
        moving[:] = [builder.gep(pointer, [by]) for pointer, by in zip(moving, steps, strict=True)]


# ---- moving rows and transposing ----------------------------------------------------------------------------------


def _write_copy_rows(v: _Vectors, source, source_step, sink, sink_step, rows, columns, shape) -> None:  # type: ignore[no-untyped-def]
    """sink[r · sink_step + c] = source[r · source_step + c], ``shape`` = (vectors of a row, whether masked)."""
    builder = v.builder
    vectors, masked = shape
    pointers = [source, sink]
    masks = [v.mask(builder.sub(columns, _int(k * v.width))) if masked else None for k in range(vectors)]
    with _loop(builder, rows, pointers) as (_, moving):
        for k, mask in enumerate(masks):
            v.store(v.load(v.at(moving[0], k), mask), v.at(moving[1], k), mask)
        moving[:] = [builder.gep(p, [by]) for p, by in zip(moving, (source_step, sink_step), strict=True)]


def _write_transpose(v: _Vectors, source, source_step, sink, sink_step, rows, columns) -> None:  # type: ignore[no-untyped-def]
    """sink[c · sink_step + r] = source[r · source_step + c], in squares of a vector's side; what is left, singly."""
    builder, side = v.builder, _int(v.width)
    whole_rows, whole_columns = (builder.mul(builder.sdiv(n, side), side) for n in (rows, columns))

    def place(base, step, slow, fast):  # type: ignore[no-untyped-def]
        return builder.gep(base, [builder.add(builder.mul(slow, step), fast)])

    def singly(first_row, last_row, first_column):  # type: ignore[no-untyped-def]
        down, along = builder.sub(last_row, first_row), builder.sub(columns, first_column)
        with _loop(builder, down, []) as (r, _), _loop(builder, along, []) as (c, _):
            row, column = builder.add(first_row, r), builder.add(first_column, c)
            value = builder.load(place(source, source_step, row, column))
            builder.store(value, place(sink, sink_step, column, row))

    with (
        _loop(builder, builder.sdiv(rows, side), []) as (r, _),
        _loop(builder, builder.sdiv(columns, side), []) as (c, _),
    ):
        row, column = builder.mul(r, side), builder.mul(c, side)
        lines = [v.load(place(source, source_step, builder.add(row, _int(k)), column)) for k in range(v.width)]
        for k, line in enumerate(_transposed(v, lines)):
            v.store(line, place(sink, sink_step, builder.add(column, _int(k)), row))
    singly(_int(0), whole_rows, whole_columns)
    singly(whole_rows, rows, _int(0))


def _transposed(v: _Vectors, lines: list[ir.Value]) -> list[ir.Value]:
    """A square in registers, transposed by log₂ of its side rounds of shuffling its halves into each other.

    H. Stone, "Parallel Processing with the Perfect Shuffle", 1971.
    """
    half, index = v.width // 2, ir.VectorType(ir.IntType(32), v.width)
    low, high = (
        ir.Constant(index, [first + k // 2 + k % 2 * v.width for k in range(v.width)]) for first in (0, half)
    )  # fmt: skip
    for _ in range(v.width.bit_length() - 1):
        pairs = zip(lines[:half], lines[half:], strict=True)
        lines = [v.builder.shuffle_vector(a, b, pick) for a, b in pairs for pick in (low, high)]
    return lines


# ---- the strip ----------------------------------------------------------------------------------------------------

_STRIP_NUMBERS = ("c_l", "c_p", "a_l", "a_x", "a_o", "b_o", "b_m")
_STRIP_OPERANDS = ("c", "d", "a", "b", "e", "sizes", "bounds", "n_o", "n_m", "lanes", "lines", "pixels")
_MOST_PIXELS = 8  # as many independent sums hide the adder's latency


class _Strip:
    """Lines of pixels being written: some pixels at a time, down all lines, and of those one vector after the other.

    ``kind`` tells whether weights get gradients, whether E is added to sums, and whether the last vector may be short;
    ``row`` the number of taps in a row (0: any), and how many pixels of A lie from output to output and from tap to
    tap. So a pixel of A that several outputs meet is loaded once for all of them.
    """

    def __init__(self, vectors: _Vectors, kind: Sequence[int], row: Sequence[int], operands: dict[str, ir.Value]):
        self.v, self.builder, self.operands = vectors, vectors.builder, operands
        self.gradient, self.adds, self.masked = kind
        self.taps, self.stride, self.hop = row
        values = [self.builder.load(self.builder.gep(operands["sizes"], [_int(k)])) for k in range(len(_STRIP_NUMBERS))]
        self.size = dict(zip(_STRIP_NUMBERS, values, strict=True))

    def write(self) -> None:
        left, line = self.operands["pixels"], [self.operands[name] for name in "cae"]
        for pixels in range(_MOST_PIXELS, 0, -1):  # whole pieces of a line, then what is left of it
            with _loop(self.builder, self.builder.sdiv(left, _int(pixels)), line) as (_, piece):
                down = list(piece)
                with _loop(self.builder, self.operands["lines"], down) as (_, moving):
                    self._channels(pixels, *moving)
                    moving[:] = [self._on(p, size) for p, size in zip(moving, ("c_l", "a_l", "c_l"), strict=True)]
                steps = ("c_p", pixels), ("a_x", pixels * self.stride), ("c_p", pixels)
                piece[:] = [self._on(p, *step) for p, step in zip(piece, steps, strict=True)]
            left = self.builder.srem(left, _int(pixels))

    def _channels(self, pixels: int, c: ir.Value, a: ir.Value, e: ir.Value) -> None:
        lanes, width = self.operands["lanes"], _int(self.v.width)
        vectors = self.builder.sdiv(self.builder.add(lanes, _int(self.v.width - 1)), width)
        b, d = self.operands["b"], self.operands["d"]
        with _loop(self.builder, vectors, []) as (index, _):
            at = self.builder.mul(index, width)
            mask = self.v.mask(self.builder.sub(lanes, at)) if self.masked else None
            c, a, e, b, d = (self.builder.gep(pointer, [at]) for pointer in (c, a, e, b, d))
            outputs, extras = (self._places(pointer, "c_p", range(pixels)) for pointer in (c, e))
            if self.taps and pixels == _MOST_PIXELS:
                self._look_ahead(outputs, a)
            if self.gradient:
                self._gradients(outputs, [a, b], mask)
            else:
                self._sums(outputs, extras, d, [a, b], mask)

    def _sums(self, outputs, extras, d, start, mask) -> None:  # type: ignore[no-untyped-def]
        """C = clip(D + Σ A · B + E) of some pixels and one vector."""
        state = [*[self.v.load(d, mask)] * len(outputs), *start]
        with self._each_row(state) as row:
            weights = [self.v.load(pointer, mask) for pointer in self._weights(row[-1])]
            for pointer, pairs in self._sources(row[-2], len(outputs)):
                x = self.v.load(pointer, mask)
                for r, tap in pairs:
                    row[r] = self.v.multiply_add(x, weights[tap], row[r])
        bounds = [self.v.splat(self.builder.load(self.builder.gep(self.operands["bounds"], [_int(k)]))) for k in (0, 1)]
        for y, output, extra in zip(state, outputs, extras, strict=False):
            y = self.builder.fadd(y, self.v.load(extra, mask)) if self.adds else y
            self.v.store(self.v.clip(y, *bounds), output, mask)

    def _gradients(self, outputs, start, mask) -> None:  # type: ignore[no-untyped-def]
        """B += Σ A · C of some pixels and one vector."""
        gradients = [self.v.load(pointer, mask) for pointer in outputs]
        with self._each_row(start) as row:
            weights = self._weights(row[-1])
            totals = [self.v.load(pointer, mask) for pointer in weights]
            for pointer, pairs in self._sources(row[-2], len(outputs)):
                x = self.v.load(pointer, mask)
                for r, tap in pairs:
                    totals[tap] = self.v.multiply_add(x, gradients[r], totals[tap])
            for pointer, total in zip(weights, totals, strict=True):
                self.v.store(total, pointer, mask)

    @contextmanager
    def _each_row(self, state: list[ir.Value]) -> Iterator[list[ir.Value]]:
        """Go through the rows of taps; the last two values of the state point into A and B."""
        with _loop(self.builder, self.operands["n_o"], state) as (_, row):
            a, b = row[-2:]
            if self.taps:
                yield row
            else:
                with _loop(self.builder, self.operands["n_m"], row) as (_, tap):
                    yield tap
                    tap[-2:] = self._on(tap[-2], "a_x", self.hop), self._on(tap[-1], "b_m")
            row[-2:] = self._on(a, "a_o"), self._on(b, "b_o")

    def _sources(self, a: ir.Value, pixels: int) -> list[tuple[ir.Value, list[tuple[int, int]]]]:
        """The pixels of A that a row of taps meets, each with the outputs and taps that meet there."""
        met: dict[int, list[tuple[int, int]]] = {}
        for r, tap in itertools.product(range(pixels), range(max(self.taps, 1))):
            met.setdefault(r * self.stride + tap * self.hop, []).append((r, tap))
        return list(zip(self._places(a, "a_x", sorted(met)), (met[place] for place in sorted(met)), strict=True))

    def _weights(self, b: ir.Value) -> list[ir.Value]:
        return self._places(b, "b_m", range(max(self.taps, 1)))

    def _places(self, pointer: ir.Value, size: str, places: Sequence[int]) -> list[ir.Value]:
        """Addresses at multiples of a stride, each from the one before: a single register serves them all."""
        found, last = [], 0
        for place in places:
            pointer, last = self._on(pointer, size, place - last), place
            found.append(pointer)
        return found

    def _on(self, pointer: ir.Value, size: str, times: int = 1) -> ir.Value:
        return self.builder.gep(pointer, [self.builder.mul(self.size[size], _int(times))])

    def _look_ahead(self, outputs: list[ir.Value], a: ir.Value) -> None:
        """Fetch into the second-level cache what the line after the next will read first: its last rows of taps."""
        new = min(self.stride, self.taps)  # as in lines of pixels, so from line to line
        rows = self.builder.mul(self.size["a_o"], self.builder.sub(self.operands["n_o"], _int(new)))
        first = self.builder.gep(self._on(a, "a_l", 2), [rows])
        for row in self._places(first, "a_o", range(new)):
            for pointer, _ in self._sources(row, len(outputs)):
                self.v.prefetch(pointer, level=2)
        for pointer in outputs if self.gradient else []:
            self.v.prefetch(self._on(pointer, "c_l", 2), level=2)


# ---- compiled functions, and calling them -------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def _write_tile(
    typing_context, rows, columns, ahead, masked, width, itemsize, c, d, a, b, e, sizes, bounds, lanes, tiles
):  # type: ignore[no-untyped-def]
    """The body of one tile function; the first six are constants."""
    constants = [kind.literal_value for kind in (rows, columns, ahead, masked, width, itemsize)]
    signature = types.void(
        rows, columns, ahead, masked, width, itemsize, c, d, a, b, e, sizes, bounds, types.int64, types.int64
    )

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        *shape, is_masked, n_width, size = constants
        *pointers, sizes, bounds, lanes, tiles = values[6:]
        vectors = _Vectors(builder, n_width, size)
        _Tile(vectors, shape, sizes, lanes if is_masked else None).write(pointers, bounds, tiles)
        return context.get_dummy_value()

    return signature, generate


_POINTERS = ("source", "places", "sink", "targets", "spare", "start", "extra", "bounds", "flag")


@intrinsic(prefer_literal=True)
def _write_transform(typing_context, matrix, finishing, masked, width, itemsize, pointers, lanes, adds):  # type: ignore[no-untyped-def]
    """The body of one transform function; the matrix comes as text, and with it all but the pointers are constants."""
    constants = [kind.literal_value for kind in (matrix, finishing, masked, width, itemsize)]
    signature = types.void(matrix, finishing, masked, width, itemsize, pointers, types.int64, types.int64)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        text, is_finishing, is_masked, n_width, size = constants
        matrix = [[float(number) for number in row.split()] for row in text.split(";")]
        named = dict(zip(_POINTERS, cgutils.unpack_tuple(builder, values[5]), strict=True))
        vectors = _Vectors(builder, n_width, size)
        _Transform(vectors, matrix, bool(is_masked)).write(named, values[6], values[7] if is_finishing else None)
        return context.get_dummy_value()

    return signature, generate


def _pointer_types(itemsize: int) -> tuple[types.Type, types.Type]:
    return types.CPointer(types.float32 if itemsize == 4 else types.float64), types.CPointer(types.int64)


def address_of_tile(rows: int, columns: int, ahead: int, masked: int, width: int, itemsize: int) -> int:
    """Compile one size of ``tile``, or load it from disk."""
    number, index = _pointer_types(itemsize)
    digest = DIGEST

    @jit.entry(types.void(*[number] * 5, index, number, types.int64, types.int64))
    def tile(c, d, a, b, e, sizes, bounds, lanes, tiles):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  this file's fingerprint, part of the cache key
        _write_tile(rows, columns, ahead, masked, width, itemsize, c, d, a, b, e, sizes, bounds, lanes, tiles)  # type: ignore[call-arg]

    _kept.append(tile)
    return int(tile.address)


def address_of_transform(
    matrix: Sequence[Sequence[float]], finishing: int, masked: int, width: int, itemsize: int
) -> int:
    """Compile one kind of ``transform``, or load it from disk."""
    number, index = _pointer_types(itemsize)
    text = ";".join(" ".join(repr(float(value)) for value in row) for row in matrix)
    digest = DIGEST

    @jit.entry(types.void(number, index, number, index, *[number] * 5, types.int64, types.int64))
    def transform(source, places, sink, targets, spare, start, extra, bounds, flag, lanes, adds):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  as above
        pointers = (source, places, sink, targets, spare, start, extra, bounds, flag)
        _write_transform(text, finishing, masked, width, itemsize, pointers, lanes, adds)  # type: ignore[call-arg]

    _kept.append(transform)
    return int(transform.address)


@intrinsic(prefer_literal=True)
def _pick_body(typing_context, masked, width, itemsize, dy, winners, dx, tap, windows, step, lanes):  # type: ignore[no-untyped-def]
    """The body of one pick function; the first three are constants."""
    is_masked, n_width, size = (kind.literal_value for kind in (masked, width, itemsize))
    signature = types.void(masked, width, itemsize, dy, winners, dx, *[types.int64] * 4)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        dy, winners, dx, tap, windows, step, lanes = values[3:]
        _write_pick(_Vectors(builder, n_width, size), dy, winners, dx, tap, windows, step, lanes, is_masked)
        return context.get_dummy_value()

    return signature, generate


def address_of_pick(masked: int, width: int, itemsize: int) -> int:
    """Compile ``pick``, or load it from disk."""
    number, _ = _pointer_types(itemsize)
    digest = DIGEST

    @jit.entry(types.void(number, types.CPointer(types.uint8), number, *[types.int64] * 4))
    def pick(dy, winners, dx, tap, windows, step, lanes):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  as above
        _pick_body(masked, width, itemsize, dy, winners, dx, tap, windows, step, lanes)  # type: ignore[call-arg]

    _kept.append(pick)
    return int(pick.address)


@intrinsic(prefer_literal=True)
def _move_body(typing_context, vectors, masked, width, itemsize, source, source_step, sink, sink_step, rows, columns):  # type: ignore[no-untyped-def]
    """The body of a function that copies rows of so many vectors or, of 0, transposes; the first four are constants."""
    n_vectors, is_masked, n_width, size = (kind.literal_value for kind in (vectors, masked, width, itemsize))
    signature = types.void(vectors, masked, width, itemsize, source, types.int64, sink, *[types.int64] * 3)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        v = _Vectors(builder, n_width, size)
        source, source_step, sink, sink_step, rows, columns = values[4:]
        if n_vectors:
            shape = n_vectors, is_masked
            _write_copy_rows(v, source, source_step, sink, sink_step, rows, columns, shape)
        else:
            _write_transpose(v, source, source_step, sink, sink_step, rows, columns)
        return context.get_dummy_value()

    return signature, generate


def address_of_move(vectors: int, masked: int, width: int, itemsize: int) -> int:
    """Compile ``copy_rows`` for rows of so many vectors or, of 0, ``transpose``, or load it from disk."""
    number, _ = _pointer_types(itemsize)
    digest = DIGEST

    @jit.entry(types.void(number, types.int64, number, *[types.int64] * 3))
    def move(source, source_step, sink, sink_step, rows, columns):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  as above
        _move_body(vectors, masked, width, itemsize, source, source_step, sink, sink_step, rows, columns)  # type: ignore[call-arg]

    _kept.append(move)
    return int(move.address)


@intrinsic(prefer_literal=True)
def _strip_body(typing_context, gradient, adds, masked, taps, stride, hop, width, itemsize, operands):  # type: ignore[no-untyped-def]
    """The body of one strip function; all but the operands are constants."""
    kinds = (gradient, adds, masked, taps, stride, hop, width, itemsize)
    *constants, n_width, size = (kind.literal_value for kind in kinds)
    signature = types.void(*kinds, operands)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        named = dict(zip(_STRIP_OPERANDS, cgutils.unpack_tuple(builder, values[-1]), strict=True))
        _Strip(_Vectors(builder, n_width, size), constants[:3], constants[3:], named).write()
        return context.get_dummy_value()

    return signature, generate


def address_of_strip(kind: tuple[int, int, int], row: tuple[int, int, int], width: int, itemsize: int) -> int:
    """Compile one kind of ``strip``, or load it from disk."""
    number, index = _pointer_types(itemsize)
    gradient, adds, masked = kind
    taps, stride, hop = row
    digest = DIGEST

    @jit.entry(types.void(*[number] * 5, index, number, *[types.int64] * 5))
    def strip(c, d, a, b, e, sizes, bounds, n_o, n_m, lanes, lines, pixels):  # type: ignore[no-untyped-def]
        digest  # noqa: B018  as above
        operands = (c, d, a, b, e, sizes, bounds, n_o, n_m, lanes, lines, pixels)
        _strip_body(gradient, adds, masked, taps, stride, hop, width, itemsize, operands)  # type: ignore[call-arg]

    _kept.append(strip)
    return int(strip.address)


@intrinsic
def _call(typing_context, address, operands):  # type: ignore[no-untyped-def]
    """Call the function at ``address``; an operand (array, start) becomes a pointer, an integer stays one."""
    signature = types.void(types.int64, operands)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        arguments = []
        for kind, value in zip(operands.types, cgutils.unpack_tuple(builder, values[1]), strict=True):
            if isinstance(kind, types.Integer):
                arguments.append(context.cast(builder, value, kind, types.int64))
                continue
            array, start = cgutils.unpack_tuple(builder, value)
            start = context.cast(builder, start, kind[1], types.int64)
            data = context.make_array(kind[0])(context, builder, array).data
            arguments.append(builder.gep(data, [start]))
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), arguments)
        return context.get_dummy_value()

    return signature, generate


def teach(function: Callable[..., None]) -> None:
    """Let compiled code that calls ``function(which, …)`` call the function at the address ``which``."""

    def typed(which, *operands):  # type: ignore[no-untyped-def]
        def call(which, *operands):  # type: ignore[no-untyped-def]
            _call(which, operands)  # type: ignore[call-arg]

        return call

    overload(function)(typed)


@intrinsic
def _copy(typing_context, to, at, source, start, count):  # type: ignore[no-untyped-def]
    """memcpy between two arrays; LLVM would make a loop of scalars of what might overlap."""
    signature = types.void(to, types.int64, source, types.int64, types.int64)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        to, at, source, start, count = values
        there = builder.gep(context.make_array(signature.args[0])(context, builder, to).data, [at])
        here = builder.gep(context.make_array(signature.args[2])(context, builder, source).data, [start])
        itemsize = signature.args[0].dtype.bitwidth // 8
        cgutils.raw_memcpy(builder, there, here, count, itemsize)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _clear(typing_context, to, at, count):  # type: ignore[no-untyped-def]
    """memset to 0 of a part of an array."""
    signature = types.void(to, types.int64, types.int64)

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        to, at, count = values
        there = builder.gep(context.make_array(signature.args[0])(context, builder, to).data, [at])
        size = builder.mul(count, _int(signature.args[0].dtype.bitwidth // 8))
        cgutils.memset(builder, there, size, 0)
        return context.get_dummy_value()

    return signature, generate


def teach_move(copy: Callable[..., None], clear: Callable[..., None]) -> None:
    """Let compiled code that calls ``copy`` and ``clear`` call memcpy and memset."""

    @overload(copy)
    def typed_copy(to, at, source, start, count):  # type: ignore[no-untyped-def]
        return lambda to, at, source, start, count: _copy(to, at, source, start, count)  # type: ignore[call-arg]

    @overload(clear)
    def typed_clear(to, at, count):  # type: ignore[no-untyped-def]
        return lambda to, at, count: _clear(to, at, count)  # type: ignore[call-arg]


# Numba's cache looks at a function's own source only. The functions above close over this digest, so that a change
# here compiles them anew.
DIGEST = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:16]
