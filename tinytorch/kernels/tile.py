"""The one multiply-accumulate that every fast convolution is made of: its contract, and a plain-Python twin.

A tile is a block of ``rows × lanes`` outputs whose sums stay in registers while the whole reduction runs past them::

    C[r, v] = D[r, v] + Σ_o Σ_m Σ_i A[r, o, m, i] · B[o, m, i, v]

Every operand is a flat array, an offset and strides, counted in elements. What the letters mean is up to the caller:
in a forward convolution ``r`` counts output pixels, ``v`` output channels, ``o`` kernel rows, ``m`` kernel columns
and ``i`` input channels.

``tile`` below is the definition, and what runs under ``NUMBA_DISABLE_JIT=1``. Compiled callers get the
same contract written in vector registers by ``emit.py``.
"""

from __future__ import annotations


def tile(rows, vectors, masked, width, c, d, a, b, counts, lanes):  # type: ignore[no-untyped-def]
    """Compute one tile of ``C = D + A · B``.

    Parameters
    ----------
    rows, vectors
        Size of the register block; compile-time constants.
    masked
        1 if ``lanes`` may be less than ``vectors`` full vectors; then nothing beyond ``lanes`` is read or written. A
        constant.
    width
        Numbers in one vector register; a constant.
    c : (array, offset, row stride)
        Output. Lanes are contiguous.
    d : (array, offset, row stride)
        What the sums start from. Row stride 0 repeats one row, which is how a bias enters.
    a : (array, offset, row stride, o stride, m stride, i stride)
        The operand that is broadcast over lanes.
    b : (array, offset, o stride, m stride, i stride)
        The operand that is shared by rows. Lanes are contiguous.
    counts : (n_o, n_m, n_i)
        Trip counts of the reduction loops; with a count of zero C is a copy of D.
    lanes
        Outputs in a row, at most ``vectors × width``.
    """
    c_array, c_at, c_row = c
    d_array, d_at, d_row = d
    a_array, a_at, a_row, a_o, a_m, a_i = a
    b_array, b_at, b_o, b_m, b_i = b
    n_o, n_m, n_i = counts
    reach = lanes if masked else vectors * width
    for r in range(rows):
        sums = d_array[d_at + r * d_row : d_at + r * d_row + reach].copy()
        for o in range(n_o):
            for m in range(n_m):
                for i in range(n_i):
                    at = b_at + o * b_o + m * b_m + i * b_i
                    sums += a_array[a_at + r * a_row + o * a_o + m * a_m + i * a_i] * b_array[at : at + reach]
        c_array[c_at + r * c_row : c_at + r * c_row + reach] = sums
