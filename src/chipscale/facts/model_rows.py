"""The model of a measured row: columns in, a model and the assumptions made for blanks out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from chipscale import csvfile
from chipscale.csvfile import Row, name_of
from chipscale.evidence import EvidenceError
from chipscale.facts.model import Attention, Experts, LatentAttention, Model, merged
from chipscale.facts.model_families import (
    SLACK,
    Dimensions,
    by_dimensions,
    gated_by_width,
    gated_width,
    infer_gated,
    loose_miss,
    miss,
    rounding,
    settled_ends,
)
from chipscale.facts.parameters import parameters

#: vocabulary where a row leaves it blank (assumed: the median of the rows that state one)
USUAL_VOCAB = 51200
#: vocabularies in use, tried where the stated count excludes the usual one
VOCABS = (32000, USUAL_VOCAB, 64000, 100352, 128256, 152064, 256000)
#: architectures that need more than a decoder's dimensions
UNMODELLED = re.compile(r"mamba|linear attention|ssm|diffusion|encoder", re.IGNORECASE)


class _Row:
    """A row's numbers by column, with the assumptions made on the way."""

    def __init__(self, row: Row) -> None:
        self.row, self.key, self.assumed = row, name_of(row), list[str]()

    def text(self, column: str) -> str:
        return csvfile.text(self.row, column)

    def number(self, column: str) -> float | None:
        """Return a number from 0 to 1e9, None where the column is blank or not there."""
        return csvfile.number(self.row, column, least=0.0, below=1e9, wanted="a number from 0 to 1e9")

    def whole(self, column: str) -> int | None:
        return csvfile.whole(self.row, column, self.number(column))

    def needed(self, column: str) -> int:
        value = self.whole(column)
        if not value:
            raise EvidenceError(f"{self.key}: column {column} is blank; a model needs it, or name a model of the catalogue")
        return value

    def assume(self, column: str, value: int, why: str) -> int:
        self.assumed.append(f"{column} {value} ({why})")
        return value

    @property
    def stated(self) -> float | None:
        """The stated parameters, None where blank or 0."""
        billions = self.number("n_params_b")
        return billions * 1e9 if billions else None


def slack(stated: float) -> float:
    """Return how far (relative) a count may be off a stated one without contradicting it."""
    return max(rounding(stated / 1e9), SLACK)


def latent_of(text: str, heads: int) -> LatentAttention | None:
    """Read "q_lora=1536;kv_lora=512;qk_nope=128;qk_rope=64;v_head=128" or "q_lora 1536 kv_lora 512 nope 128 rope 64 v 128"."""
    pattern = r"(?<![a-z])(q_lora|kv_lora|nope|rope|v)(?:_head|_rank|_dim)*\s*[ =:]\s*(\d{1,9})(?!\d)"
    found = {name: int(value) for name, value in re.findall(pattern, text.lower())}
    if not found.get("kv_lora"):
        return None
    return LatentAttention(
        heads=heads, q_rank=found.get("q_lora", 0), kv_rank=found["kv_lora"], nope_dim=found.get("nope", 128),
        rope_dim=found.get("rope", 64), v_head_dim=found.get("v", 128),
    )  # fmt: skip


def _latent(r: _Row, d: int, heads: int, experts: int) -> LatentAttention | None:
    """Take the latent attention of the column `mla`; a MoE whose heads would be narrower than 64 has DeepSeek-V2's."""
    text = r.text("mla")
    if text.lower() in ("no", "none", "false", "0"):
        return None
    found = latent_of(text, heads)
    narrow = bool(experts) and not r.whole("d_head") and d < 64 * heads
    if found is None and (text or narrow):
        r.assumed.append("mla as in DeepSeek-V2 (" + ("ranks not stated" if text else "heads too narrow for any other attention") + ")")
        found = LatentAttention(heads=heads, q_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, v_head_dim=128)
    return found


