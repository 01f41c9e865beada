"""One half of the expert all-to-all: tokens to the ranks of their experts (dispatch), or results back (combine)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.cost.kernels.form import Axis, Form, Silicon
from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Every rank sends `tokens` rows of `hidden` values, `width` bytes each, to `top_k` of `experts` spread over `ranks`.

    `once` is 1 where a row goes once to a rank that holds several of its experts, 0 where it goes once for each expert. The ranks stand on `nodes`
    equal nodes; with `once` a row crosses once to each node that has experts of it and is copied there. A token's experts lie on at most `limit` nodes; 0 is no limit.
    """

    tokens: Num
    hidden: Num
    top_k: Num
    experts: Num
    ranks: Num
    width: Num
    once: Num
    nodes: Num = 1.0
    limit: Num = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConstants:
    """launch (s); board: launch on rack-scale boards over that on 8-way ones; row (s a token, whatever its size); rate (B/s) of the copying cores."""

    launch: Num
    board: Num
    row: Num
    rate: Num


#: the largest fast fabric inside one box; a larger one spans the boards of a rack
BOX = 16.0


def distinct(groups: Num, experts: Num, top_k: Num) -> Num:
    """Return how many of `groups` equal groups of experts a token's top-k reach on average.

    g (1 - C(E - E/g, k) / C(E, k)).

    Holds when all sets of k of the E experts are equally likely.
    Source: feller-1968, section II.6 (hypergeometric distribution).

    >>> round(float(distinct(4.0, 256.0, 8.0)), 2), float(distinct(1.0, 256.0, 8.0))
    (3.61, 1.0)
    """
    from scipy.special import gammaln

    others = experts - experts / groups
    enough = np.maximum(others, top_k)
    missed = gammaln(enough + 1.0) - gammaln(enough - top_k + 1.0) - gammaln(experts + 1.0) + gammaln(experts - top_k + 1.0)
    return groups * (1.0 - np.where(others >= top_k, np.exp(missed), 0.0))


def open_nodes(c: Exchange) -> Num:
    """Return on how many nodes a token's experts may lie: N, or the limit M where there is one."""
    return np.where(np.asarray(c.limit) > 0.0, np.minimum(c.limit, c.nodes), c.nodes)


def nodes_reached(c: Exchange) -> Num:
    """Return how many nodes a token's experts lie on, its own counted where it is one of them.

    M (1 - C(E' - E'/M, k) / C(E', k)), E' = E M / N.

    Holds when any M of the N nodes are chosen alike, then any k experts on them; nodes chosen by their best experts' scores are nearly all reached.
    Source: deepseek-v3, section 2.1.2 (node-limited routing).

    >>> v3 = Exchange(tokens=1.0, hidden=7168.0, top_k=8.0, experts=256.0, ranks=64.0, width=1.0, once=1.0, nodes=8.0, limit=4.0)
    >>> round(float(nodes_reached(v3)), 2)
    3.63
    """
    most = open_nodes(c)
    return distinct(most, c.experts * most / c.nodes, c.top_k)


def copies(c: Exchange) -> Num:
    """Return how many copies of its row a token sends, all in all.

    one node: R (1 - (1 - 1/R)^k) where a rank gets a row once; several: the ranks that k of E' experts reach; else k.

    Holds when experts are drawn evenly; on one node, where the form is fitted so, many are on a rank.
    Source: deepep, README "Normal kernels" and "Low-latency kernels".

    >>> from dataclasses import replace
    >>> call = Exchange(tokens=1.0, hidden=7168.0, top_k=8.0, experts=256.0, ranks=8.0, width=2.0, once=1.0)
    >>> round(float(copies(call)), 2), float(copies(replace(call, once=0.0)))
    (5.25, 8.0)
    """
    most = open_nodes(c)
    far = distinct(most * c.ranks / c.nodes, c.experts * most / c.nodes, c.top_k)
    near = c.ranks * (1.0 - (1.0 - 1.0 / c.ranks) ** c.top_k)
    return np.where(c.once > 0.0, np.where(np.asarray(c.nodes) > 1.0, far, near), c.top_k)


def sent(c: Exchange) -> tuple[Num, Num]:
    """Return the bytes that a rank sends inside its node and between nodes.

    once a node: n h w c (p - 1) / p inside, n h w m (N - 1) / N between;  once an expert: n h w k (p - 1) / R and n h w k (N - 1) / N;
    n tokens, c ranks and m nodes reached, p = R / N ranks a node.

    Holds when a rank's rows leave by its own adapter to the rank of its place on the other node, which copies them.
    Source: deepseek-v3, section 3.2.2 (a token crosses once to a node, then over NVLink).
    """
    row, inside = c.tokens * c.hidden * c.width, c.ranks / c.nodes
    near = np.where(c.once > 0.0, (inside - 1.0) / inside, (inside - 1.0) / c.ranks)
    crossing = np.where(c.once > 0.0, nodes_reached(c), c.top_k) * (1.0 - 1.0 / c.nodes)
    return row * copies(c) * near, row * crossing


def exchange_seconds(c: Exchange, s: Silicon, k: ExchangeConstants) -> Num:
    """Cost one dispatch or combine.

    t = (l^p + x^p)^(1/p);  l = launch (times board where the fabric spans boards);  x = tokens row + max(n h w / rate, V_in / B, V_out / B_out),
    n = tokens times copies, V_in and V_out what a rank sends inside its node and beyond;  p = 1.5: the copying starts while the signals of the launch still travel.

    Holds when both fabrics carry at once, row after row; a fixed number of cores does the copying, so the rate is absolute.
    Source: deepep, README "Performance".
    """
    near, far = sent(c)
    size = c.tokens * copies(c) * c.hidden * c.width
    start = k.launch * np.where(s.link_size > BOX, k.board, 1.0)
    moving = c.tokens * k.row + np.maximum(np.maximum(size / k.rate, near / s.link_bandwidth), far / s.outer_bandwidth)
    return (start**1.5 + moving**1.5) ** (2.0 / 3.0)


def exchange_floor(c: Exchange, s: Silicon) -> Num:
    """Bound an exchange by the links of one chip.

    max(V_in / B, V_out / B_out).

    Holds when a rank sends as much as it receives.
    Source: thakur-2005, section 3.
    """
    near, far = sent(c)
    return np.maximum(near / s.link_bandwidth, far / s.outer_bandwidth)


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
