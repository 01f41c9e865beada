"""Plans: every deployment of a model on some chips that fits, with what its steps cost, as rows of one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from chipscale.cost.kernels.form import Silicon
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.facts.cluster import Cluster
from chipscale.facts.engine import Engine
from chipscale.facts.model import Experts, Mixer, Model
from chipscale.serving import calibration
from chipscale.serving.constants import Constants, paced
from chipscale.serving.deployment import FORMATS, Deployment, Format, runnable, table
from chipscale.serving.load import Lengths
from chipscale.serving.pace import Pace
from chipscale.serving.parts import RUNNING, TOKENS, Bench, parts
from chipscale.serving.room import GIVEN, Room, room, routed, weight_bytes
from chipscale.serving.rows import cache_width, formats_of
from chipscale.serving.rules import Rules, Speculation

#: most tensor-parallel ranks (kernels of an all-reduce were measured up to so many), ranks of a replica, stages
MOST_TP, MOST_RANKS, MOST_STAGES = 16, 256, 8
#: 8-bit formats of weights that are tried beside 16 bit where none is named; 4-bit ones cost quality and are named by whoever accepts that
FLOATING, WHOLE = ("fp8",), ("int8",)
#: formats of published checkpoints that are served as they are
OWN = ("mxfp4",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be served on what: a model on `chips` chips of a bench, requests of `lengths`, weights in one of `formats` (of dense layers and of experts), `kv` bytes an element
    of the cache (None: as the engine stores it).

    `cached` is the share of each prompt that the prefix cache holds, `given` the share of memory that the engine may use;
    pipelines have at most `stages`.
    """

    bench: Bench
    model: Model
    chips: int
    lengths: Lengths
    formats: tuple[tuple[Format, Format], ...]
    kv: float | None = None
    speculation: Speculation = field(default_factory=Speculation)
    cached: float = 0.0
    given: float = GIVEN
    stages: int = MOST_STAGES

    @property
    def engine(self) -> Engine:
        """The engine that serves."""
        assert self.bench.engine is not None
        return self.bench.engine

    @property
    def cluster(self) -> Cluster:
        """The cluster that the chips stand on."""
        return self.bench.catalog.cluster_for(self.bench.chip)

    @property
    def silicon(self) -> Silicon:
        """The numbers of the chip at 16 bit."""
        return self.bench.silicon("")

    @property
    def seen(self) -> float:
        """The tokens that a sequence under way holds on average."""
        return self.lengths.mean_input + self.lengths.mean_output / 2.0

    @property
    def longest(self) -> int:
        """The tokens of the longest request."""
        return int((self.lengths.input + self.lengths.output) * self.lengths.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Deployments that fit, one a row: how many replicas `chips` chips hold of each, what a chip's memory takes, the pace of a replica and its blocks.

    A replica of `pp` stages counts as that many, each with the chips of one stage: micro-batches follow one another through the stages, so that each step takes as long as all
    stages together and as many steps are under way.
    """

    deployments: tuple[Deployment, ...]
    replicas: np.ndarray
    rooms: tuple[Room, ...]
    pace: Pace
    blocks: np.ndarray

    def __len__(self) -> int:
        return len(self.deployments)

    def take(self, rows: Sequence[int]) -> Fleet:
        """Return some rows."""
        at = list(rows)
        return Fleet(deployments=tuple(self.deployments[i] for i in at), replicas=self.replicas[at], rooms=tuple(self.rooms[i] for i in at),
                     pace=_rows_of(self.pace, at), blocks=self.blocks[at])  # fmt: skip


def usual_formats(model: Model, chip: Chip) -> tuple[tuple[Format, Format], ...]:
    """Return the formats of dense layers and experts that are tried where none is named: 16 bit, the chip's 8-bit ones (floating point before whole numbers), and the checkpoint's own."""
    able = [[f for f in group if chip.has(f"peak_{FORMATS[f].precision}")] for group in (FLOATING, WHOLE)]
    named = ["bf16", *(able[0] or able[1]), *((model.stored,) if model.stored in OWN else ())]
    return tuple(dict.fromkeys(formats_of(n, n, n, model, chip) for n in named))


def deployments(question: Question) -> Iterator[Deployment]:
    """List tp x dp x pp with moe_tp x moe_ep that the model's shapes and the chips allow, in each format.

    Degrees are powers of two; tensor-parallel ranks stand on one node and divide the attention heads. Without experts dp is 1: copies of a model are replicas.
    Experts lie over all ranks of a stage, split by expert, by matrix, or by matrix inside a group and by expert across groups.
    """
    model, chips = question.model, question.chips
    feeds = [b.feed for b in model.blocks if isinstance(b.feed, Experts)]
    heads = math.gcd(*(_heads(b.mixer) for b in model.blocks))
    node = int(question.silicon.link_size)
    for tp in _powers(min(MOST_TP, node, chips)):
        if heads % tp:
            continue
        for dp in _powers(min(chips // tp, MOST_RANKS // tp) if feeds else 1):
            for pp in _powers(min(question.stages, model.layers, chips // (tp * dp))):
                for moe_tp, moe_ep in _splits(feeds, tp, dp):
                    for dense, experts in question.formats:
                        yield Deployment(
                            tp=tp, dp=dp, pp=pp, moe_tp=moe_tp, moe_ep=moe_ep, dense=dense, experts=experts, kv=cached_width(question, dense)
                        )


def cached_width(question: Question, dense: Format) -> float:
    """Return the bytes of a cached element: those stated, or as the engine stores it."""
    return cache_width(question.engine, dense) if question.kv is None else question.kv


def fleet(question: Question, wanted: Sequence[Deployment] | None = None) -> Fleet:
    """Cost every deployment (or those wanted) that fits.

    Errors: none fits, with how much is missing and on how many chips the model would; more chips than the cluster joins.
    """
    question.cluster.seat(question.chips)
    listed = list(deployments(question) if wanted is None else wanted)
    kept = [(d, r) for d in listed if d.chips <= question.chips and (r := _roomy(question, d)) is not None]
    if not kept:
        raise EvidenceError(too_large(question, listed))
    order = sorted(range(len(kept)), key=lambda i: (kept[i][0].dense.id, kept[i][0].experts.id))
    paces: list[Pace] = []
    start = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or (kept[order[i]][0].dense, kept[order[i]][0].experts) != (kept[order[start]][0].dense, kept[order[start]][0].experts):
            paces.append(_pace(question, [kept[j][0] for j in order[start:i]]))
            start = i
    found, rooms = [kept[i][0] for i in order], tuple(kept[i][1] for i in order)
    return Fleet(
        deployments=tuple(found), replicas=np.array([question.chips // d.chips * d.pp for d in found]), rooms=rooms, pace=_joined(paces),
        blocks=np.array([max(r.tokens / d.pp // question.engine.block, 1.0) for d, r in zip(found, rooms, strict=True)]),
    )  # fmt: skip


def rules(question: Question, on: Deployment, blocks: float) -> Rules:
    """Return the scheduling rule of one replica: each of its attention groups has the engine's budget of tokens and sequences; an engine that cuts no prompts takes the longest whole."""
    e = question.engine
    budget = e.tokens if e.chunked else max(e.tokens, int(question.lengths.input * question.lengths.high))
    return Rules(tokens=budget * on.dp, sequences=e.sequences * on.dp, chunked=e.chunked, shared=e.shared, block=e.block, blocks=blocks, reserve=e.reserve,
                 cached=question.cached)  # fmt: skip


def constants(question: Question, on: Deployment) -> Constants:
    """Return the constants of one deployment."""
    return calibration.constants(question.bench.catalog, engine=question.engine, chip=question.bench.chip, model=question.model, deployment=on)


def too_large(question: Question, listed: Sequence[Deployment]) -> str:
    """Say by how much a model does not fit, and on how many chips it would."""
    chip, longest = question.bench.chip, question.longest
    memory = question.given * chip.value("memory_bytes")
    fitting = [d for d in listed if d.chips <= question.chips]
    if not fitting:
        need = min(d.chips for d in listed)
        return f"the deployment stated takes {need} chips and there are {question.chips}; give at least {need} chips with --on CHIP:N"
    least = min(fitting, key=lambda d: weight_bytes(question.model, d))
    weights = weight_bytes(question.model, least)
    if weights < memory:
        room_ = room(question.model, least, chip, seen=question.seen, given=question.given)
        return (f"a request of {longest:,} tokens does not fit on {question.chips} x {chip.id} beside {question.model.name}: the leanest deployment ({title(least)}) has "
                f"room for {room_.tokens / least.dp:,.0f} cached tokens; give more chips, shorter requests or a narrower cache (--kv fp8)")  # fmt: skip
    return (f"{question.model.name} does not fit on {question.chips} x {chip.id}: the leanest deployment ({title(least)}) needs {weights / 1e9:,.0f} GB of weights a chip, "
            f"{(weights - memory) / 1e9:,.0f} GB more than the {memory / 1e9:,.0f} GB usable; {_would_fit(question)}")  # fmt: skip


def _would_fit(question: Question) -> str:
    """Name the fewest chips that hold the model."""
    for chips in _powers(min(question.cluster.size, 2**14)):
        bigger = replace(question, chips=chips)
        if chips > question.chips and any(_roomy(bigger, d) is not None for d in deployments(bigger) if d.chips == chips):
            return f"it would fit on {chips} of them"
    return "no number of them that the cluster joins would hold it; take a narrower --precision or another chip"


def _roomy(question: Question, on: Deployment) -> Room | None:
    """Return the room of a deployment whose weights and longest request fit."""
    chip = question.bench.chip
    if weight_bytes(question.model, on) >= question.given * chip.value("memory_bytes"):
        return None
    found = room(question.model, on, chip, seen=question.seen, given=question.given)
    return found if found.tokens >= on.dp * on.pp * question.longest else None


def _splits(feeds: Sequence[Experts], tp: int, dp: int) -> list[tuple[int, int]]:
    """List how the experts may lie over the ranks of a stage."""
    ranks = tp * dp
    ways = dict.fromkeys((ranks // ep, ep) for ep in (ranks, dp, 1))
    return [(t, e) for t, e in ways if all(f.count % e == 0 and f.d_ff % t == 0 and f.d_ff // t >= 64 for f in feeds)] if feeds else [(1, 1)]


def _heads(mixer: Mixer) -> int:
    return int(getattr(mixer, "heads", 0) or getattr(mixer, "value_heads", 1))


def _powers(most: int) -> list[int]:
    return [2**i for i in range(max(most, 0).bit_length()) if 2**i <= most]


def _pace(question: Question, rows: Sequence[Deployment]) -> Pace:
    """Cost deployments of one format, each stage's sends to the next counted."""
    found = parts(question.bench, question.model, table(rows), question.lengths.mean_input, question.seen)
    each = [constants(question, d) for d in rows]
    k = Constants(**{f.name: np.array([float(getattr(c, f.name)) for c in each]) for f in fields(Constants)})
    return paced(replace(found, links=found.links + _sends(question, rows)), k)


def _sends(question: Question, rows: Sequence[Deployment]) -> np.ndarray:
    """Cost handing activations from stage to stage.

    (pp - 1) (2 T d / (tp B)), B of the links inside a node where a replica stands on one, else between nodes.

    Holds when each rank sends its share of the rows.
    Source: megatron-2021, section 2.2.
    """
    s = question.silicon
    links = [s.link_bandwidth if d.chips <= s.link_size else s.outer_bandwidth for d in rows]
    share = np.array([(d.pp - 1.0) / (d.tp * d.dp * float(b)) for d, b in zip(rows, links, strict=True)])
    return np.asarray(share[:, None] * TOKENS * 2.0 * question.model.d_model)


def _joined(paces: Sequence[Pace]) -> Pace:
    """Put the rows of several paces one below the other."""
    stacked = {
        n: np.concatenate([np.asarray(getattr(p, n)) for p in paces]) for n in ("flow", "settle", "reach", "chunk", "pair", "step", "sequence")
    }
    return Pace(tokens=TOKENS, running=RUNNING, **stacked)


def _rows_of(pace: Pace, rows: Sequence[int]) -> Pace:
    return replace(pace, **{n: np.asarray(getattr(pace, n))[list(rows)] for n in ("flow", "settle", "reach", "chunk", "pair", "step", "sequence")})


def pace_of(found: Fleet, row: int) -> Pace:
    """Return the pace of one row alone."""
    p = found.pace
    chunk, pair, step, sequence = (float(np.asarray(x)[row]) for x in (p.chunk, p.pair, p.step, p.sequence))
    return replace(p, flow=p.flow[row], settle=p.settle[row], reach=p.reach[row], chunk=chunk, pair=pair, step=step, sequence=sequence)


def title(on: Deployment) -> str:
    """Write a deployment as --plan reads it.

    >>> title(Deployment(tp=8, dp=4, moe_ep=32, dense=FORMATS["fp8"], experts=FORMATS["fp8"]))
    'tp8 dp4 ep32 fp8'
    """
    degrees = [
        ("tp", on.tp, True),
        ("dp", on.dp, on.dp > 1),
        ("pp", on.pp, on.pp > 1),
        ("ep", on.moe_ep, on.moe_ep > 1),
        ("etp", on.moe_tp, on.moe_tp > 1),
    ]
    form = on.dense.id if on.dense == on.experts else f"{on.dense.id}/{on.experts.id}"
    return " ".join([*(f"{name}{n}" for name, n, shown in degrees if shown), form])


def parse(text: str, question: Question) -> list[Deployment]:
    """Read "tp8 dp4 pp1 ep32 etp1 fp8" (a degree left out is 1, experts are split by matrix where neither ep nor etp is stated, a format left out is each of the question's).

    Errors: a word that is no degree and no format, degrees that the model's shapes or the chips do not allow.
    """
    degrees = {"tp": 1, "dp": 1, "pp": 1, "ep": 1, "etp": 1}
    formats = []
    for word in text.replace(",", " ").replace("=", "").lower().split():
        name, digits = word.rstrip("0123456789"), word[len(word.rstrip("0123456789")) :]
        if word.partition("/")[0] in FORMATS and word.rpartition("/")[2] in FORMATS:
            formats.append(tuple(runnable(FORMATS[w], question.bench.chip) for w in (word.partition("/")[0], word.rpartition("/")[2])))
        elif name in degrees and digits and 1 <= int(digits[:9]) <= MOST_RANKS:
            degrees[name] = int(digits)
        else:
            raise EvidenceError(
                f"--plan {text}: {word!r} is no degree and no format; write as in --plan 'tp8 dp4 ep32 fp8' (degrees tp, dp, pp, ep, etp; formats {', '.join(FORMATS)})"
            )
    if routed(question.model) and degrees["ep"] * degrees["etp"] == 1:
        degrees["etp"] = degrees["tp"] * degrees["dp"]
    _allowed(text, degrees, question)
    return [Deployment(tp=degrees["tp"], dp=degrees["dp"], pp=degrees["pp"], moe_tp=degrees["etp"], moe_ep=degrees["ep"], dense=dense, experts=experts,
                       kv=cached_width(question, dense)) for dense, experts in (formats or question.formats)]  # fmt: skip


def _allowed(text: str, degrees: dict[str, int], question: Question) -> None:
    """Refuse degrees that cannot be."""
    feeds = [b.feed for b in question.model.blocks if isinstance(b.feed, Experts)]
    heads, node = math.gcd(*(_heads(b.mixer) for b in question.model.blocks)), int(question.silicon.link_size)
    ranks, size = degrees["tp"] * degrees["dp"], degrees["ep"] * degrees["etp"]
    problems = (
        (heads % degrees["tp"], f"tp{degrees['tp']} does not divide {heads} attention heads"),
        (degrees["tp"] > min(node, MOST_TP), f"tp{degrees['tp']} is more than the {min(node, MOST_TP)} ranks that sum on one node"),
        (not feeds and degrees["dp"] > 1, f"dp{degrees['dp']}: {question.model.id} has no experts; its copies are replicas, leave dp out"),
        (not feeds and size > 1, f"ep and etp: {question.model.id} has no experts, leave them out"),
        (feeds and size != ranks, f"ep x etp = {size}, but the experts lie over the tp x dp = {ranks} ranks of a stage"),
        (any(f.count % degrees["ep"] for f in feeds), f"ep{degrees['ep']} does not divide {feeds[0].count if feeds else 0} experts"),
        (any(f.d_ff % degrees["etp"] for f in feeds), f"etp{degrees['etp']} does not divide the experts' width"),
        (degrees["pp"] > question.model.layers, f"pp{degrees['pp']} is more than {question.model.layers} layers"),
    )
    for bad, why in problems:
        if bad:
            raise EvidenceError(f"--plan {text}: {why}; choose another degree")
