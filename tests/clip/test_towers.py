"""The towers give the features of the plain path, and attention follows the segments."""

import plain_clip
import pytest
import torch
import torch.nn.functional as F
from small_clip import SMALL_HEADS, make_small_clip

from basics import UserError
from clip import Segment, tokenize

TEXTS = ["a photo of a cat.", "dog", "a long text about an abandoned factory by the sea, seen from a Boeing 747-400"]


@pytest.fixture
def images():
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def image_segments(small_clip, images):
    """Return [CLS, patches] that attend to each other, and four prompts that attend to them only."""
    prompts = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(2))
    return {
        "image": Segment(small_clip.visual.embed(images), attends_to=("image",)),
        "prompts": Segment(prompts, attends_to=("image",)),
    }


def test_features_equal_the_plain_path(small_clip, images):
    state = small_clip.state_dict()
    text = F.normalize(small_clip.encode_text(tokenize(TEXTS)), dim=-1)
    torch.testing.assert_close(text, plain_clip.encode_text(state, TEXTS, SMALL_HEADS), atol=1e-5, rtol=0)
    image = F.normalize(small_clip.encode_image(images), dim=-1)
    torch.testing.assert_close(image, plain_clip.encode_image(state, images, SMALL_HEADS), atol=1e-5, rtol=0)
    logits, _ = small_clip(images, tokenize(TEXTS))
    torch.testing.assert_close(logits, plain_clip.zero_shot(state, images, TEXTS, SMALL_HEADS), atol=1e-4, rtol=0)


def test_a_text_does_not_depend_on_the_other_texts(small_clip):
    together = small_clip.encode_text(tokenize(TEXTS))
    alone = torch.cat([small_clip.encode_text(tokenize(t)) for t in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_read_only_prompts_leave_the_other_tokens_unchanged(small_clip, image_segments):
    tower = small_clip.visual.transformer
    alone = tower({"image": image_segments["image"]})["image"]
    together = tower(image_segments)["image"]
    assert torch.equal(alone, together)


def test_prompts_that_are_attended_to_change_the_other_tokens(small_clip, image_segments):
    tower = small_clip.visual.transformer
    alone = tower({"image": image_segments["image"]})["image"]
    image_segments["image"].attends_to = ("image", "prompts")
    assert not torch.allclose(alone, tower(image_segments)["image"], atol=1e-3)


def test_attending_to_a_cache_equals_attending_to_the_segments(small_clip, image_segments):
    tower = small_clip.visual.transformer
    live = tower(image_segments)["prompts"]
    cache = tower.prefill({"image": image_segments["image"]})
    cached = tower({"prompts": image_segments["prompts"]}, cache=cache)["prompts"]
    assert live.shape == (3, 4, 32)
    torch.testing.assert_close(cached, live, atol=1e-6, rtol=0)


def test_a_cache_holds_no_autograd_graph(small_clip, image_segments):
    image_segments["image"].tokens.requires_grad_()
    cache = small_clip.visual.transformer.prefill({"image": image_segments["image"]})
    assert len(cache.layers) == 3
    assert not any(x.requires_grad for layer in cache.layers for kv in layer.values() for x in kv)


def test_no_token_attends_to_padding(small_clip):
    words, end = small_clip.embed_text(tokenize(TEXTS))
    prompts = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(3))

    def output(words):
        cache = small_clip.transformer.prefill({"words": Segment(words, attends_to=("words",), lengths=end + 1)})
        return small_clip.transformer({"prompts": Segment(prompts, attends_to=("words",))}, cache=cache)["prompts"]

    other = words.clone()
    for row, e in zip(other, end, strict=True):
        row[e + 1 :] = 100.0
    assert torch.equal(output(words), output(other))
    other[1, end[1]] += 1.0
    assert not torch.equal(output(words)[1], output(other)[1])


def test_a_start_shared_by_all_classes_equals_one_per_class(small_clip):
    generator = torch.Generator().manual_seed(4)
    start = torch.randn(1, 3, 16, generator=generator)
    rest, end = torch.randn(5, 4, 16, generator=generator), torch.tensor([[3], [1], [2], [0], [3]])
    shared = small_clip.transformer(
        {
            "start": Segment(start, attends_to=("start",), wanted=False),
            "rest": Segment(rest, attends_to=("start", "rest"), output=end),
        }
    )["rest"]
    whole = torch.cat([start.expand(5, -1, -1), rest], dim=1)
    own = small_clip.transformer({"x": Segment(whole, attends_to=("x",), output=end + 3)})["x"]
    torch.testing.assert_close(shared, own, atol=1e-5, rtol=0)


def test_output_positions_select_from_the_whole_output(small_clip, image_segments):
    whole = small_clip.visual.transformer(image_segments)["image"]
    image_segments["image"].output = torch.tensor([[0, 5]])
    some = small_clip.visual.transformer(image_segments)["image"]
    torch.testing.assert_close(some, whole[:, [0, 5]], atol=1e-5, rtol=0)


def test_the_segments_of_the_caller_stay_unchanged(small_clip, image_segments):
    before = image_segments["image"].tokens.clone()
    small_clip.visual.transformer(image_segments)
    assert torch.equal(image_segments["image"].tokens, before)


def test_tokens_can_be_replaced_before_each_layer(small_clip, image_segments):
    seen = []

    def replace(depth, segments):
        seen.append(depth)
        segments["prompts"].tokens = torch.zeros_like(segments["prompts"].tokens)

    plain = small_clip.visual.transformer(image_segments)["prompts"]
    replaced = small_clip.visual.transformer(image_segments, before_layer=replace)["prompts"]
    assert seen == [0, 1, 2]
    assert not torch.allclose(plain, replaced, atol=1e-3)


def test_attending_to_an_unknown_segment_is_refused(small_clip, image_segments):
    image_segments["prompts"].attends_to = ("patches",)
    with pytest.raises(ValueError, match=r"attends_to: expected names in \['image', 'prompts'\], got \['patches'\]"):
        small_clip.visual.transformer(image_segments)


def test_an_image_of_another_size_is_refused(small_clip):
    with pytest.raises(UserError, match="expected 24 x 24 pixels.*, got 32 x 32"):
        small_clip.encode_image(torch.zeros(1, 3, 32, 32))


def test_half_precision_towers_stay_near_float32(images):
    model = make_small_clip()
    exact = F.normalize(model.encode_image(images), dim=-1)
    half = F.normalize(model.bfloat16().encode_image(images).float(), dim=-1)
    assert model.dtype == torch.bfloat16
    torch.testing.assert_close(half, exact, atol=0.05, rtol=0)
