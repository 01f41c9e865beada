"""Bytes that a collective sends, and the tiers of fabric that carry them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipscale.ops.work import Num


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How a group of ranks lies on the fabric: `inside` of them share the innermost tier, `outside` such parts talk across; `stride` lies between neighbours."""

    inside: Num
    outside: Num
    stride: Num = 1.0

    @property
    def size(self) -> Num:
        return self.inside * self.outside


def spread(group: Num, stride: Num, tier: Num) -> Spread:
    """Lay `group` ranks at `stride` over tiers of `tier` chips, innermost first.

    inside = clip(floor(S / stride), 1, n), outside = n / inside.

    Holds when ranks are laid out with tp innermost and degrees nest in the tier.
    Source: megatron-2021, section 3.2 (tensor parallelism inside the node).

    >>> float(spread(16.0, 1.0, 8.0).inside), float(spread(16.0, 1.0, 8.0).outside)
    (8.0, 2.0)
    """
    inside = np.minimum(group, np.maximum(1.0, np.floor(tier / stride)))
    return Spread(inside=inside, outside=group / inside, stride=stride)
