"""The demo world: its atlas, its images, their captions."""

import json
import random

import pytest
import torch

from clip import tokenize
from datasets.demo.captions import SHARES, Scene, caption, draw_scene
from datasets.demo.glyphs import INDEX, draw_atlas, load_atlas
from datasets.demo.render import COLORS, EASY, INK, PHOTO, PRETRAINING, SKETCH, Renderer, style, to_bytes


@pytest.fixture(scope="module")
def renderer():
    return Renderer(load_atlas())


def draw(renderer, how, seed=0, n=48):
    generator = torch.Generator().manual_seed(seed)
    glyphs = torch.randint(len(renderer.atlas.masks), (n,), generator=generator)
    colors = torch.randint(len(COLORS), (n,), generator=generator)
    return renderer.render(glyphs, colors, how, generator)


def test_every_mask_of_the_atlas_shows_something_and_has_one_name():
    atlas = load_atlas()
    assert atlas.masks.shape == (1527, 1, 56, 56)
    assert atlas.masks.flatten(1).sum(1).min() > 100
    groups = [ids for part in (atlas.training, atlas.held_out) for names in part.values() for ids in names.values()]
    assert all(groups)
    assert sorted(number for ids in groups for number in ids) == list(range(1527))


def test_redrawing_the_atlas_finds_the_same_glyphs():
    masks, index = draw_atlas()
    assert len(masks) == index["masks"]
    assert index == json.loads(INDEX.read_text())


def test_pretraining_never_shows_a_held_out_font(renderer):
    atlas, rng = renderer.atlas, random.Random(1)
    held_out = {n for names in atlas.held_out.values() for ids in names.values() for n in ids}
    assert not held_out & {draw_scene(atlas, rng).glyph for _ in range(3000)}
    assert not held_out & set(renderer.scraps.tolist())


@pytest.mark.parametrize("how", [PRETRAINING, EASY, *map(style, ("plain", "v2", "sketch", "adversarial", "rendition"))])
def test_images_depend_on_the_generator_alone(renderer, how):
    before = torch.random.get_rng_state()
    pictures, media = draw(renderer, how)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    again, same_media = draw(renderer, how)
    assert pictures.shape == (48, 3, 40, 40)
    assert torch.equal(pictures, again) and torch.equal(media, same_media)
    assert not torch.equal(pictures, draw(renderer, how, seed=1)[0])


def test_images_do_not_depend_on_the_number_of_threads(renderer):
    threads, pictures = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            pictures.append(to_bytes(draw(renderer, style("sketch"))[0]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*pictures)


def test_styles_use_their_declared_media(renderer):
    assert draw(renderer, style("sketch"))[1].unique().tolist() == [SKETCH]
    assert draw(renderer, style("rendition"))[1].unique().tolist() == [PHOTO]
    media = draw(renderer, PRETRAINING, n=1000)[1].bincount(minlength=3) / 1000
    assert media.tolist() == pytest.approx([0.72, 0.08, 0.20], abs=0.04)


def test_a_glyph_stands_out_in_its_color(renderer):
    square = renderer.atlas.training["pictogram"]["square"][0]
    red = torch.full((64,), list(COLORS).index("red"))
    pictures, _ = renderer.render(torch.full((64,), square), red, style(difficulty=0), torch.Generator().manual_seed(0))
    middle = pictures[:, :, 16:24, 16:24].mean((0, 2, 3))
    assert middle[0] > 2 * middle[1:].max()


def test_a_higher_difficulty_shrinks_and_clutters():
    easy, hard = style(difficulty=0), style(difficulty=1)
    assert easy.size > hard.size and easy.clutter < hard.clutter and easy.noise < hard.noise
    with pytest.raises(ValueError, match="difficulty"):
        style(difficulty=1.5)


def test_captions_are_short_and_only_photos_mention_the_color():
    atlas, rng = load_atlas(), random.Random(0)
    texts, hues = [], set(COLORS) - {"black", "white"}  # ink is called black, or black and white
    for medium in (PHOTO, SKETCH, INK):
        captions = [caption(draw_scene(atlas, rng), medium, rng) for _ in range(600)]
        mentioned = sum(any(color in text.split() for color in hues) for text in captions)
        assert (200 < mentioned < 300) if medium == PHOTO else mentioned == 0
        texts += captions
    assert (tokenize(texts).argmax(1) + 1).max() <= 25


def test_captions_name_the_notation_often_but_not_always():
    rng = random.Random(0)
    for notation, name, word, share in (
        ("digit", "one", "digit", 0.7),
        ("roman", "one", "roman numeral", 0.7),
        ("capital", "b", "letter b", 1.0),
        ("lowercase", "b", "small letter b", 0.425),
        ("braille", "b", "braille", 0.85),
    ):
        captions = [caption(Scene(notation, name, glyph=0, color=0), INK, rng) for _ in range(400)]
        assert sum(word in text for text in captions) / 400 == pytest.approx(share, abs=0.1), notation
    assert sum(SHARES.values()) == pytest.approx(1)
