"""What a schedule costs in closed form: idle seconds, micro-batches in flight, copies of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chipscale.evidence import EvidenceError
from chipscale.ops.work import Num
from chipscale.plan import SCHEDULES, Degrees

ONE_F_ONE_B, GPIPE, ZB_H1, ZB_V, DUALPIPE, DUALPIPE_V = (float(i) for i in range(len(SCHEDULES)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Seconds of one micro-batch, by direction: `total` of all, `forward`, and `weights` of the weight gradients."""

    total: Num
    forward: Num
    weights: Num

    @property
    def inputs(self) -> Num:
        """Return the backward pass without its weight gradients."""
        return self.total - self.forward - self.weights


def folded(schedule: Num) -> Num:
    """Return 1 where a rank holds a stage on the way down and one on the way up."""
    return 1.0 * ((schedule == ZB_V) | (schedule == DUALPIPE_V))


def chunks(plan: Degrees) -> Num:
    """Return the model chunks that a micro-batch passes on each rank: v, or 2 where the pipeline is folded."""
    return np.where(folded(plan.schedule) > 0.0, 2.0, plan.vpp)


def copies(schedule: Num) -> Num:
    """Return how often each parameter is held in a pipeline: twice where micro-batches enter at both ends.

    Holds when both directions run on the same ranks.
    Source: dualpipe, README (parameter 2x).

    >>> copies(4.0)
    array(2.)
    """
    return np.where(schedule == DUALPIPE, 2.0, 1.0)


def interleaved_bubble(p: Num, v: Num, m: Num, s: Passes) -> Num:
    """Return the idle seconds of 1F1B with v chunks a rank.

    (max(p - m, 0) + (min(m, p) - 1) / v) (F + B + W): (p - 1) / v as soon as there are p micro-batches.

    Holds when stages are equal but for the last, and micro-batches pass in groups of p or more.
    Source: megatron-2021, section 2.2; derived for m < p.

    >>> float(interleaved_bubble(4.0, 2.0, 8.0, Passes(total=3.0, forward=1.0, weights=1.0)))
    4.5
    """
    return (np.maximum(p - m, 0.0) + (np.minimum(m, p) - 1.0) / v) * s.total


def zb_h1_bubble(p: Num, m: Num, s: Passes, h: Passes) -> Num:
    """Return the idle seconds of ZB-H1 on its slowest rank; H, H_W the seconds of the head and of its weight gradients.

    max(0, (p - 1) (F + B - W) - p H_W, (p - 1) B + (H - H_W) - m H): without a head (p - 1) (B + max(F - W, 0)).

    Holds when stages are equal but for the head, and m is at least p.
    Source: zero-bubble-2023, table 2: (p - 1) (F + B - W); the rest derived from the order.

    >>> float(zb_h1_bubble(4.0, 8.0, Passes(total=3.0, forward=1.0, weights=1.0), Passes(total=0.0, forward=0.0, weights=0.0)))
    3.0
    """
    last = (p - 1.0) * (s.forward + s.inputs - s.weights) - p * h.weights
    first = (p - 1.0) * s.inputs + h.total - h.weights - m * h.total
    return np.maximum(np.maximum(last, first), 0.0)


def zb_v_bubble(p: Num, m: Num, s: Passes, h: Passes) -> Num:
    """Return the idle seconds of ZB-V on its slowest rank: none where F, B and W are equal, else what the longest chain of unequal ones adds.

    With n = p - 1, halves f, b, w of F, B, W and a head of H_F, H_B, H_W, H in all: the first rank, which holds the head, adds
    max(0, n (b - w) - w - H_W, n (w - f) - w - H_W); the others, without it, max(2 n (b - w) + H_F + H_B, n (b - f) + H_F + H_B,
    n (w - f) + b - w + n H - H_W, (n - 1) (w - f), n (2 f - b - w) + H, 2 n (f - w) + b - f, (n - 1) (f - b),
    2 n (f - w) - w + H_F + H_B) - m H.

    Holds when stages are equal but for the head, m is at least 2 p, and no barrier parts a step from the next (the optimizer validates
    afterwards); with a head a chain between two of these may be longer, by less than 1 % of a step.
    Source: zero-bubble-2023, sections 4 and 6 (zero for F = B = W); the rest derived from the order.

    >>> float(zb_v_bubble(4.0, 8.0, Passes(total=3.0, forward=1.0, weights=1.0), Passes(total=0.0, forward=0.0, weights=0.0)))
    0.0
    """
    n, f, b, w = p - 1.0, s.forward / 2.0, s.inputs / 2.0, s.weights / 2.0
    once = h.total - h.weights
    first = np.maximum(n * np.maximum(b - w, w - f) - w - h.weights, 0.0)
    chains = (2.0 * n * (b - w) + once, n * (b - f) + once, n * (w - f) + b - w + n * h.total - h.weights, (n - 1.0) * (w - f),
              n * (2.0 * f - b - w) + h.total, 2.0 * n * (f - w) + b - f, (n - 1.0) * (f - b), 2.0 * n * (f - w) - w + once)  # fmt: skip
    others = chains[0]
    for chain in chains[1:]:
        others = np.maximum(others, chain)
    return np.maximum(first, others - m * h.total)