def _experts(r: _Row, n: Dimensions) -> Dimensions:
    """Fill in the experts of a MoE row."""
    top_k = r.whole("n_experts_active") or r.assume("n_experts_active", min(2 if n.experts <= 16 else 8, n.experts), "usual")
    shared, width = r.whole("n_shared_experts"), r.whole("moe_d_ff")
    n = replace(n, top_k=top_k, shared=shared or 0, dense_layers=r.whole("n_dense_layers") or 0, expert_d_ff=width or 0)
    if width:
        return n
    wide = r.needed("d_ff")
    fine = replace(n, expert_d_ff=max(wide // (top_k + 2), 1), shared=2 if shared is None else shared)
    coarse = replace(n, expert_d_ff=wide)
    is_fine = n.experts >= 32 and wide > n.d_model if r.stated is None else miss(fine, r.stated) < miss(coarse, r.stated)
    chosen = fine if is_fine else coarse
    r.assume("moe_d_ff", chosen.expert_d_ff, "fine-grained, together as wide as the dense MLP" if is_fine else "as d_ff")
    if chosen.shared != (shared or 0):
        r.assume("n_shared_experts", chosen.shared, "usual of fine-grained experts")
    return chosen


def _with_kv_heads(r: _Row, n: Dimensions) -> Dimensions:
    """Fill in key-value heads: all heads, or 8 where the stated count allows only that."""
    stated, grouped = r.stated, replace(n, kv_heads=8)
    if stated and n.d_ff and n.heads > 8 and n.heads % 8 == 0:
        off, grouped_off = (loose_miss(option, stated) for option in (n, grouped))
        if off > slack(stated) >= grouped_off:
            r.assume("n_kv_heads", 8, "what the stated parameters leave")
            return grouped
    r.assume("n_kv_heads", n.heads, "all heads")
    return n


def _with_width(r: _Row, n: Dimensions) -> Dimensions:
    """Fill in the MLP's width from the stated count: 8/3 d if that fits, else what is left; 4 d where nothing is stated."""
    d, stated = n.d_model, r.stated
    if n.experts:
        dense = n.expert_d_ff * max(n.top_k + n.shared, 1)
        return replace(n, d_ff=r.assume("d_ff", dense, "as wide as the active experts") if n.dense_layers else dense)
    if stated:
        usual = replace(n, gated=True, d_ff=gated_width(d))
        if miss(usual, stated) <= max(rounding(stated / 1e9), 0.02):
            return replace(usual, d_ff=r.assume("d_ff", usual.d_ff, "8/3 d_model, in keeping with the stated parameters"))
        one, two = (parameters(by_dimensions("a model", replace(usual, d_ff=f))).total for f in (128, 256))
        width = round((stated - one) / (two - one) + 1) * 128
        if 1.5 * d < width < 6 * d:
            return replace(n, d_ff=r.assume("d_ff", width, "what the stated parameters leave for a gated MLP"))
    return replace(n, d_ff=r.assume("d_ff", 4 * d, "4 d_model"))


def _with_vocab(r: _Row, n: Dimensions) -> Dimensions:
    """Fill in the vocabulary: the usual one, unless the stated count excludes it and another one fits."""
    stated, chosen, why = r.stated, USUAL_VOCAB, "usual"
    if stated and n.d_ff and not n.experts:
        gated = gated_by_width(n)
        off = {vocab: miss(replace(n, gated=gated, tied=not gated, vocab=vocab), stated) for vocab in VOCABS}
        nearest = min(off, key=lambda vocab: off[vocab])
        limit = max(rounding(stated / 1e9), 0.02)
        if off[USUAL_VOCAB] > limit >= off[nearest]:
            chosen, why = nearest, "in keeping with the stated parameters"
    return replace(n, vocab=r.assume("vocab", chosen, why))


def _stated_dimensions(r: _Row) -> Dimensions:
    """Read what a row states; blanks are 0, a blank count of key-value heads is all heads."""
    layers, d, heads = r.needed("n_layers"), r.needed("d_model"), r.needed("n_heads")
    experts = r.whole("n_experts") or 0
    if r.text("architecture").lower() == "moe" and experts < 2:
        raise EvidenceError(f"{r.key}: architecture is moe, but column n_experts is blank; state it, or name a model of the catalogue")
    experts = experts if experts > 1 else 0
    window = re.search(r"window (?:of )?(\d{2,7})\b", r.text("notes").replace(",", "").lower())
    return Dimensions(
        layers=layers, d_model=d, heads=heads, kv_heads=r.whole("n_kv_heads") or heads, head_dim=r.whole("d_head") or max(d // heads, 1),
        d_ff=r.whole("d_ff") or 0, vocab=r.whole("vocab") or USUAL_VOCAB, gated=True, experts=experts,
        latent=_latent(r, d, heads, experts), window=int(window.group(1)) if window else None,
    )  # fmt: skip


def _dimensions(r: _Row) -> Dimensions:
    """Read a row's dimensions and fill in its blanks, the surest first."""
    n = _stated_dimensions(r)
    n = _experts(r, n) if n.experts else n
    known, stated_vocab = n.d_ff, r.whole("vocab")
    if not r.whole("n_kv_heads") and not n.latent:
        n = _with_kv_heads(r, n)
    n = n if stated_vocab else _with_vocab(r, n)
    n = n if known else _with_width(r, n)
    told = infer_gated(n, r.stated) if r.stated and known and not n.experts else None
    n = replace(n, gated=gated_by_width(n) if told is None else told)
    return settled_ends(n, r.stated if known and stated_vocab else None, r.whole("seq_len") or 0)


def from_row(row: Row) -> tuple[Model, tuple[str, ...]]:
    """Build the model of a measured row; returns it with the assumptions made for blanks."""
    r = _Row(row)
    if UNMODELLED.search(r.text("architecture")):
        raise EvidenceError(f"{r.key}: architecture {r.text('architecture')[:60]!r} has no model by dimensions; name one of the catalogue")
    try:
        model = by_dimensions(r.text("model") or r.key, _dimensions(r))
    except EvidenceError as problem:
        text = str(problem)
        raise problem if text.startswith("row ") else EvidenceError(f"{r.key}: {text}; correct the row") from problem
    return model, tuple(r.assumed)


def _tokens(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+(?:\.\d+)?", name.lower())


def named_like(name: str, ids: Iterable[str]) -> str | None:
    """Return the one catalogue id that a stated model name means, None where none or several fit.

    >>> named_like("Qwen3 235B-A22B", ["Qwen/Qwen3-235B-A22B", "Qwen/Qwen3-30B-A3B-FP8"])
    'Qwen/Qwen3-235B-A22B'
    >>> named_like("DeepSeekV4 Flash", ["deepseek-ai/DeepSeek-V4-Flash", "deepseek-ai/DeepSeek-V4-Pro"])
    'deepseek-ai/DeepSeek-V4-Flash'
    """
    wanted = _tokens(name)
    if len(wanted) < 3:
        return None
    short = {id: _tokens(id.rpartition("/")[2]) for id in ids}
    same = [id for id, tokens in short.items() if tokens == wanted]
    holds = [id for id, tokens in short.items() if any(tokens[i : i + len(wanted)] == wanted for i in range(len(tokens)))]
    glued = [id for id, tokens in short.items() if _glued(tokens) == _glued(wanted)]
    found = same or holds or glued
    return found[0] if len(found) == 1 else None


def _glued(tokens: list[str]) -> list[str]:
    """Join neighbouring words, so that deepseek v 4 and deepseekv 4 are one."""
    return re.findall(r"[a-z]+|\d+(?:\.\d+)?", re.sub(r"(?<=[a-z]) (?=[a-z])", "", " ".join(tokens)))


def from_catalogue(row: Row, known: Model) -> tuple[Model, tuple[str, ...]] | None:
    """Return the catalogue's model where a row that is named after it leaves a needed dimension blank; None where the row suffices.

    A dimension that the row does state and that differs makes it another model: None too.
    """
    r = _Row(row)
    experts = max((b.feed.count for b in known.blocks if isinstance(b.feed, Experts)), default=0)
    heads = max(getattr(b.mixer, "heads", 0) for b in known.blocks)
    theirs = {"n_layers": known.layers, "d_model": known.d_model, "n_heads": heads, "n_experts": experts}
    needed = [c for c in theirs if c != "n_experts" or experts]
    ours = {column: r.whole(column) for column in needed}
    blank = [column for column in needed if not ours[column]]
    if not blank or any(ours[column] not in (None, 0, theirs[column]) for column in needed):
        return None
    return known, (f"{', '.join(blank)} blank: the catalogue's {known.id}",)


def with_reach(model: Model, known: Model) -> Model:
    """Return a row's model with the reach of attention, layer by layer, of the catalogue model that it is named after.

    A model whose layers, width or heads differ is another one and stays as it is.
    """
    ours, theirs = ([replace(b, repeat=1) for b in m.blocks for _ in range(b.repeat)] for m in (model, known))
    if len(ours) != len(theirs) or model.d_model != known.d_model:
        return model
    layers = []
    for a, b in zip(ours, theirs, strict=True):
        if not (isinstance(a.mixer, Attention) and isinstance(b.mixer, Attention)):
            return model
        if (a.mixer.heads, a.mixer.kv_heads, a.mixer.head_dim) != (b.mixer.heads, b.mixer.kv_heads, b.mixer.head_dim):
            return model
        layers.append(replace(a, mixer=replace(a.mixer, reach=b.mixer.reach, chunked=b.mixer.chunked)))
    return replace(model, blocks=merged(layers))
