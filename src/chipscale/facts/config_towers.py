"""Vision towers of a config.json: one function per family."""

from __future__ import annotations

from chipscale.facts.config_fields import Config
from chipscale.facts.parameters import merger_parameters, vision_parameters


def qwen_tower(c: Config, d_model: int) -> int:
    """Count the vision tower of Qwen3.5 and its merger."""
    c.fixed("deepstack_visual_indexes", [])
    if c.count("out_hidden_size") != d_model:
        raise c.bad("out_hidden_size", f"the text model is {d_model} wide, make them equal")
    c.even("hidden_size", "num_heads")
    width, patch = c.count("hidden_size"), c.count("in_channels") * c.count("temporal_patch_size") * c.count("patch_size") ** 2
    tower = vision_parameters(layers=c.layers("depth"), width=width, d_ff=c.count("intermediate_size"), patch=patch,
                              positions=c.count("num_position_embeddings"))  # fmt: skip
    merge = c.count("spatial_merge_size") ** 2
    c.refuse_rest()
    return tower - 2 * width + merger_parameters(width=width, merge=merge, d_model=d_model)


def kimi_tower(c: Config, d_model: int) -> int:
    """Count the vision tower of Kimi K2.5 (MoonViT) and its merger; positions in time are fixed, not learned."""
    c.fixed("pos_emb_type", "divided_fixed")
    c.fixed("mm_projector_type", "patchmerger")
    for name in ("_attn_implementation", "merge_type", "projector_hidden_act", "projector_ln_eps", "video_attn_type", "init_pos_emb_time"):
        c.has(name)
    merge, width = c.numbers("merge_kernel_size"), c.count("vt_hidden_size")
    if len(merge) != 2 or 0 in merge:
        raise c.bad("merge_kernel_size", "it must be two whole numbers, correct it")
    for name, same in (("text_hidden_size", d_model), ("mm_hidden_size", width)):
        if c.count(name) != same:
            raise c.bad(name, f"the model that it joins is {same} wide, make them equal")
    c.even("vt_hidden_size", "vt_num_attention_heads")
    positions = c.count("init_pos_emb_height") * c.count("init_pos_emb_width")
    tower = vision_parameters(layers=c.layers("vt_num_hidden_layers"), width=width, d_ff=c.count("vt_intermediate_size"),
                              patch=3 * c.count("patch_size") ** 2, positions=positions)  # fmt: skip
    c.refuse_rest()
    return tower + merger_parameters(width=width, merge=merge[0] * merge[1], d_model=d_model)
