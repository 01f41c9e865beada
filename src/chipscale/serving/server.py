"""The server: a discrete-event simulation of replicas that share requests, one pool or a pool each for prompts and for decodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

from chipscale.evidence import EvidenceError
from chipscale.serving.capacity import stable
from chipscale.serving.load import Load, Requests, requests
from chipscale.serving.replica import Job, Replica, Watch, costs
from chipscale.serving.rules import decode_steps
from chipscale.serving.served import Served, served
from chipscale.serving.service import ROUTINGS, Service

Router = Callable[[list[Replica], int], Replica]

#: by name in `ROUTINGS`: a replica out of a pool, where so many requests came before
ROUTERS: dict[str, Router] = dict(
    zip(ROUTINGS, (lambda replicas, count: replicas[count % len(replicas)], lambda replicas, _: min(replicas, key=lambda r: r.load)), strict=True)
)


def simulate(service: Service, load: Load, *, leap: float = math.inf) -> Served:
    """Serve a load and return when each request was scheduled, saw its first token and was answered.

    Decode steps of an unchanged batch cost an arithmetic series (the pace is linear in cached tokens), so up to `leap` of them pass as one event; the result is the same
    for any `leap`. What is left out: blocks that a prefill replica holds during a transfer. Raises `EvidenceError` where a request can never be scheduled, or an open load exceeds the capacity.
    Source: vllm-2023, section 4; orca-2022, section 4 (scheduling by iterations).
    """
    asked = requests(load)
    check(service, asked)
    stable(service, load)
    steps = decode_steps(asked.output, service.speculation, load.seed)
    return Run(service, asked, steps.tolist(), leap).served(load)


def check(service: Service, asked: Requests) -> None:
    """Refuse requests that can never be scheduled, and say by how much."""
    whole = asked.input + asked.output - 1
    for name, pool, tokens in (("decode", service.pool, whole), ("prefill", service.prefill, asked.input)):
        if pool is None:
            continue
        rules, longest, width = pool.rules, int(tokens.max()), 1 + service.speculation.drafts
        if longest > rules.block * rules.blocks:
            raise EvidenceError(
                f"a request of {longest} tokens exceeds the cache of a {name} replica, {rules.blocks:g} blocks of {rules.block} tokens, by {longest - rules.block * rules.blocks:g}; "
                "give more blocks or shorter requests"
            )
        again = not rules.reserve and rules.blocks < math.inf
        prompt = longest if again else 0 if name == "decode" and service.prefill else int(asked.input.max())
        if not rules.chunked and prompt > rules.tokens:
            raise EvidenceError(
                f"a prompt of {prompt} tokens exceeds the budget of {rules.tokens} tokens a step by {prompt - rules.tokens}; allow chunks or raise the budget"
            )
        most = min(rules.sequences, asked.most)
        if rules.shared and most * width > rules.tokens:
            raise EvidenceError(f"{most} sequences of {width} tokens a step exceed its budget of {rules.tokens}; lower sequences or raise the budget")


class Run:
    """One simulation: a heap of times at which a replica ends its plan or a request comes; nothing outlives it."""

    def __init__(self, service: Service, asked: Requests, steps: list[int], leap: float) -> None:
        self._asked, self._steps, self._service = asked, steps, service
        self._input, self._output = asked.input.tolist(), asked.output.tolist()
        self._arrival: list[float] = asked.arrival.tolist()
        count, longest, drafts = len(steps), int((asked.input + asked.output).max()), service.speculation.drafts
        self._watch, self._pools, self._routed = Watch(count), [], [0, 0]
        pools = (service.pool,) if service.prefill is None else (service.prefill, service.pool)
        for pool, done in zip(pools, (self._answered,) if len(pools) == 1 else (self._read, self._answered), strict=True):
            table = costs(pool.pace, pool.rules, drafts if pool is service.pool else 0, asked.most, longest)
            self._pools.append([Replica(table, pool.rules, self._watch, done, leap) for _ in range(pool.replicas)])
        self._cached = pools[0].rules.cached
        self._route = ROUTERS[service.routing]
        self._heap: list[tuple[float, int, Replica | None, int]] = []
        self._order = self._next = self._present = 0
        self._due: dict[Replica, None] = {}
        self._area = 0.0

    def served(self, load: Load) -> Served:
        """Play all events in order of time; those of one instant are played before any replica plans its next step."""
        heap, now = self._heap, 0.0
        for _ in range(self._asked.most if self._asked.users else 1):
            self._send(self._arrival[self._next])
        while heap:
            self._area += self._present * (heap[0][0] - now)
            now = heap[0][0]
            while heap and heap[0][0] <= now:
                _, _, replica, what = heappop(heap)
                if replica is None:
                    self._come(what, now)
                elif replica.plan == what:
                    replica.finish(now)
                    self._due[replica] = None
            due, self._due = self._due, {}
            for replica in due:
                self._push(replica.begin(now), replica, replica.plan)
        return served(self._asked, self._arrival, self._watch, load, self._area, [r.fullest for pool in self._pools for r in pool])

    def _push(self, at: float, replica: Replica | None, what: int) -> None:
        if at < math.inf:
            self._order += 1
            heappush(self._heap, (at, self._order, replica, what))

    def _send(self, now: float) -> None:
        """Let the next request come at `now`."""
        self._arrival[self._next] = now
        self._push(now, None, self._next)
        self._next += 1

    def _come(self, what: int, now: float) -> None:
        """Take in request `what`, or the transferred cache of request -1 - `what`."""
        if what < 0:
            self._hand(self._moved(-1 - what), -1, now)
            return
        self._present += 1
        if not self._asked.users and self._next < len(self._steps):
            self._send(self._arrival[self._next])
        whole, prompt = len(self._pools) == 1, self._input[what]
        cached = min(int(self._cached * prompt), prompt - 1)
        self._hand(Job(what, prompt - cached, cached, *((self._output[what], self._steps[what]) if whole else (1, 0))), 0, now)

    def _hand(self, job: Job, pool: int, now: float) -> None:
        """Route a request to a replica of a pool, which sees it when its step under way ends."""
        replica = self._route(self._pools[pool], self._routed[pool])
        self._routed[pool] += 1
        blocked = bool(replica.waiting)
        replica.accept(job)
        if not replica.busy:
            self._due[replica] = None
        elif not blocked:
            self._push(replica.cut(now), replica, replica.plan)

    def _read(self, job: Job, now: float) -> None:
        """Send the cache of a prompt that a prefill replica has read on its way."""
        transfer = self._service.transfer
        if not self._steps[job.index]:
            self._answered(job, now)
            return
        if not transfer.early or self._service.pool.rules.stream > 1:
            self._watch.first[job.index] = math.nan
        self._push(now + transfer.fixed + transfer.token * self._input[job.index], None, -1 - job.index)

    def _moved(self, index: int) -> Job:
        """Return a request whose prompt and first token are there."""
        job = Job(index, 0, self._input[index], self._output[index], self._steps[index])
        job.emitted = 1.0
        return job

    def _answered(self, job: Job, now: float) -> None:
        """Note the end of a request; a user of a closed loop sends the next one."""
        self._watch.end[job.index] = now
        self._present -= 1
        if self._asked.users and self._next < len(self._steps):
            self._send(now)
