"""Hugging Face config.json, read as plain JSON: one function per family of architectures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chipscale.evidence import EvidenceError
from chipscale.facts.config_blocks import attention, model_of, stack, windowed
from chipscale.facts.config_fields import IRRELEVANT, Config, shown
from chipscale.facts.config_towers import kimi_tower, qwen_tower
from chipscale.facts.model import (
    MLP,
    Attention,
    Block,
    CompressedAttention,
    Experts,
    Feed,
    Indexer,
    LatentAttention,
    LinearAttention,
    Mixer,
    Model,
)


def llama(c: Config) -> Model:
    """Llama: grouped attention over the whole length, gated MLP."""
    bias = c.flag("attention_bias")
    heads = c.count("num_attention_heads")
    dim = None if c.has("head_dim") else c.even("hidden_size", "num_attention_heads")
    full = replace(attention(c, head_dim=dim, kv_heads=heads), qkv_bias=bias, out_bias=bias)
    feed = MLP(d_ff=c.count("intermediate_size"), bias=c.flag("mlp_bias"))
    return model_of(c, stack(c, {"full_attention": full}, lambda _: "full_attention", lambda _: feed))


def mistral(c: Config) -> Model:
    """Mistral: as Llama, with a sliding window where one is stated."""
    dim = None if c.has("head_dim") else c.even("hidden_size", "num_attention_heads")
    feed = MLP(d_ff=c.count("intermediate_size"))
    return model_of(c, windowed(c, attention(c, head_dim=dim), lambda _: feed, usual=True))


def mixtral(c: Config) -> Model:
    """Mixtral: as Mistral, every layer routes to experts."""
    dim = None if c.has("head_dim") else c.even("hidden_size", "num_attention_heads")
    feed = Experts(count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("intermediate_size"))
    return model_of(c, windowed(c, attention(c, head_dim=dim), lambda _: feed, usual=True))


def qwen2(c: Config) -> Model:
    """Qwen2: biases on query, key and value only; a window from layer `max_window_layers` on where it is switched on."""
    dim = None if c.has("head_dim") else c.even("hidden_size", "num_attention_heads")
    feed = MLP(d_ff=c.count("intermediate_size"))
    return model_of(c, windowed(c, replace(attention(c, head_dim=dim), qkv_bias=True), lambda _: feed, usual=False))


def _qwen3_attention(c: Config) -> Attention:
    bias = c.flag("attention_bias")
    return replace(attention(c), qkv_bias=bias, out_bias=bias, qk_norm=True)


def qwen3(c: Config) -> Model:
    """Qwen3: norms on query and key heads, gated MLP."""
    feed = MLP(d_ff=c.count("intermediate_size"))
    return model_of(c, windowed(c, _qwen3_attention(c), lambda _: feed, usual=False))


def _sparse_layers(c: Config, experts: Experts) -> Callable[[int], Feed]:
    """Say which layers route: every `decoder_sparse_step`-th, apart from those listed as dense."""
    step, dense = c.count("decoder_sparse_step", 1), set(c.numbers("mlp_only_layers"))
    if not dense and step == 1:
        c.count("intermediate_size", 1)
        return lambda _: experts
    mlp = MLP(d_ff=c.count("intermediate_size"))
    return lambda i: mlp if i in dense or (i + 1) % step else experts


def qwen3_moe(c: Config) -> Model:
    """Qwen3 MoE: as Qwen3, layers route unless stated otherwise."""
    experts = Experts(count=c.count("num_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("moe_intermediate_size"))
    return model_of(c, windowed(c, _qwen3_attention(c), _sparse_layers(c, experts), usual=False))


def qwen3_hybrid(c: Config) -> Model:
    """Qwen3-Next and Qwen3.5: gated delta-rule layers with a gated full attention in between; an MLP, or experts and a gated shared one."""
    c.fixed("attn_output_gate", True)
    full = replace(_qwen3_attention(c), gated=True)
    linear = LinearAttention(
        key_heads=c.count("linear_num_key_heads"), value_heads=c.count("linear_num_value_heads"), key_dim=c.count("linear_key_head_dim"),
        value_dim=c.count("linear_value_head_dim"), conv_kernel=c.count("linear_conv_kernel_dim"),
    )  # fmt: skip
    if linear.value_heads % linear.key_heads:
        raise c.bad("linear_num_value_heads", f"it does not divide over linear_num_key_heads = {linear.key_heads}, correct one of them")
    every = c.count("full_attention_interval", None if not c.has("layer_types") else 1)
    kinds: dict[str, Mixer] = {"linear_attention": linear, "full_attention": full}
    blocks = stack(c, kinds, lambda i: "linear_attention" if (i + 1) % every else "full_attention", _hybrid_feed(c))
    return model_of(c, blocks, mtp_layers=c.count("mtp_num_hidden_layers", 0, least=0, most=100))


def _hybrid_feed(c: Config) -> Callable[[int], Feed]:
    if not c.has("num_experts") and not c.numbers("mlp_only_layers"):
        mlp = MLP(d_ff=c.count("intermediate_size"))
        return lambda _: mlp
    count, top_k, d_ff = c.count("num_experts"), c.count("num_experts_per_tok"), c.count("moe_intermediate_size")
    return _sparse_layers(c, Experts(count=count, top_k=top_k, d_ff=d_ff, shared_d_ff=c.count("shared_expert_intermediate_size"), shared_gate=True))


def gpt_oss(c: Config) -> Model:
    """gpt-oss: windows and full attention in turn, with sinks and biases; all layers route."""
    bias, top_k = c.flag("attention_bias"), c.count("num_experts_per_tok")
    if c.count("experts_per_token", top_k) != top_k:
        raise c.bad("experts_per_token", f"num_experts_per_tok says {top_k}, make them equal")
    full = replace(attention(c), qkv_bias=bias, out_bias=bias, sinks=True)
    feed = Experts(count=c.count("num_local_experts"), top_k=top_k, d_ff=c.count("intermediate_size"), bias=True, router_bias=True)
    kinds: dict[str, Mixer] = {"full_attention": full, "sliding_attention": replace(full, reach=c.count("sliding_window"))}
    return model_of(c, stack(c, kinds, lambda i: "full_attention" if i % 2 else "sliding_attention", lambda _: feed))


def _latent(c: Config) -> LatentAttention:
    c.fixed("attention_bias", False)
    heads, nope, rope = c.count("num_attention_heads"), c.count("qk_nope_head_dim"), c.count("qk_rope_head_dim")
    if c.count("num_key_value_heads", heads) != heads:
        raise c.bad("num_key_value_heads", f"latent attention has as many as query heads, {heads}, correct it")
    if c.count("qk_head_dim", nope + rope) != nope + rope:
        raise c.bad("qk_head_dim", f"it must be qk_nope_head_dim + qk_rope_head_dim = {nope + rope}, correct it")
    if c.count("head_dim", rope) not in (rope, nope + rope):
        raise c.bad("head_dim", f"of latent attention it must be {rope} (rotary part) or {nope + rope} (all), correct it")
    indexer = None
    if any(c.has(name) for name in ("index_topk", "index_n_heads", "index_head_dim")):
        indexer = Indexer(heads=c.count("index_n_heads"), head_dim=c.count("index_head_dim"), top_k=c.count("index_topk"))
    rank = c.count("q_lora_rank") if c.has("q_lora_rank") or "q_lora_rank" not in c.values else 0
    return LatentAttention(
        heads=heads, q_rank=rank, kv_rank=c.count("kv_lora_rank"), nope_dim=nope, rope_dim=rope,
        v_head_dim=c.count("v_head_dim"), indexer=indexer,
    )  # fmt: skip


def deepseek(c: Config) -> Model:
    """DeepSeek-V2, V3 and their kin (R1, V3.2, Kimi, GLM-5): latent attention, first layers dense, shared experts, perhaps an indexer."""
    c.fixed("moe_layer_freq", 1)
    return _first_dense(c, _latent(c))


def glm4_moe(c: Config) -> Model:
    """GLM-4.5 to 4.7: grouped attention with biases and norms of heads; layers route as DeepSeek-V3's do."""
    return _first_dense(c, replace(attention(c), qkv_bias=c.flag("attention_bias"), qk_norm=c.flag("use_qk_norm")))


