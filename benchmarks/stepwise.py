"""A second server, written for clarity alone: one replica, every step and every sequence by itself, no sums kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from chipscale.serving.load import Requests
from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules


@dataclass(slots=True)
class Request:
    """One request: what of its prompt is computed, what it has said, when."""

    arrival: float
    prompt: int
    output: int
    computed: int = 0
    said: int = 0
    stopped: int = 0
    start: float = math.nan
    tokens: list[float] = field(default_factory=list)


def blocks(request: Request, tokens: int, rules: Rules) -> int:
    """Blocks of a request that holds `tokens` tokens."""
    return -(-(request.prompt + request.output - 1 if rules.reserve else tokens) // rules.block)


def serve(pace: Pace, rules: Rules, asked: Requests) -> tuple[list[Request], int]:
    """Serve without speculation; return all requests and the most blocks that were ever in use."""
    later = [Request(float(a), int(i), int(o)) for a, i, o in zip(asked.arrival, asked.input, asked.output, strict=True)]
    everything, waiting, running, now, fullest = list(later), [], [], 0.0, 0
    if asked.users:
        waiting, later = later[: asked.users], later[asked.users :]
    while waiting or running or later:
        while not asked.users and later and later[0].arrival <= now:
            waiting.append(later.pop(0))
        if not waiting and not running:
            now = later[0].arrival
            continue
        used = sum(blocks(r, r.prompt + r.said, rules) for r in running)
        partial = [r for r in waiting[:1] if r.computed > int(rules.cached * r.prompt)]
        stopped = False
        while used + sum(blocks(r, r.computed, rules) for r in partial) > rules.blocks:
            stopped = True
            if partial:
                partial.pop().computed = 0
                waiting[0].stopped += 1
                continue
            victim = running.pop()
            used -= blocks(victim, victim.prompt + victim.said, rules)
            victim.computed, victim.stopped = 0, victim.stopped + 1
            waiting.insert(0, victim)
        used += sum(blocks(r, r.computed, rules) for r in partial)
        left = rules.tokens - (len(running) if rules.shared else 0)
        prompts: list[tuple[Request, int, int]] = []
        while waiting and not stopped and len(running) + len(prompts) < rules.sequences:
            r = waiting[0]
            if not r.stopped and not r.computed:
                r.computed = min(int(rules.cached * r.prompt), r.prompt - 1)
            held = blocks(r, r.computed, rules) if r in partial else 0
            todo = r.prompt + r.said - r.computed
            n = todo if todo <= left else left if rules.chunked else 0
            if n < 1 or used - held + blocks(r, r.computed + n, rules) > rules.blocks:
                break
            used += blocks(r, r.computed + n, rules) - held
            r.start = now if math.isnan(r.start) else r.start
            prompts.append((r, n, r.computed))
            r.computed, left = r.computed + n, left - n
            if n < todo:
                break
            waiting.pop(0)
        fullest = max(fullest, used)
        active = running if rules.shared or not prompts else []
        context = sum(r.prompt + r.said - 1 for r in active)
        pairs = sum(n * done + n * (n + 1) // 2 for _, n, done in prompts)
        now += float(pace.seconds(sum(n for _, n, _ in prompts), pairs, len(active), context, 0, len(prompts)))
        finished = [r for r, _, _ in prompts if r.computed == r.prompt + r.said]
        for r in [*active, *finished]:
            r.said += 1
            r.tokens.append(now)
        running = [*running, *finished]
        for r in [r for r in running if r.said == r.output]:
            running.remove(r)
            if asked.users and later:
                later[0].arrival = now
                waiting.append(later.pop(0))
    return everything, fullest
