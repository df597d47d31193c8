"""SEP's ablations: prompts on one side, no prototypes, other representative tokens."""

import pytest
import torch
from small_clip import make_small_clip
from yacs.config import CfgNode

from trainers import sep
from trainers.tokens import SELECTIONS, select_tokens

NAMES = ["cat", "sea horse"]


def model(**changes):
    cfg = CfgNode({"TRAINER": {}})
    sep.extend_cfg(cfg)
    changes = {"N_CTX": 2, "N_CTX_V": 2, "LAYERS": [1]} | changes
    cfg.TRAINER.SEP.merge_from_list([word for pair in changes.items() for word in pair])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return sep.SEPCLIP(make_small_clip(), NAMES, [f"a photo of a {name}." for name in NAMES], cfg.TRAINER.SEP)


@pytest.fixture
def images():
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def test_the_side_without_prompts_is_zero_shot_clip_and_the_other_unchanged(images):
    both, text, image = (model(PROMPTS=side, CTX_INIT="a photo") for side in ("both", "text", "image"))
    frozen, i = both.both_image_features(images)
    torch.testing.assert_close(text.image_features(images), frozen)
    assert torch.equal(image.text_features(), both.features)
    names = {name.partition(".")[0] for name, _ in text.prompt_learner.named_parameters()}
    assert names == {"ctx", "prompt_projections", "VPT_fc"}
    names = {name.partition(".")[0] for name, _ in image.prompt_learner.named_parameters()}
    assert names == {"ctx_visual", "visual_prompts", "VPT_fc"}
    for one_sided in (text, image):
        own = one_sided.prompt_learner.state_dict()
        one_sided.prompt_learner.load_state_dict({key: both.prompt_learner.state_dict()[key] for key in own})
    torch.testing.assert_close(text.text_features(), both.text_features())
    torch.testing.assert_close(image.image_features(images), i)


@pytest.mark.parametrize("across", [False, True])
def test_representative_tokens_are_those_of_highest_or_lowest_energy_or_the_first(across):
    tokens = torch.tensor([[1.0, 4.0, 2.0, 3.0], [4.0, 3.0, 5.0, 0.0]])[..., None]
    picked = {by: select_tokens(tokens, 2, by, same_places=across)[..., 0].tolist() for by in SELECTIONS}
    if across:  # mean energies 8.5, 12.5, 14.5, 4.5
        assert picked == {"highest": [[2, 4], [5, 3]], "lowest": [[3, 1], [0, 4]], "first": [[1, 4], [4, 3]]}
    else:
        assert picked == {"highest": [[4, 3], [5, 4]], "lowest": [[1, 2], [0, 3]], "first": [[1, 4], [4, 3]]}


@pytest.mark.parametrize("side", ["text", "image"])
def test_one_side_is_trained_and_a_prototype_weight_of_0_trains_no_prototypes(make_trainer, side):
    opts = ["TRAINER.SEP.LAYERS", [1], "TRAINER.SEP.PROMPTS", side, "TRAINER.SEP.W_P", 0.0, "OPTIM.MAX_EPOCH", 1]
    trainer = make_trainer("SEP", *opts)
    before = {name: value.clone() for name, value in trainer.model.prompt_learner.state_dict().items()}
    images = torch.randn(5, 3, 24, 24)
    loss, _ = trainer.loss(images, torch.arange(5))
    loss.backward()
    gradients = {name: value.grad for name, value in trainer.model.prompt_learner.named_parameters()}
    assert gradients.keys() == before.keys()
    assert all(value.abs().sum() > 0 for name, value in gradients.items() if name.startswith("ctx"))
    assert not gradients["VPT_fc.weight"].any() and trainer.loss_parts["prototypes"] == 0