def dualpipe_bubble(half: Num, s: Passes, h: Passes) -> Num:
    """Return the idle seconds of a bidirectional pipeline of 2 `half` places on its slowest rank; F, B, W are the passes of one stage.

    With n = half - 1 and a head of H in all, H' without its weight gradients: n max(B - W, 0) + max(0, n F - n H, 2 n F - (2 n + 1) H,
    (n - 1) B - n H + H', n F + (n - 1) B - 2 n H + H', (n - 1) F + n B - (2 n + 1) H + H'); without a head
    n max(B - W, 0) + max(2 n F, (n - 1) F + n B).

    Holds when stages are equal but for the heads at both ends, m is at least 2 p, and a pair takes as long as its two halves.
    Source: dualpipe, README: n (F&B + B' - 3 W) = n (F + 2 B - W) with B' = B + W, up to one F more than here; derived from the order.

    >>> none = Passes(total=0.0, forward=0.0, weights=0.0)
    >>> float(dualpipe_bubble(4.0, Passes(total=3.0, forward=1.0, weights=1.0), none))  # published: 3 (F + 2 B - W) = 6
    6.0
    """
    n, f, b, head = half - 1.0, s.forward, s.inputs, h.total
    once = head - h.weights
    filled = np.maximum(np.maximum(n * f - n * head, 2.0 * n * f - (2.0 * n + 1.0) * head), 0.0)
    turned = np.maximum((n - 1.0) * b - n * head, n * f + (n - 1.0) * b - 2.0 * n * head)
    turned = np.maximum(turned, (n - 1.0) * f + n * b - (2.0 * n + 1.0) * head) + once
    return (n > 0.0) * (n * np.maximum(b - s.weights, 0.0) + np.maximum(filled, turned))


def _half(s: Passes) -> Passes:
    return Passes(total=s.total / 2.0, forward=s.forward / 2.0, weights=s.weights / 2.0)


#: idle seconds of p ranks, v chunks and m micro-batches in the order of SCHEDULES, F, B, W the passes of a rank without the head
BUBBLES: tuple[Callable[[Num, Num, Num, Passes, Passes], Num], ...] = (
    lambda p, v, m, s, _h: interleaved_bubble(p, v, m, s),
    lambda p, _v, _m, s, _h: (p - 1.0) * s.total,
    lambda p, _v, m, s, h: zb_h1_bubble(p, m, s, h),
    lambda p, _v, m, s, h: zb_v_bubble(p, m, s, h),
    lambda p, _v, _m, s, h: dualpipe_bubble(p / 2.0, s, h),
    lambda p, _v, _m, s, h: dualpipe_bubble(p, _half(s), h),
)


def bubble(plan: Degrees, m: Num, s: Passes, h: Passes) -> Num:
    """Return the idle seconds of the slowest rank in a step of m micro-batches; F, B, W are the passes of a rank without the head `h`.

    GPipe (p - 1) (F + B + W); the others have their own form; DualPipeV is DualPipe on 2 p stages of half a share.

    Holds when ranks are equal but for the head; the forms of each schedule say when else.
    Source: gpipe-2019, section 2.3; megatron-2021, section 2.2; zero-bubble-2023, table 2; dualpipe, README.
    """
    found: Num = 0.0
    for kind in np.unique(plan.schedule):
        found = np.where(plan.schedule == kind, BUBBLES[int(kind)](plan.pp, plan.vpp, m, s, h), found)
    return found


