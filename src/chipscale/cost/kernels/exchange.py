"""One half of the expert all-to-all: tokens to the ranks of their experts (dispatch), or results back (combine)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Every rank sends `tokens` rows of `hidden` values, `width` bytes each, to `top_k` of `experts` spread over `ranks`.

    `once` is 1 where a row goes once to a rank that holds several of its experts, 0 where it goes once for each expert.
    """

    tokens: Num
    hidden: Num
    top_k: Num
    experts: Num
    ranks: Num
    width: Num
    once: Num


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConstants:
    """launch (s); board: launch on rack-scale boards over that on 8-way ones; row (s a token, whatever its size); rate (B/s) of the copying cores."""

    launch: Num
    board: Num
    row: Num
    rate: Num


#: the largest fast fabric inside one box; a larger one spans the boards of a rack
BOX = 16.0


def copies(c: Exchange) -> Num:
    """Return how many copies of its row a token sends.

    R (1 - (1 - 1/R)^k) where a rank gets a row once, else k.

    Holds when experts are drawn evenly and many are on a rank.
    Source: deepep, README "Normal kernels" and "Low-latency kernels".

    >>> from dataclasses import replace
    >>> call = Exchange(tokens=1.0, hidden=7168.0, top_k=8.0, experts=256.0, ranks=8.0, width=2.0, once=1.0)
    >>> round(float(copies(call)), 2), float(copies(replace(call, once=0.0)))
    (5.25, 8.0)
    """
    ranks = c.ranks * (1.0 - (1.0 - 1.0 / c.ranks) ** c.top_k)
    return np.where(c.once > 0.0, ranks, c.top_k)


def exchange_seconds(c: Exchange, s: Silicon, k: ExchangeConstants) -> Num:
    """Cost one dispatch or combine.

    t = (l^p + x^p)^(1/p);  l = launch (times board where the fabric spans boards);  x = tokens row + max(n h w / rate, n h w (R - 1)/R / B),
    n = tokens times copies;  p = 1.5: the copying starts while the signals of the launch still travel.

    Holds within one fast fabric; a fixed number of cores does the copying, so the rate is absolute.
    Source: deepep, README "Performance".
    """
    size = c.tokens * copies(c) * c.hidden * c.width
    start = k.launch * np.where(s.link_size > BOX, k.board, 1.0)
    moving = c.tokens * k.row + np.maximum(size / k.rate, size * (c.ranks - 1.0) / c.ranks / s.link_bandwidth)
    return (start**1.5 + moving**1.5) ** (2.0 / 3.0)


def exchange_floor(c: Exchange, s: Silicon) -> Num:
    """Bound an exchange by the links of one chip.

    tokens copies h w (R - 1) / R / B.

    Holds when a rank sends as much as it receives.
    Source: thakur-2005, section 3.
    """
    return c.tokens * copies(c) * c.hidden * c.width * (c.ranks - 1.0) / c.ranks / s.link_bandwidth


def exchange_coordinates(c: Exchange, s: Silicon) -> tuple[Num, ...]:  # noqa: ARG001  (every form takes both)
    """Place an exchange on the surface's axes.

    log2 of (tokens, values of a row).

    Holds always.
    Source: de-boor-2001, chapter 1.
    """
    return np.log2(c.tokens), np.log2(c.hidden)


EXCHANGE = Form(
    id="exchange",
    call=Exchange,
    constants=ExchangeConstants,
    seconds=exchange_seconds,
    floor=exchange_floor,
    axes=(Axis(name="tokens", knots=(0, 4, 6, 8, 10, 12, 16)), Axis(name="hidden", knots=(11.5, 12.2, 13))),
    coordinates=exchange_coordinates,
)