def _first_dense(c: Config, mixer: Mixer) -> Model:
    d_ff, count = c.count("moe_intermediate_size"), c.count("n_routed_experts")
    groups, chosen = c.count("n_group"), c.count("topk_group")
    if count % groups or chosen > groups:
        raise c.bad("n_group", f"it must divide n_routed_experts = {count} and be no less than topk_group = {chosen}, correct it")
    method = c.word("topk_method", "noaux_tc")
    if method not in ("noaux_tc", "greedy", "group_limited_greedy"):
        raise c.bad("topk_method", "this routing is not understood, so the config is refused")
    experts = Experts(
        count=count, top_k=c.count("num_experts_per_tok"), d_ff=d_ff, shared_d_ff=d_ff * c.count("n_shared_experts", least=0, most=1000),
        router_bias=method == "noaux_tc", groups=groups, top_groups=chosen,
    )  # fmt: skip
    layers, first = c.layers(), c.count("first_k_dense_replace", least=0)
    if first > layers:
        raise c.bad("first_k_dense_replace", f"there are only {layers} layers, correct it")
    dense = MLP(d_ff=c.count("intermediate_size"))
    blocks = [Block(mixer=mixer, feed=dense if i < first else experts, repeat=1) for i in range(layers)]
    return model_of(c, blocks, mtp_layers=c.count("num_nextn_predict_layers", 0, least=0, most=100))