def fill(plan: Degrees, m: Num, s: Passes, h: Passes, hop: Num) -> Num:
    """Return the seconds that messages add where a pipeline fills and drains, since nothing hides them there.

    2 (p - 1) hop, with half the ranks where micro-batches enter at both ends;  ZB-H1: its bubble with F + hop and B + hop for F and B, less
    its bubble without, since late weight gradients hide some.

    Holds when steady messages run beside compute but for a share.
    Source: megatron-2021, section 2.2; derived for ZB-H1.
    """
    slower = Passes(total=s.total + 2.0 * hop, forward=s.forward + hop, weights=s.weights)
    late = zb_h1_bubble(plan.pp, m, slower, h) - zb_h1_bubble(plan.pp, m, s, h)
    return np.where(plan.schedule == ZB_H1, late, 2.0 * (plan.pp / copies(plan.schedule) - 1.0) * hop)


def in_flight(plan: Degrees, m: Num, stage: Num = 0.0) -> Num:
    """Return how many micro-batches of a whole stage rank `stage` (0 is the first) keeps at once; a rank of DualPipe holds two stages.

    1F1B: p - i;  interleaved: ((v - 1) g + 2 (p - i) - 1) / v with groups of g = ceil(m / floor(m / p)) micro-batches;  ZB-H1, ZB-V: p;
    DualPipe: p + 1;  DualPipeV: p + 1 / 2;  GPipe: m, and none is more.

    Holds when a micro-batch is kept until its weight gradients are done.
    Source: korthikanti-2022, section 4.2.3 (first stage: 1 + (p - 1) / (p v) times p); zero-bubble-2023, table 2; dualpipe, README; groups of more than p derived.

    >>> from chipscale.plan import Plan, degrees
    >>> float(in_flight(degrees(Plan(pp=8, vpp=4)), 64.0))
    9.75
    """
    p, v = plan.pp, plan.vpp
    group = np.ceil(m / np.maximum(np.floor(m / p), 1.0))
    found = np.where(v > 1.0, ((v - 1.0) * group + 2.0 * (p - stage) - 1.0) / v, p - stage)
    found = np.where((plan.schedule == ZB_H1) | (plan.schedule == ZB_V), p, found)
    found = np.where(plan.schedule == DUALPIPE, p + 1.0, found)
    found = np.where(plan.schedule == DUALPIPE_V, p + 0.5, found)
    return np.where(plan.schedule == GPIPE, m, np.minimum(found, m))


def problem(schedule: str, p: int, v: int, m: int, layers: float = np.inf) -> str:
    """Say why a schedule cannot run m micro-batches of so many layers on p ranks with v chunks each, "" where it can."""
    kind = SCHEDULES.index(schedule)
    both, fold = kind == DUALPIPE, kind in (ZB_V, DUALPIPE_V)
    stages = p * (2 if fold else v)
    least = 2 * p if both or fold else p if kind == ZB_H1 or v > 1 else 1
    problems = (
        (m < 1, f"{m} micro-batches: a step needs at least one; use a larger batch"),
        (v > 1 and kind != ONE_F_ONE_B, f"vpp={v}: {schedule} has its own chunks; leave vpp out or use schedule=1f1b"),
        (p < 2 and kind != ONE_F_ONE_B, f"pp={p}: {schedule} needs at least two stages; raise pp or use schedule=1f1b"),
        (p < 2 and v > 1, f"vpp={v} needs more than one stage; raise pp or leave vpp out"),
        (stages > layers, f"{stages} stages (pp={p}) are more than the {layers:g} layers; lower pp{' or vpp' if v > 1 else ''}"),
        (both and p % 2, f"pp={p}: {schedule} pairs stages from both ends; use an even pp"),
        (both and m % 2, f"{m} micro-batches: {schedule} sends half from each end; use an even number (change dp, the micro-batch or the batch)"),
        (m < least, f"{m} micro-batches are too few for {schedule} on pp={p}{f', vpp={v}' if v > 1 else ''}, which needs {least}; "
                    "lower pp, dp or the micro-batch, or use a larger batch"),
    )  # fmt: skip
    return next((why for bad, why in problems if bad), "")


def fits(schedule: str, p: int, m: int, layers: float) -> bool:
    """Return whether a schedule without interleave can run."""
    return not problem(schedule, p, 1, m, layers)


def refuse(schedule: str, p: int, v: int, m: int, layers: float = np.inf) -> None:
    """Raise what `problem` finds."""
    why = problem(schedule, p, v, m, layers)
    if why:
        raise EvidenceError(f"--plan: {why}")
