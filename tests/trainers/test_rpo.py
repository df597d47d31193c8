"""RPO is read-only: nothing attends to a prompt, so CLIP's features stay bit-identical."""

import plain_clip
import pytest
import torch
from reference import options
from small_clip import SMALL_HEADS

from basics import UserError
from clip import Segment, encode, tokenize
from trainers import rpo

TEXTS = ["a photo of a cat.", "a photo of a Boeing 747-400."]


@pytest.fixture
def images():
    return torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def method(small_clip):
    return rpo.RPOCLIP(small_clip, TEXTS, options(rpo, K=3))


def attached(model, method, images):
    """Attach RPO's prompts to the segments of both towers, to run together, without a KV cache."""
    words, end = model.embed_text(tokenize(TEXTS))
    learner = method.prompt_learner
    text = {
        "words": Segment(words, attends_to=("words",), lengths=end + 1, output=end[:, None]),
        "prompts": Segment(learner.text_prompt[None], attends_to=("words",)),
    }
    image = {
        "image": Segment(model.visual.embed(images), attends_to=("image",), output=torch.zeros(1, 1, dtype=torch.long)),
        "prompts": Segment(model.visual.ln_pre(learner.img_prompt[None]), attends_to=("image",)),
    }
    return text, image


def test_clips_features_are_bit_identical_next_to_prompts(small_clip, method, images):
    text, image = attached(small_clip, method, images)
    with torch.no_grad():
        eos = small_clip.project_text(small_clip.transformer(text)["words"][:, 0])
        cls = small_clip.visual.project(small_clip.visual.transformer(image)["image"][:, 0])
    assert torch.equal(eos, small_clip.encode_text(tokenize(TEXTS)))
    assert torch.equal(cls, small_clip.encode_image(images))


def test_the_kv_cache_gives_the_features_of_a_joint_forward(small_clip, method, images):
    text, image = attached(small_clip, method, images)
    joint = small_clip.project_text(small_clip.transformer(text)["prompts"])
    torch.testing.assert_close(torch.nn.functional.normalize(joint, dim=-1), method.text_features(), atol=1e-6, rtol=0)
    joint = small_clip.visual.project(small_clip.visual.transformer(image)["prompts"])
    joint = torch.nn.functional.normalize(joint, dim=-1)
    torch.testing.assert_close(joint, method.image_features(images), atol=1e-6, rtol=0)


def test_with_the_mask_off_images_attend_to_the_prompts(small_clip, method, images):
    _, image = attached(small_clip, method, images)
    for segment in image.values():
        segment.attends_to = ("image", "prompts")
    with torch.no_grad():
        cls = small_clip.visual.project(small_clip.visual.transformer(image)["image"][:, 0])
    assert not torch.allclose(cls, small_clip.encode_image(images), atol=1e-3)