#: how DeepSeek-V4 compresses by ratio: whether a query chooses its entries by an indexer
COMPRESSED: Mapping[int, bool] = {0: False, 4: True, 128: False}


def _compressed(c: Config) -> Callable[[int], CompressedAttention]:
    """Say what mixer a ratio of compression stands for."""
    c.fixed("attention_bias", False)
    c.fixed("num_key_value_heads", 1)
    plain = CompressedAttention(
        heads=c.count("num_attention_heads"), head_dim=c.count("head_dim"), rope_dim=c.count("qk_rope_head_dim"), q_rank=c.count("q_lora_rank"),
        window=c.count("sliding_window"), out_groups=c.count("o_groups"), out_rank=c.count("o_lora_rank"),
    )  # fmt: skip
    if plain.rope_dim > plain.head_dim:
        raise c.bad("qk_rope_head_dim", f"it is a part of head_dim = {plain.head_dim}, correct it")
    indexer = Indexer(heads=c.count("index_n_heads"), head_dim=c.count("index_head_dim"), top_k=c.count("index_topk"))
    return lambda ratio: replace(plain, ratio=ratio, indexer=indexer if COMPRESSED[ratio] else None)


def _ratios(c: Config, layers: int, mtp: int) -> list[int]:
    """Take the ratios of compression, one a layer, those of multi-token-prediction layers last where stated."""
    if "compress_ratios" not in c.values:
        raise EvidenceError(f"{c.where}: field compress_ratios is missing; a config.json of this architecture states it, add it")
    ratios = c.numbers("compress_ratios")
    if len(ratios) not in (layers, layers + mtp):
        extra = f", or with {mtp} more for num_nextn_predict_layers" if mtp else ""
        raise c.bad("compress_ratios", f"it lists {len(ratios)} layers, num_hidden_layers says {layers}{extra}; make them equal")
    unknown = sorted(set(ratios) - set(COMPRESSED))
    if unknown:
        known = "0 (window only), 4 (sparse) and 128 (heavy)"
        raise EvidenceError(f"{c.where}: field compress_ratios holds {', '.join(map(str, unknown))}; understood are {known}, correct it")
    return ratios


def deepseek_v4(c: Config) -> Model:
    """DeepSeek-V4: window, compressed sparse and heavily compressed attention by layer, hyper-connections; all layers route, the first by token.

    Storage (`expert_dtype`, quantization) and the base of rotations change no shape, nor does the number of Sinkhorn iterations.
    """
    for name in ("expert_dtype", "compress_rope_theta", "hc_eps", "hc_sinkhorn_iters"):
        c.has(name)
    c.fixed("topk_method", "noaux_tc")
    layers, mtp, mixer = c.layers(), c.count("num_nextn_predict_layers", 0, least=0, most=100), _compressed(c)
    ratios, hashed = _ratios(c, layers, mtp), c.count("num_hash_layers", least=0)
    if hashed > layers:
        raise c.bad("num_hash_layers", f"there are only {layers} layers, correct it")
    d_ff, streams = c.count("moe_intermediate_size"), c.count("hc_mult", most=1000)
    learned = Experts(
        count=c.count("n_routed_experts"), top_k=c.count("num_experts_per_tok"), d_ff=d_ff,
        shared_d_ff=d_ff * c.count("n_shared_experts", least=0, most=1000), router_bias=True,
    )  # fmt: skip
    by_token = replace(learned, router_bias=False)
    blocks = [
        Block(mixer=mixer(ratio), feed=by_token if i < hashed else learned, repeat=1, streams=streams) for i, ratio in enumerate(ratios[:layers])
    ]
    return replace(model_of(c, blocks, mtp_layers=mtp), mtp_mixer=mixer(ratios[-1]) if mtp else None)


