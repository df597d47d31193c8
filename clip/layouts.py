"""Find the tensors of a CLIP in what a file contains, and explain what else it may be."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from basics import UserError

WHAT_WORKS = (
    "Choose another backbone: OpenAI's models; ViT-B-32, ViT-B-16, ViT-L-14, or ViT-H-14 of open_clip, LAION, "
    "DataComp, MetaCLIP, or DFN; or CLIP models of transformers."
)
NESTED = ("state_dict", "model_state_dict", "model")  # where checkpoints keep the tensors of the model
# The image tower's first map, by OpenAI's name and by transformers': what precedes it precedes all names.
FIRST_MAP = ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")
TEXT_TOWER = "text."  # open_clip's name for a text tower in a module of its own
# What belongs to a tower, so that it decides its features. Other tensors are heads, which are not used.
TOWER_PARTS = {
    *("visual", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection", "logit_scale"),
    *("text", "text_model", "vision_model", "visual_projection"),
}
# Parts of names that only other towers have.
OTHER_TOWERS = {
    "visual.trunk.": "an image tower of timm, as SigLIP, EVA02, and BiomedCLIP have",
    "visual.blocks.": "EVA's image tower",
    "vision_model.head.": "SigLIP's towers: no class token, a text tower that is not causal, a sigmoid head",
    "visual.attn_pool.": "an image tower with attention pooling",
    "word_embeddings.": "a text tower of BERT's kind with its own vocabulary",
}


def find_tensors(content: object) -> dict[str, object]:
    """Return the named values of a checkpoint, without the sections around them."""
    while isinstance(content, dict):
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), dict)), None)
        if inner is None:
            return {key: value for key, value in content.items() if isinstance(key, str)}
        content = inner
    return {}


def strip_prefix(state: dict, source: object) -> dict:
    """Remove what precedes all names of a CLIP, such as `module.`; names of other parts stay.

    Raises:
        UserError: there are several CLIPs.
    """
    prefixes = {
        name.removesuffix(first) for name in state for first in FIRST_MAP if name == first or name.endswith(f".{first}")
    }
    if len(prefixes) > 1 and "" not in prefixes:
        raise UserError(
            f"{source}: expected one CLIP, got several, under {', '.join(sorted(prefixes))}. Save one of them alone."
        )
    prefix = "" if "" in prefixes or not prefixes else prefixes.pop()
    outside = {name: value for name, value in state.items() if not name.startswith(prefix)}
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name not in outside}
    if f"{TEXT_TOWER}token_embedding.weight" in inside:
        inside = {name.removeprefix(TEXT_TOWER): value for name, value in inside.items()}
    return outside | inside


def heads(names: Iterable[str]) -> list[str]:
    """List the names that belong to no tower."""
    return sorted(name for name in names if name.partition(".")[0] not in TOWER_PARTS)


def explain_other_towers(names: Collection[str]) -> str:
    """Return what other towers these names belong to, or which tower is missing; empty without a sign of either."""
    found = [what for part, what in OTHER_TOWERS.items() if any(part in name for name in names)]
    if not found:
        image = any(name.startswith("visual.") for name in names)
        text = "token_embedding.weight" in names
        if image != text:
            found = [f"no {'text' if image else 'image'} tower"]
    return " and ".join(found)