@pytest.mark.parametrize("prompts", ["both", "text", "image"])
def test_with_the_mask_off_features_are_those_of_plain_attention(small_clip, images, prompts):
    method = rpo.RPOCLIP(small_clip, TEXTS, options(rpo, K=3, MASK=False, PROMPTS=prompts))
    state, learner = small_clip.state_dict(), method.prompt_learner
    if prompts != "text":
        x = plain_clip.embed_image(state, images)
        n = x.shape[1]
        prompt = plain_clip.layer_norm(state, "visual.ln_pre", learner.img_prompt)
        x = torch.cat([x, prompt.expand(len(x), -1, -1)], dim=1)
        x, _ = plain_clip.layers(state, "visual.transformer.", x, SMALL_HEADS[0])
        features = torch.nn.functional.normalize(plain_clip.project_image(state, x[:, n:]), dim=-1)
        torch.testing.assert_close(method.image_features(images), features, atol=1e-5, rtol=0)
    if prompts != "image":
        tokens = tokenize(TEXTS)
        for i, end in enumerate(tokens.argmax(dim=1).tolist()):
            words = state["token_embedding.weight"][tokens[i]] + state["positional_embedding"]
            x = torch.cat([words[: end + 1], learner.text_prompt])[None]
            x, _ = plain_clip.layers(state, "transformer.", x, SMALL_HEADS[1], plain_clip.causal(end + 4))
            features = torch.nn.functional.normalize(plain_clip.project_text(state, x[0, end + 1 :]), dim=-1)
            torch.testing.assert_close(method.text_features()[i], features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prompts", ["text", "image"])
def test_a_side_without_prompts_has_zero_shot_features(small_clip, images, prompts):
    both = rpo.RPOCLIP(small_clip, TEXTS, options(rpo, K=3))
    one = rpo.RPOCLIP(small_clip, TEXTS, options(rpo, K=3, PROMPTS=prompts))
    one.prompt_learner.load_state_dict(both.prompt_learner.state_dict(), strict=False)
    state = small_clip.state_dict()
    image = plain_clip.encode_image(state, images, SMALL_HEADS)[:, None] if prompts == "text" else None
    text = plain_clip.encode_text(state, TEXTS, SMALL_HEADS)[:, None] if prompts == "image" else None
    image = both.image_features(images) if image is None else image
    text = both.text_features() if text is None else text
    pairs = torch.einsum("bid,cjd->bcij", image, text).mean(dim=(2, 3))
    torch.testing.assert_close(one(images), state["logit_scale"].exp() * pairs, atol=1e-4, rtol=0)


def test_noise_and_random_initialization_have_their_spread(small_clip):
    cls = small_clip.visual.class_embedding
    torch.manual_seed(0)
    gaussian = rpo.RPOCLIP(small_clip, TEXTS, options(rpo, K=60, NOISE="gaussian", SIGMA=0.3)).prompt_learner
    assert (gaussian.img_prompt - cls).std().item() == pytest.approx(0.3, rel=0.05)
    random = rpo.RPOCLIP(small_clip, TEXTS, options(rpo, K=60, INIT="random")).prompt_learner
    assert random.img_prompt.std().item() == pytest.approx(0.02, rel=0.05)
    assert random.text_prompt.std().item() == pytest.approx(0.02, rel=0.05)


def layer_states(tower, segments):
    """Return the input tokens of every layer, by segment."""
    states = []

    def record(depth, now):
        states.append({name: s.tokens.detach().clone() for name, s in now.items()})

    tower(segments, before_layer=record)
    return states


@pytest.mark.parametrize("side", ["text", "image"])
def test_no_layer_attends_to_a_prompt(small_clip, method, images, side):
    # If one prompt changes, only its tokens differ, in every layer.
    segments = dict(zip(("text", "image"), attached(small_clip, method, images), strict=True))[side]
    tower = small_clip.transformer if side == "text" else small_clip.visual.transformer
    before = layer_states(tower, segments)
    changed = segments["prompts"].tokens.detach().clone()
    changed[:, 1] += 1.0
    segments["prompts"].tokens = changed
    after = layer_states(tower, segments)
    frozen = next(name for name in segments if name != "prompts")
    assert len(before) == len(tower.resblocks)
    for was, now in zip(before, after, strict=True):
        assert torch.equal(was[frozen], now[frozen])
        assert torch.equal(was["prompts"][:, [0, 2]], now["prompts"][:, [0, 2]])
        assert not torch.equal(was["prompts"][:, 1], now["prompts"][:, 1])


@pytest.mark.parametrize("side", ["text", "image"])
def test_no_layer_of_the_plain_path_attends_to_a_prompt(small_clip, method, images, side):
    state, learner = small_clip.state_dict(), method.prompt_learner

    def states(prompts):
        if side == "text":
            return plain_clip.rpo_text(state, TEXTS, prompts, SMALL_HEADS)[2]
        return plain_clip.rpo_image(state, images, prompts, SMALL_HEADS)[2]

    prompts = (learner.text_prompt if side == "text" else learner.img_prompt).detach()
    changed = prompts.clone()
    changed[1] += 1.0
    ends = tokenize(TEXTS).argmax(dim=1).tolist() if side == "text" else [9, 9]  # [CLS] and 3 x 3 patches before
    for was, now in zip(states(prompts), states(changed), strict=True):
        for row, end in enumerate(ends):
            moved = (was[row] != now[row]).any(dim=-1).nonzero().flatten().tolist()
            assert moved == [end + 2]  # the second prompt


def test_the_fast_path_equals_the_plain_path(small_clip, method, images):
    learner, state = method.prompt_learner, small_clip.state_dict()
    plain = plain_clip.rpo(state, images, TEXTS, learner.text_prompt, learner.img_prompt, SMALL_HEADS)
    torch.testing.assert_close(method(images), plain, atol=1e-5, rtol=0)
    fast_grads = torch.autograd.grad(method(images).square().sum(), list(learner.parameters()))
    plain_grads = torch.autograd.grad(plain.square().sum(), list(learner.parameters()))
    torch.testing.assert_close(fast_grads, plain_grads, atol=1e-4, rtol=1e-3)


def test_prompts_start_near_the_special_tokens(small_clip, method):
    learner = method.prompt_learner
    eos = small_clip.token_embedding.weight[49407]
    torch.testing.assert_close((learner.text_prompt - eos).norm(dim=-1), torch.full((3,), 0.1))
    cls = small_clip.visual.class_embedding
    torch.testing.assert_close((learner.img_prompt - cls).norm(dim=-1), torch.full((3,), 0.1))


def test_k_may_fill_the_context_but_not_exceed_it(make_trainer):
    room = 77 - max(len(encode(f"a photo of a {name}.")) for name in ("yellow lab", "Boeing 747-400")) - 2
    make_trainer("RPO", "TRAINER.RPO.K", room)
    with pytest.raises(UserError, match=f"class 'Boeing 747-400': expected .* at most {room} learned vectors"):
        make_trainer("RPO", "TRAINER.RPO.K", room + 1)


def test_the_number_of_parameters_is_that_of_the_paper(make_trainer):
    trainer = make_trainer("RPO", "TRAINER.RPO.K", 24)
    sizes = trainer.model.clip.config
    learned = sum(p.numel() for p in trainer.model.prompt_learner.parameters())
    assert learned == 24 * (sizes.text_width + sizes.vision_width)  # with a ViT-B/16: 24 * (512 + 768) = 30,720
