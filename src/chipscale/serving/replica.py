"""A replica in motion: what waits, what runs, and the next step, or the many steps alike that can be leapt over at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from chipscale.serving.pace import Pace
from chipscale.serving.rules import Rules

#: tokens by which a sum of fractions may miss a whole number
FUZZ = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """A `Pace` under `Rules` as plain lists, in seconds.

    `flow[i]` is what i tokens cost outside attention; of n decoding sequences `rest[n]` is what does not depend on their caches, host included and `flow` left out,
    `base[n]` the same with `flow`, `reach[n]` the seconds a cached token; `width` is the tokens a sequence takes of a step.
    """

    flow: list[float]
    rest: list[float]
    base: list[float]
    reach: list[float]
    chunk: float
    pair: float
    sequence: float
    width: int


def costs(pace: Pace, rules: Rules, drafts: int, sequences: int, longest: int) -> Costs:
    """Tabulate `pace` for up to `sequences` requests whose longest prompt is `longest` tokens."""
    width, count = 1 + drafts, np.arange(min(sequences, rules.sequences) + 1.0)
    tokens = np.arange(max(min(rules.tokens, len(count) * longest + width * len(count)), width * len(count)) + 1.0)
    flow, reach = np.asarray(pace.flowing(tokens)), np.where(count > 0, pace.reached(count), 0.0)
    rest = np.where(count > 0, pace.settled(count), 0.0) + pace.step + pace.sequence * count
    lists = {"flow": flow.tolist(), "rest": rest.tolist(), "base": (rest + flow[::width][: len(count)]).tolist(), "reach": reach.tolist()}
    return Costs(**lists, chunk=float(pace.chunk), pair=float(pace.pair), sequence=float(pace.sequence), width=width)


class Job:
    """A request on a replica: `todo` prompt tokens to compute on top of `done`, then `steps` decode steps that bring `speed` tokens each."""

    __slots__ = ("done", "emitted", "held", "index", "length", "serial", "since", "speed", "steps", "todo", "whole")

    def __init__(self, index: int, todo: int, done: int, output: int, steps: int) -> None:
        self.index, self.todo, self.done, self.steps = index, todo, done, steps
        self.speed = (output - 1) / steps if steps else 0.0
        self.whole = todo + done + output
        self.emitted = 0.0
        self.length = float(todo + done)
        self.held = self.serial = self.since = 0


class Pause(NamedTuple):
    """`steps` gaps between tokens of `sequences` requests each, the first `first` seconds, each next one `slope` longer."""

    first: float
    slope: float
    steps: int
    sequences: int


class Watch:
    """What a simulation writes down, by request: first time scheduled, first token seen, end, how often stopped; and gaps between tokens."""

    __slots__ = ("end", "first", "pauses", "start", "stopped")

    def __init__(self, count: int) -> None:
        self.start, self.first, self.end, self.stopped = [math.nan] * count, [math.nan] * count, [math.nan] * count, [0] * count
        self.pauses: list[Pause] = []


class Replica:
    """One replica: `begin` plans the next steps and returns when they end, `cut` shortens the plan where a request comes, `finish` carries it out."""

    __slots__ = ("_active", "_costs", "_count", "_done", "_ends", "_first", "_growth", "_held", "_leap", "_paused", "_prompting", "_rules", "_running", "_seen", "_serial", "_slope", "_start",
                 "_step", "_steps", "_tokens", "_watch", "fullest", "load", "plan", "waiting")  # fmt: skip

    def __init__(self, costs: Costs, rules: Rules, watch: Watch, done: Callable[[Job, float], None], leap: float) -> None:
        self._costs, self._rules, self._watch, self._leap, self._done = costs, rules, watch, leap, done
        self.waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}
        self._prompting: list[Job] = []
        self._ends: list[tuple[int, int]] = []
        self._seen: list[tuple[int, int]] = []
        self._paused: list[tuple[float, int]] = []
        self._serial = self._step = self._active = self._steps = self._held = 0
        self._count: tuple[np.ndarray, np.ndarray] | None = None
        self._tokens = self._growth = self._start = self._first = self._slope = 0.0
        self.fullest = 0.0
        self.plan = self.load = 0

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return self._steps > 0

    def accept(self, job: Job) -> None:
        """Let a request wait here."""
        self.waiting.append(job)
        self.load += 1

    def begin(self, now: float) -> float:
        """Plan the next steps and return when they end; infinity where nothing is to be done."""
        c, stopped = self._costs, self._make_room()
        prompt, pairs, chunks = (0, 0, 0) if stopped or not self.waiting else self._admit(now)
        n = len(self._running)
        self._start, self.plan = now, self.plan + 1
        if chunks:
            self._active = n = n if self._rules.shared else 0
            self._steps, self._slope = 1, 0.0
            self._first = c.flow[prompt + n * c.width] + c.chunk + c.pair * pairs + c.rest[n] + c.reach[n] * self._tokens + c.sequence * chunks
            return now + self._first
        self._active = n
        if not n:
            self._steps = 0
            return math.inf
        self._first, self._slope = c.base[n] + c.reach[n] * self._tokens, c.reach[n] * self._growth
        self._steps = 1 if stopped else self._leapt()
        return now + self._elapsed(self._steps)

    def cut(self, now: float) -> float:
        """End the plan with the step that is under way at `now`, so that what came is seen; return when that is."""
        low, high = 1, self._steps
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._start + self._elapsed(middle) >= now else (middle + 1, high)
        self._steps, self.plan = low, self.plan + 1
        return self._start + self._elapsed(low)

    def finish(self, now: float) -> None:
        """Carry out the planned steps: tokens come, prompts that are complete join the decodes, what is answered leaves."""
        before = self._step
        if self._active:
            self._record()
            self._step += self._steps
            self._tokens += self._growth * self._steps
            while self._seen and self._seen[0][0] <= self._step:
                at, serial = heappop(self._seen)
                if serial in self._running:
                    self._watch.first[self._running[serial].index] = self._start + self._elapsed(at - before)
        elif self._running:
            self._paused = self._paused or [(self._start, len(self._running))]
        joined, self._prompting, self._steps, decoding = self._prompting, [], 0, len(self._running)
        for job in joined:
            job.emitted += 1.0
            self._join(job, now)
        if self._paused and len(self._running) > decoding:
            self._paused.append((now, len(self._running) - decoding))
        while self._ends and self._ends[0][0] <= self._step:
            ended = self._running.pop(heappop(self._ends)[1], None)
            if ended is not None:
                self._leave(ended)
                self._answered(ended, now)

    def _admit(self, now: float) -> tuple[int, int, int]:
        """Take prompts, first come first served, while budget, sequences and blocks last; return their tokens, their pairs and how many they are."""
        rules, running, waiting = self._rules, self._running, self.waiting
        left, width = rules.tokens, self._costs.width if rules.shared else 0
        prompt = pairs = chunks = 0
        left -= width * len(running)
        while waiting and len(running) + chunks < rules.sequences:
            job = waiting[0]
            n = job.todo if job.todo <= left else left if rules.chunked else 0
            if (n < 1 if job.todo else left < width) or not self._claim(job, n):
                break
            if math.isnan(self._watch.start[job.index]):
                self._watch.start[job.index] = now
            if not job.todo:
                self._join(waiting.popleft(), now)
                left -= width
                continue
            prompt, pairs, chunks, left = prompt + n, pairs + n * job.done + n * (n + 1) // 2, chunks + 1, left - n
            job.done, job.todo = job.done + n, job.todo - n
            if job.todo:
                break
            self._prompting.append(waiting.popleft())
        return prompt, pairs, chunks

    def _join(self, job: Job, now: float) -> None:
        """Let a request whose prompt is computed decode; without further tokens it is answered."""
        hidden, first = self._rules.stream - job.emitted, self._watch.first
        wait = min(job.steps, math.ceil(hidden / job.speed - FUZZ)) if hidden > 0 and job.steps else 0
        unseen = math.isnan(first[job.index])
        if unseen and not wait:
            first[job.index] = now
        if not (self._rules.reserve and job.steps):
            self._held, job.held = self._held - job.held, 0
        if not job.steps:
            self._answered(job, now)
            return
        self._serial += 1
        job.serial, job.since = self._serial, self._step
        self._running[job.serial], self._count = job, None
        heappush(self._ends, (self._step + job.steps, job.serial))
        if unseen and wait:
            heappush(self._seen, (self._step + wait, job.serial))
        self._tokens += job.length
        self._growth += job.speed

    def _leave(self, job: Job) -> None:
        """Take a decoding request out of the sums."""
        self._held, job.held, self._count = self._held - job.held, 0, None
        self._tokens -= job.length + job.speed * (self._step - job.since)
        self._growth -= job.speed
        if not self._running:
            self._tokens = self._growth = 0.0

    def _answered(self, job: Job, now: float) -> None:
        """Let a request go."""
        self.load -= 1
        self._done(job, now)

    def _elapsed(self, steps: int) -> float:
        """Return the seconds of the first `steps` planned steps, an arithmetic series."""
        return steps * self._first + self._slope * (0.5 * steps * (steps - 1))

    def _record(self) -> None:
        """Note the gaps between tokens that the planned steps bring; after a pause the first one reaches back to the last token."""
        first, steps = self._first, self._steps
        if self._paused:
            ended = self._start + first
            self._watch.pauses.extend(Pause(ended - since, 0.0, 1, count) for since, count in self._paused)
            self._paused, first, steps = [], first + self._slope, steps - 1
        if steps:
            self._watch.pauses.append(Pause(first, self._slope, steps, self._active))

    def _leapt(self) -> int:
        """Return how many decode steps are alike: until a request is answered or blocks run out."""
        while self._ends[0][1] not in self._running:
            heappop(self._ends)
        steps = int(min(self._ends[0][0] - self._step, self._leap))
        if self._fits(steps):
            return steps
        most = (self._rules.blocks - self._held) * self._rules.block - self._tokens
        sure = (most - len(self._running) * self._rules.block) / self._growth
        low, high, used = max(1, int(sure)), min(steps, math.ceil(most / self._growth)), self._counter()
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if used(middle) <= self._rules.blocks else (low, middle - 1)
        self.fullest = max(self.fullest, used(low))
        return low

    def _claim(self, job: Job, tokens: int) -> bool:
        """Take the blocks that a request needs for `tokens` more of its prompt, beside the next token of all that decode; whether there are enough."""
        rules = self._rules
        wanted = job.whole - 1 if rules.reserve else job.done + tokens + (job.speed if not job.todo else 0.0)
        more = math.ceil(wanted / rules.block - FUZZ) - job.held
        if more > 0:
            if not self._fits(1, more) and self._counter()(1) + more > rules.blocks:
                return False
            self._held += more
            job.held += more
        return True

    def _fits(self, steps: int, more: int = 0) -> bool:
        """Whether blocks suffice for `steps` decode steps even if every sequence began a block just now; a quick bound."""
        rules = self._rules
        grown = 0.0 if rules.reserve else (self._tokens + self._growth * steps) / rules.block + len(self._running)
        most = self._held + more + grown
        if most <= rules.blocks:
            self.fullest = max(self.fullest, most)
            return True
        return False

    def _counter(self) -> Callable[[int], float]:
        """Return the function that counts the blocks in use after some decode steps, one by one."""
        if self._rules.reserve:
            return lambda _: float(self._held)
        if self._count is None:
            jobs = self._running.values()
            speeds = np.array([j.speed for j in jobs]) / self._rules.block
            lengths = np.array([j.length for j in jobs]) / self._rules.block - FUZZ - speeds * [j.since for j in jobs]
            self._count = (lengths, speeds)
        lengths, speeds = self._count
        return lambda steps: self._held + float(np.ceil(lengths + speeds * (self._step + steps)).sum())

    def _make_room(self) -> bool:
        """Stop the newest requests until the next token of all others finds a block; whether any was stopped."""
        if not self._running or self._fits(1):
            return False
        stopped = False
        while self._counter()(1) > self._rules.blocks:
            stopped = True
            if self.waiting and self.waiting[0].held:
                job = self.waiting[0]
                job.todo, job.done = job.todo + job.done, 0
                self._held, job.held = self._held - job.held, 0
            else:
                job = self._running.popitem()[1]
                self._leave(job)
                self._restart(job)
                self.waiting.appendleft(job)
                if self._paused:
                    since, count = self._paused.pop()
                    self._paused += [(since, count - 1)] * (count > 1)
            self._watch.stopped[job.index] += 1
        return stopped

    def _restart(self, job: Job) -> None:
        """Make a stopped request one whose prompt holds all that it has said."""
        passed = self._step - job.since
        job.emitted += job.speed * passed
        job.todo, job.done = math.ceil(job.length + job.speed * passed + 1.0 - FUZZ), 0
        job.length = float(job.todo)
        job.steps -= passed + 1
