"""Hugging Face config.json, read as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chipscale.evidence import EvidenceError
from chipscale.facts.model import MLP, Attention, Block, Experts, Feed, Indexer, LatentAttention, LinearAttention, Mixer, Model, merged

ABSURD = 10**9
#: fields that change no shape: tokens, training, positions, printing, generation, quantised storage
IRRELEVANT = frozenset(
    ["architectures", "model_type", "auto_map", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "image_token_id", "image_token_index", "boi_token_index", "eoi_token_index", "video_token_id", "vision_start_token_id", "vision_end_token_id", "media_placeholder_token_id", "video_placeholder", "use_unified_vision_chunk", "ignore_index", "id2label", "label2id", "transformers_version", "torch_dtype", "dtype", "use_cache", "initializer_range", "attention_dropout", "hidden_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "dropout", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "rope_scaling", "rope_parameters", "rope_interleave", "indexer_rope_interleave", "rotary_dim", "partial_rotary_factor", "no_rope_layers", "no_rope_layer_interval", "attn_scale", "attn_temperature_tuning", "floor_scale", "for_llm_compressor", "max_position_embeddings", "initial_context_length", "pretraining_tp", "ep_size", "router_aux_loss_coef", "router_jitter_noise", "output_router_logits", "aux_loss_alpha", "seq_aux", "norm_topk_prob", "routed_scaling_factor", "scoring_func", "topk_method", "hidden_act", "hidden_activation", "swiglu_limit", "quantization_config", "quant_method", "unsloth_fixed", "max_window_layers", "_name_or_path", "add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward", "cross_attention_hidden_size", "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task", "is_decoder", "is_encoder_decoder", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions", "output_hidden_states", "output_scores", "prefix", "problem_type", "pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torchscript", "typical_p", "use_bfloat16", "vision_config", "mamba_ssm_dtype", "qk_norm_type", "mtp_use_dedicated_embeddings", "attn_type_list", "cla_share_factor"]
)


@dataclass(slots=True)
class Config:
    """A config being read: which fields were taken is remembered, so that the rest can be refused by name."""

    values: Mapping[str, Any]
    where: str
    taken: set[str] = field(default_factory=set)

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        """Take a whole number of at least `least`."""
        self.taken.add(name)
        value = self.values.get(name, default)
        if value is None and name in self.values and default is not None:
            value = default
        if value is None:
            raise EvidenceError(f"{self.where}: field {name} is missing; a config.json of this architecture states it")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < ABSURD:
            raise EvidenceError(f"{self.where}: field {name} is {value!r}; it must be a whole number from {least} to {ABSURD:,}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Take a true or false."""
        self.taken.add(name)
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise EvidenceError(f"{self.where}: field {name} is {value!r}; it must be true or false")
        return value

    def names(self, name: str) -> list[str]:
        """Take a list of words."""
        self.taken.add(name)
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise EvidenceError(f"{self.where}: field {name} must be a list of words")
        return value

    def fixed(self, name: str, *allowed: object) -> None:
        """Take a field that is understood at these values only."""
        self.taken.add(name)
        value = self.values.get(name, allowed[0])
        if value not in allowed:
            raise EvidenceError(f"{self.where}: field {name} = {value!r} is not understood (understood: {', '.join(map(repr, allowed))})")

    def refuse_rest(self) -> None:
        """Refuse what nobody took: it may change the shape of the model."""
        rest = sorted(set(self.values) - self.taken - IRRELEVANT)
        if rest:
            raise EvidenceError(f"{self.where}: fields not understood: {', '.join(rest)}; nothing is approximated, so this config is refused")


