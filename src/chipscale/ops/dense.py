"""Matrix products with weights."""

from __future__ import annotations

from chipscale.ops.work import Cause, Form, Num, Work


def gemm(name: str, m: Num, n: Num, k: Num, *, calls: float, cause: Cause = "gemm", groups: Num = 1.0, form: Form = "gemm",
         width: Num = 2.0, narrow: bool = True, backward: bool = False, out: Num = 2.0, core: bool = False, weights: bool = False) -> Work:  # fmt: skip
    """Describe `groups` products of (m x k) by (k x n).

    FLOP = 2 g m n k;  bytes = g (w (m k + k n) + w_out m n), w bytes an element read, w_out written.

    Holds when each operand is read once from memory (tiles are re-used in cache).
    Source: nvidia-matmul-guide, "Math and memory bounds".

    >>> gemm("x", 8192.0, 128.0, 8192.0, calls=1.0).flop / gemm("x", 8192.0, 128.0, 8192.0, calls=1.0).bytes  # published: 124.1
    124.12121212121212
    """
    return Work(name=name, form=form, cause=cause, flop=2.0 * groups * m * n * k, bytes=groups * (width * (m * k + k * n) + out * m * n),
                rows=m, columns=n, depth=k, calls=calls, narrow=narrow, backward=backward, core=core, weights=weights)  # fmt: skip


def linear(name: str, m: Num, n: Num, k: Num, *, calls: float, train: bool, width: Num = 2.0, cause: Cause = "gemm",
           groups: Num = 1.0, form: Form = "gemm", narrow: bool = True) -> list[Work]:  # fmt: skip
    """List a linear layer's forward product and, in training, its input- and weight-gradient products.

    forward (m,n,k); input gradient (m,k,n); weight gradient (k,n,m) accumulated in 32 bit: 2 m n k FLOP each.

    Holds when weights get gradients (no frozen layers).
    Source: megatron-2021, appendix (backward costs twice the forward).

    >>> sum(w.flop for w in linear("x", 2.0, 3.0, 5.0, calls=1.0, train=True))
    180.0
    """

    def product(suffix: str, m: Num, n: Num, k: Num, out: float, backward: bool, weights: bool = False) -> Work:
        return gemm(name + suffix, m, n, k, calls=calls, cause=cause, groups=groups, form=form, width=width, narrow=narrow,
                    backward=backward, out=out, weights=weights)  # fmt: skip

    works = [product("", m, n, k, 2.0, False)]
    if train:
        works += [product(" dgrad", m, k, n, 2.0, True), product(" wgrad", k, n, m, 8.0, True, True)]
    return works
