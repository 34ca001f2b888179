"""The Triton kernels: products of queries and keys stay on the chip.

    row_sums      rows stay, columns pass by: a sum over each row
    row_factors   of each row: its share, and how much it counts in the sums over columns
    column_sums   columns stay, rows pass by: three weighted sums over each column
    pair_sums     one block of rows and columns, head after head: the correspondence, and R2G of the
                  block's columns
    r2g_totals    rows stay, blocks of columns pass by: R2G of all columns
    model_sums    rows stay, columns pass by: the model's attention over each row and each column

Every exponential is of a logit minus the log-sum-exp of its row or column, so none is above one and
there is no maximum to keep. What is done for each logit is what a kernel costs. A sum with one
weight runs along the rows of a tile, in float32 and inside a thread. Sums with several weights are
thin products on the tensor cores; in half precision, those round each exponential to 2^-8 of
itself. Nothing asks of each logit whether its token exists: full blocks go first, and the `last`
one by itself. The model's mask is added, if there is one; a row or column that it hides altogether
has an infinite offset. Exponentials have base two, like the hardware's; log-sum-exps of rows are
stored as natural logarithms, those of columns, which only kernels read, are not. No two programs
add to one number. Without atomics a run gives the same map each time, to the last bit.
"""
# pyright: reportUnknownVariableType=false

from .columns import column_sums
from .pairs import pair_sums, r2g_totals
from .rows import model_sums, row_factors, row_sums

__all__ = ["column_sums", "model_sums", "pair_sums", "r2g_totals", "row_factors", "row_sums"]