def minimax_m2(c: Config) -> Model:
    """MiniMax-M2: grouped attention with norms over all heads, all layers route, MTP modules."""
    c.fixed("shared_intermediate_size", 0)
    if set(c.numbers("attn_type_list")) - {1}:
        raise c.bad("attn_type_list", "only full attention (1) is understood, so this config is refused")
    norm, kind = c.flag("use_qk_norm"), c.word("qk_norm_type", "per_layer")
    if kind not in ("per_layer", "per_head"):
        raise c.bad("qk_norm_type", "only 'per_layer' and 'per_head' are understood, so this config is refused")
    mixer = replace(attention(c), qk_norm=norm, wide_norm=norm and kind == "per_layer")
    experts = Experts(
        count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("intermediate_size"),
        router_bias=c.flag("use_routing_bias"),
    )  # fmt: skip
    modules, depth = c.count("num_mtp_modules", 0, least=0, most=100), c.count("mtp_transformer_layers", 1, least=0, most=100)
    blocks = [Block(mixer=mixer, feed=experts, repeat=c.layers())]
    return model_of(c, blocks, mtp_layers=modules * depth if c.flag("use_mtp") else 0)


def llama4(c: Config) -> Model:
    """Llama 4: chunked attention with every fourth layer full; experts each `interleave_moe_layer_step` layers, one shared.

    The norm of query and key has no weights, so `use_qk_norm` changes no count.
    """
    c.flag("use_qk_norm")
    c.fixed("attention_bias", False)
    full, layers = attention(c), c.layers()
    chunked = replace(full, reach=c.count("attention_chunk_size"), chunked=True)
    kinds: dict[str, Mixer] = {"full_attention": full, "chunked_attention": chunked}
    width, step, every = c.count("intermediate_size"), c.count("interleave_moe_layer_step", 1), c.count("no_rope_layer_interval", 4)
    experts = Experts(count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=width, shared_d_ff=width)
    dense, routed = MLP(d_ff=c.count("intermediate_size_mlp")), set(c.numbers("moe_layers")) or set(range(step - 1, layers, step))
    rotary = c.numbers("no_rope_layers") or [int((i + 1) % every != 0) for i in range(layers)]
    if len(rotary) != layers:
        raise c.bad("no_rope_layers", f"it lists {len(rotary)} layers, num_hidden_layers says {layers}, make them equal")
    blocks = stack(c, kinds, lambda i: "chunked_attention" if rotary[i] else "full_attention", lambda i: experts if i in routed else dense)
    return model_of(c, blocks)


def gpt(c: Config) -> Model:
    """GPT-2 and GPT-3: learned positions, layer norms, ungated MLP, biases; the head is tied unless stated otherwise."""
    c.fixed("add_cross_attention", False)
    dim, d, heads = c.even("n_embd", "n_head"), c.count("n_embd"), c.count("n_head")
    mixer = Attention(heads=heads, kv_heads=heads, head_dim=dim, v_head_dim=dim, qkv_bias=True, out_bias=True)
    block = Block(mixer=mixer, feed=MLP(d_ff=c.count("n_inner", 4 * d), gated=False, bias=True), repeat=c.layers("n_layer"))
    positions = c.count("n_positions")
    c.count("n_ctx", positions)
    return Model(
        id="", name="", d_model=d, vocab=c.count("vocab_size"), blocks=(block,), tied=c.flag("tie_word_embeddings", True), norm="layer",
        learned_positions=positions, max_length=positions,
    )  # fmt: skip


ARCHITECTURES: Mapping[str, Callable[[Config], Model]] = {
    "llama": llama, "mistral": mistral, "mixtral": mixtral, "qwen2": qwen2, "qwen3": qwen3, "qwen3_moe": qwen3_moe,
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), qwen3_hybrid),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa"), deepseek),
    "deepseek_v4": deepseek_v4, "glm4_moe": glm4_moe, "gpt_oss": gpt_oss, "minimax_m2": minimax_m2, "llama4_text": llama4, "gpt2": gpt,
}  # fmt: skip
#: architectures whose text model stands in `text_config`, with what counts their vision tower (None: not understood)
WRAPPERS: Mapping[str, Callable[[Config, int], int] | None] = {
    "llama4": None,
    "kimi_k25": kimi_tower,
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), qwen_tower),
}