def _grouped(c: Config, **extra: Any) -> Attention:
    heads, d = c.count("num_attention_heads"), c.count("hidden_size")
    dim = c.count("head_dim", max(d // heads, 1))
    return Attention(heads=heads, kv_heads=c.count("num_key_value_heads", heads), head_dim=dim, v_head_dim=dim, **extra)


def _model(c: Config, blocks: list[Block], **extra: Any) -> Model:
    return Model(id="", name="", d_model=c.count("hidden_size"), vocab=c.count("vocab_size"), blocks=merged(blocks), tied=c.flag("tie_word_embeddings"),
                 max_length=int(c.values.get("max_position_embeddings") or 0), **extra)  # fmt: skip


def _window(c: Config) -> int | None:
    c.taken |= {"sliding_window", "use_sliding_window"}
    used = c.values.get("use_sliding_window", True)
    return c.count("sliding_window") if used and c.values.get("sliding_window") is not None else None


def llama(c: Config) -> Model:
    """Llama, Mistral, Qwen2 and Qwen3: grouped attention, gated MLP."""
    kind = c.values["model_type"]
    bias = c.flag("attention_bias") or kind == "qwen2"
    attention = _grouped(c, reach=_window(c), qkv_bias=bias, out_bias=bias and kind == "llama", qk_norm=kind.startswith("qwen3"))
    feed = MLP(d_ff=c.count("intermediate_size"), bias=c.flag("mlp_bias"))
    c.fixed("layer_types", *([["full_attention"] * c.count("num_hidden_layers")]))
    return _model(c, [Block(mixer=attention, feed=feed, repeat=c.count("num_hidden_layers"))])


def mixtral(c: Config) -> Model:
    """Mixtral: every layer routes to experts."""
    feed = Experts(count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("intermediate_size"))
    return _model(c, [Block(mixer=_grouped(c, reach=_window(c)), feed=feed, repeat=c.count("num_hidden_layers"))])


def qwen3_moe(c: Config) -> Model:
    """Qwen3 MoE: every layer routes, unless listed as dense."""
    c.fixed("decoder_sparse_step", 1)
    c.fixed("mlp_only_layers", [])
    c.count("intermediate_size", 1)
    attention = _grouped(c, reach=_window(c), qkv_bias=c.flag("attention_bias"), qk_norm=True)
    feed = Experts(count=c.count("num_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("moe_intermediate_size"))
    return _model(c, [Block(mixer=attention, feed=feed, repeat=c.count("num_hidden_layers"))])


def qwen3_5_moe(c: Config) -> Model:
    """Qwen3.5 MoE: three gated delta-rule layers, then one gated attention; shared expert with a gate."""
    c.fixed("mlp_only_layers", [])
    c.fixed("attn_output_gate", True)
    c.count("full_attention_interval", 4)
    full = _grouped(c, gated=True, qkv_bias=c.flag("attention_bias"), qk_norm=True)
    linear = LinearAttention(key_heads=c.count("linear_num_key_heads"), value_heads=c.count("linear_num_value_heads"), key_dim=c.count("linear_key_head_dim"),
                             value_dim=c.count("linear_value_head_dim"), conv_kernel=c.count("linear_conv_kernel_dim"))  # fmt: skip
    feed = Experts(count=c.count("num_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("moe_intermediate_size"),
                   shared_d_ff=c.count("shared_expert_intermediate_size"), shared_gate=True)  # fmt: skip
    mixers: dict[str, Mixer] = {"full_attention": full, "linear_attention": linear}
    return _model(c, _by_type(c, mixers, lambda _: feed), mtp_layers=c.count("mtp_num_hidden_layers", 0, 0))


def _by_type(c: Config, mixers: Mapping[str, Mixer], feed: Callable[[int], Feed]) -> list[Block]:
    types = c.names("layer_types")
    if len(types) != c.count("num_hidden_layers"):
        raise EvidenceError(f"{c.where}: field layer_types lists {len(types)} layers, num_hidden_layers says {c.count('num_hidden_layers')}")
    unknown = sorted(set(types) - set(mixers))
    if unknown:
        raise EvidenceError(f"{c.where}: field layer_types holds {', '.join(unknown)}, which is not understood")
    return [Block(mixer=mixers[t], feed=feed(i), repeat=1) for i, t in enumerate(types)]


def gpt_oss(c: Config) -> Model:
    """gpt-oss: windows and full attention in turn, with sinks and biases; all layers route."""
    bias = c.flag("attention_bias")
    full = _grouped(c, qkv_bias=bias, out_bias=bias, sinks=True)
    c.count("experts_per_token", 1)
    feed = Experts(count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("intermediate_size"), bias=True, router_bias=True)
    mixers: dict[str, Mixer] = {"full_attention": full, "sliding_attention": replace(full, reach=c.count("sliding_window"))}
    return _model(c, _by_type(c, mixers, lambda _: feed))


def deepseek(c: Config) -> Model:
    """DeepSeek-V3 and its kin (R1, V3.2, Kimi, GLM-5): latent attention, first layers dense, shared experts, perhaps an indexer."""
    c.flag("attention_bias")
    c.count("num_key_value_heads", 1)
    c.count("head_dim", 1)
    c.count("qk_head_dim", 1)
    c.fixed("moe_layer_freq", 1)
    indexer = None
    if "index_topk" in c.values:
        indexer = Indexer(heads=c.count("index_n_heads"), head_dim=c.count("index_head_dim"), top_k=c.count("index_topk"))
    c.taken.add("q_lora_rank")
    rank = c.count("q_lora_rank") if c.values.get("q_lora_rank") is not None else 0
    mixer = LatentAttention(heads=c.count("num_attention_heads"), q_rank=rank, kv_rank=c.count("kv_lora_rank"), nope_dim=c.count("qk_nope_head_dim"),
                            rope_dim=c.count("qk_rope_head_dim"), v_head_dim=c.count("v_head_dim"), indexer=indexer)  # fmt: skip
    d_ff, experts = c.count("moe_intermediate_size"), c.count("n_routed_experts")
    feed = Experts(count=experts, top_k=c.count("num_experts_per_tok"), d_ff=d_ff, shared_d_ff=d_ff * c.count("n_shared_experts", 0, 0), router_bias=True,
                   groups=c.count("n_group", 1), top_groups=c.count("topk_group", 1))  # fmt: skip
    layers, first = c.count("num_hidden_layers"), c.count("first_k_dense_replace", 0, 0)
    if first >= layers:
        raise EvidenceError(f"{c.where}: field first_k_dense_replace is {first}, but there are only {layers} layers")
    dense = MLP(d_ff=c.count("intermediate_size"))
    blocks = [Block(mixer=mixer, feed=dense, repeat=1)] * first + [Block(mixer=mixer, feed=feed, repeat=1)] * (layers - first)
    return _model(c, blocks, mtp_layers=c.count("num_nextn_predict_layers", 0, 0))


def minimax_m2(c: Config) -> Model:
    """MiniMax-M2: grouped attention with whole-width norms, all layers route, three MTP modules."""
    c.flag("use_qk_norm")
    c.fixed("shared_intermediate_size", 0)
    feed = Experts(count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=c.count("intermediate_size"),
                   router_bias=c.flag("use_routing_bias"))  # fmt: skip
    mtp = c.count("num_mtp_modules", 0, 0) * c.count("mtp_transformer_layers", 1) if c.flag("use_mtp") else 0
    return _model(c, [Block(mixer=_grouped(c, qk_norm=True), feed=feed, repeat=c.count("num_hidden_layers"))], mtp_layers=mtp)


def llama4(c: Config) -> Model:
    """Llama 4: chunked attention, every fourth layer full; experts each `interleave_moe_layer_step` layers, one shared."""
    c.flag("use_qk_norm")
    c.fixed("attention_bias", False)
    full = _grouped(c)
    chunk = replace(full, reach=c.count("attention_chunk_size"), chunked=True)
    width, step = c.count("intermediate_size"), c.count("interleave_moe_layer_step")
    feed = Experts(count=c.count("num_local_experts"), top_k=c.count("num_experts_per_tok"), d_ff=width, shared_d_ff=width)
    dense = MLP(d_ff=c.count("intermediate_size_mlp"))
    layers = c.count("num_hidden_layers")
    blocks = [Block(mixer=full if i % 4 == 3 else chunk, feed=feed if i % step == step - 1 else dense, repeat=1) for i in range(layers)]
    return _model(c, blocks)


def gpt(c: Config) -> Model:
    """GPT-2 and GPT-3: learned positions, layer norms, ungated MLP, biases."""
    heads, d = c.count("n_head"), c.count("n_embd")
    if d % heads:
        raise EvidenceError(f"{c.where}: field n_embd = {d} does not divide over n_head = {heads}")
    mixer = Attention(heads=heads, kv_heads=heads, head_dim=d // heads, v_head_dim=d // heads, qkv_bias=True, out_bias=True)
    block = Block(mixer=mixer, feed=MLP(d_ff=c.count("n_inner", 4 * d), gated=False, bias=True), repeat=c.count("n_layer"))
    positions = c.count("n_positions")
    c.count("n_ctx", positions)
    return Model(id="", name="", d_model=d, vocab=c.count("vocab_size"), blocks=(block,), tied=c.flag("tie_word_embeddings", True), norm="layer",
                 learned_positions=positions, max_length=positions)  # fmt: skip


ARCHITECTURES: Mapping[str, Callable[[Config], Model]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), llama),
    **dict.fromkeys(("deepseek_v3", "deepseek_v32", "kimi_k2", "glm_moe_dsa"), deepseek),
    "mixtral": mixtral, "qwen3_moe": qwen3_moe, "qwen3_5_moe_text": qwen3_5_moe, "gpt_oss": gpt_oss, "minimax_m2": minimax_m2,
    "llama4_text": llama4, "gpt2": gpt,
}  # fmt: skip
#: architectures whose text model stands in `text_config`
WRAPPERS = frozenset(("llama4", "kimi_k25", "qwen3_5_moe"))
REFUSED = {"deepseek_v4": "its compressed attention and hyper-connections are not modelled yet"}


def read_config(config: Mapping[str, Any], *, id: str, where: str = "config.json", source: str = "", licence: str = "") -> Model:
    """Read a parsed config.json; what is not understood is refused by name."""
    if not isinstance(config, Mapping):
        raise EvidenceError(f"{where}: holds no JSON object; give a Hugging Face config.json")
    kind = config.get("model_type")
    notes: tuple[str, ...] = ()
    text = config
    if kind in WRAPPERS:
        rest = sorted(set(config) - IRRELEVANT - {"text_config", "tie_word_embeddings"})
        if rest:
            raise EvidenceError(f"{where}: fields not understood: {', '.join(rest)}")
        inner = config.get("text_config")
        if not isinstance(inner, Mapping):
            raise EvidenceError(f"{where}: field text_config is missing; {kind} keeps its text model there")
        text = {"tie_word_embeddings": config.get("tie_word_embeddings", False), **inner}
        kind, notes = inner.get("model_type"), ("the vision tower is not counted",)
    if kind in REFUSED:
        raise EvidenceError(f"{where}: architecture {kind} is refused: {REFUSED[str(kind)]}")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise EvidenceError(f"{where}: architecture {kind!r} is not understood; understood: {', '.join(sorted(ARCHITECTURES))}")
    c = Config(values=text, where=where)
    model = ARCHITECTURES[kind](c)
    c.refuse_rest()
    return replace(model, id=id, name=id.rpartition("/")[2], source=source, licence=licence, notes=notes)


def read_file(path: Path, *, id: str | None = None) -> Model:
    """Read a config.json file."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: word)
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(f"{path}: cannot be read ({problem}); give the path of a config.json") from problem
    except (json.JSONDecodeError, RecursionError) as problem:
        raise EvidenceError(f"{path}: malformed JSON ({problem}); save the config.json again as it was published") from problem
    return read_config(config, id=id or path.stem.replace("--", "/"), where=str(path))
