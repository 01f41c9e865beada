"""A config.json being read: fields are taken by name, checked, and the rest is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chipscale.evidence import EvidenceError

ABSURD = 10**9
#: more layers than any published model by a factor of ten; a list of them must fit into memory
MOST_LAYERS = 10_000
#: fields that change no shape: tokens, training, positions, printing, generation, quantised storage
IRRELEVANT = frozenset(
    """architectures model_type auto_map bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id
    forced_bos_token_id forced_eos_token_id image_token_id image_token_index boi_token_index eoi_token_index video_token_id
    vision_start_token_id vision_end_token_id media_placeholder_token_id video_placeholder use_unified_vision_chunk ignore_index
    id2label label2id transformers_version torch_dtype dtype use_cache initializer_range attention_dropout hidden_dropout
    embd_pdrop attn_pdrop resid_pdrop dropout rms_norm_eps layer_norm_eps layer_norm_epsilon rope_theta rope_scaling
    rope_parameters rope_interleave indexer_rope_interleave rotary_dim partial_rotary_factor attn_scale attn_temperature_tuning
    floor_scale for_llm_compressor max_position_embeddings initial_context_length pretraining_tp ep_size router_aux_loss_coef
    router_jitter_noise output_router_logits aux_loss_alpha seq_aux norm_topk_prob routed_scaling_factor scoring_func
    hidden_act hidden_activation swiglu_limit quantization_config quant_method unsloth_fixed _name_or_path bad_words_ids
    begin_suppress_tokens chunk_size_feed_forward diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty finetuning_task is_decoder length_penalty max_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states output_scores prefix problem_type
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate suppress_tokens task_specific_params
    temperature tf_legacy_loss tokenizer_class top_k top_p torchscript typical_p use_bfloat16 mamba_ssm_dtype
    activation_function summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    scale_attn_weights scale_attn_by_inverse_layer_idx reorder_and_upcast_attn""".split()  # noqa: SIM905
)
#: fields that would change shapes, with the only values that leave them as they are
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "cla_share_factor": (1,),
    "mtp_use_dedicated_embeddings": (False,),
}


def shown(value: object) -> str:
    """Print a value of a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(slots=True)
class Config:
    """A config being read: which fields were taken is remembered, so that the rest can be refused by name."""

    values: Mapping[str, Any]
    where: str
    taken: set[str] = field(default_factory=set)

    def bad(self, name: str, remedy: str) -> EvidenceError:
        """Make the error of one field, with its value and the remedy."""
        return EvidenceError(f"{self.where}: field {name} is {shown(self.values.get(name))}; {remedy}")

    def has(self, name: str) -> bool:
        """Say whether a field is there and not null; either way it counts as taken."""
        self.taken.add(name)
        return self.values.get(name) is not None

    def count(self, name: str, default: int | None = None, *, least: int = 1, most: int = ABSURD) -> int:
        """Take a whole number from `least` to `most`; `default` stands in where the field is missing or null."""
        if not self.has(name):
            if default is None:
                raise EvidenceError(f"{self.where}: field {name} is missing; a config.json of this architecture states it, add it")
            return default
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.bad(name, f"it must be a whole number from {least} to {most:,}, correct it")
        return value

    def even(self, width: str, heads: str) -> int:
        """Divide a width evenly over heads."""
        d, h = self.count(width), self.count(heads)
        if d % h:
            raise self.bad(width, f"it does not divide over {heads} = {h}, correct one of them")
        return d // h

    def layers(self, name: str = "num_hidden_layers") -> int:
        """Take the number of layers."""
        return self.count(name, most=MOST_LAYERS)

    def flag(self, name: str, default: bool = False) -> bool:
        """Take a true or false."""
        value = self.values[name] if self.has(name) else default
        if not isinstance(value, bool):
            raise self.bad(name, "it must be true or false, correct it")
        return value

    def word(self, name: str, default: str) -> str:
        """Take a word."""
        value = self.values[name] if self.has(name) else default
        if not isinstance(value, str):
            raise self.bad(name, "it must be a word, correct it")
        return value

    def words(self, name: str) -> list[str]:
        """Take a list of words, one per layer."""
        value = self.values[name] if self.has(name) else []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.bad(name, "it must be a list of words, correct it")
        return value

    def numbers(self, name: str) -> list[int]:
        """Take a list of whole numbers, 0 and more."""
        value = self.values[name] if self.has(name) else []
        if not isinstance(value, list) or not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= ABSURD for v in value):
            raise self.bad(name, "it must be a list of whole numbers, correct it")
        return value

    def fixed(self, name: str, *understood: object) -> None:
        """Take a field that is understood at these values only, or missing."""
        self.taken.add(name)
        if name in self.values and not any(type(self.values[name]) is type(u) and self.values[name] == u for u in understood):
            raise self.bad(name, f"only {' or '.join(map(repr, understood))} is understood, so this config is refused")

    def refuse_rest(self) -> None:
        """Refuse what nobody took: it may change the shape of the model."""
        for name, understood in NEUTRAL.items():
            self.fixed(name, *understood)
        rest = sorted(str(n) for n in set(self.values) - self.taken - IRRELEVANT)
        if rest:
            raise EvidenceError(
                f"{self.where}: fields not understood: {', '.join(rest)}; they may change shapes, so the config is refused; remove those that do not"
            )