def _kind(config: Mapping[str, Any], where: str) -> str:
    """Return the architecture's name, or refuse it by name."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        named = f"; architectures says {shown(config['architectures'])}" if config.get("architectures") else ""
        raise EvidenceError(f"{where}: field model_type is {shown(kind)}{named}; state the architecture's name there")
    if kind not in ARCHITECTURES and kind not in WRAPPERS:
        known = ", ".join(sorted({*ARCHITECTURES, *WRAPPERS}))
        raise EvidenceError(f"{where}: architecture {shown(kind)} is not understood; understood: {known}")
    return kind


def _text(config: Mapping[str, Any], where: str) -> Model:
    c = Config(values=config, where=where)
    kind = _kind(config, where)
    if kind in WRAPPERS:
        raise c.bad("model_type", "a wrapper inside a wrapper is not understood, so this config is refused")
    try:
        model = ARCHITECTURES[kind](c)
    except EvidenceError as problem:
        text = str(problem)
        raise problem if text.startswith(where) else EvidenceError(f"{where}: {text}; correct one of them") from problem
    c.refuse_rest()
    return model


def _wrapped(config: Mapping[str, Any], kind: str, where: str) -> Model:
    """Read a model whose text part stands in `text_config`, its vision tower apart."""
    rest = sorted(str(n) for n in set(config) - IRRELEVANT - {"text_config", "vision_config", "tie_word_embeddings"})
    if rest:
        raise EvidenceError(f"{where}: fields not understood: {', '.join(rest)}; remove those that change no shape")
    inner, vision, tower = config.get("text_config"), config.get("vision_config"), WRAPPERS[kind]
    if not isinstance(inner, Mapping):
        raise EvidenceError(f"{where}: field text_config is {shown(inner)}; {kind} keeps its text model there, add it")
    model = _text({"tie_word_embeddings": config.get("tie_word_embeddings", False), **inner}, where)
    if vision is None:
        return replace(model, notes=("the config states no vision tower: none is counted",))
    if tower is None:
        return replace(model, notes=("the vision tower of this architecture is not understood: none is counted",))
    if not isinstance(vision, Mapping):
        raise EvidenceError(f"{where}: field vision_config is {shown(vision)}; it must be an object, correct or remove it")
    return replace(model, vision_parameters=tower(Config(values=vision, where=f"{where}: vision_config"), model.d_model))


def read_config(config: Mapping[str, Any], *, id: str, where: str = "config.json", source: str = "", licence: str = "") -> Model:
    """Read a parsed config.json; what is not understood is refused by name."""
    if not isinstance(config, Mapping):
        raise EvidenceError(f"{where}: holds {shown(config)}, no JSON object; give a Hugging Face config.json")
    kind = _kind(config, where)
    model = _wrapped(config, kind, where) if kind in WRAPPERS else _text(config, where)
    stored, wide = _stored(config)
    return replace(model, id=id, name=id.rpartition("/")[2], source=source, licence=licence, stored=stored, wide_mixers=wide)


def _stored(config: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the number format of the checkpoint's weights below 16 bit, and whether all attention is left at 16 bit."""
    inner = config.get("text_config")
    said = config.get("quantization_config") or (inner.get("quantization_config") if isinstance(inner, Mapping) else None)
    if not isinstance(said, Mapping):
        return "", False
    method = str(said.get("quant_method", ""))
    left = [str(m) for m in said.get("modules_to_not_convert") or ()]
    return method + ("_block" if said.get("weight_block_size") else ""), any(m.endswith("*.self_attn") for m in left)


def read_file(path: Path | str, *, id: str | None = None) -> Model:
    """Read a config.json file."""
    path = Path(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: word)
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(f"{path}: cannot be read ({problem}); give the path of a config.json") from problem
    except (ValueError, RecursionError) as problem:
        raise EvidenceError(f"{path}: malformed JSON ({problem}); save the config.json again as it was published") from problem
    return read_config(config, id=id or path.stem.replace("--", "/"), where=str(path))
