"""Packed rows of several lengths give the same features as each row alone."""

import pytest
import torch

from clip import ClassWords, Segment
from clip.ragged import unpack

LENGTHS = [2, 2, 3, 5]
PACKING = ((2, 2), (1, 3), (1, 5))


def tokens(seed, *shape):
    return torch.randn(*shape, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def rows():
    return [tokens(i, n) for i, n in enumerate(LENGTHS)]


def ends(at_end):
    """Return the position of the output token of each row: its last one, or its second."""
    first = torch.tensor([0, 2, 4, 7])
    return first + (torch.tensor(LENGTHS) - 1 if at_end else 1)


@pytest.mark.parametrize("batch", [(1,), (4,), (3, 1)], ids=["one start for all", "one per row", "one per image"])
@pytest.mark.parametrize("at_end", [True, False])
def test_packed_rows_equal_rows_that_run_alone(small_clip, rows, batch, at_end):
    start = tokens(9, *batch, 3)
    segments = {
        "start": Segment(start, attends_to=("start",), wanted=False),
        "rest": Segment(torch.cat(rows), attends_to=("start", "rest"), output=ends(at_end), packing=PACKING),
    }
    together = small_clip.transformer(segments)["rest"]
    for i, row in enumerate(rows):
        own = start if batch == (1,) else start[i : i + 1] if batch == (4,) else start[:, 0]
        x = torch.cat([own, row.expand(len(own), -1, -1)], dim=1)
        position = torch.tensor([[3 + (LENGTHS[i] - 1 if at_end else 1)]])
        alone = small_clip.transformer({"x": Segment(x, attends_to=("x",), output=position)})["x"][:, 0]
        torch.testing.assert_close(together[..., i, :], alone if batch == (3, 1) else alone[0], atol=1e-5, rtol=0)


def test_all_tokens_are_returned_without_output_positions(small_clip, rows):
    segments = {"x": Segment(torch.cat(rows), attends_to=("x",), packing=PACKING)}
    together = small_clip.transformer(segments)["x"]
    alone = [small_clip.transformer({"x": Segment(row[None], attends_to=("x",))})["x"][0] for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


def test_packed_rows_unpack_to_views(rows):
    cut = unpack(torch.cat(rows), PACKING)
    assert [tuple(part.shape) for part in cut] == [(2, 2, 16), (1, 3, 16), (1, 5, 16)]
    assert torch.equal(cut[0][1], rows[1]) and torch.equal(cut[2][0], rows[3])


def test_no_other_segment_attends_to_ragged_rows(small_clip, rows):
    packed = Segment(torch.cat(rows), attends_to=("x",), packing=PACKING)
    with pytest.raises(ValueError, match="'x' has ragged rows: no other segment can attend"):
        small_clip.transformer({"x": packed, "y": Segment(tokens(5, 1, 2), attends_to=("x",))})
    padded = Segment(tokens(5, 4, 2), attends_to=("y",), lengths=torch.tensor([1, 2, 1, 2]))
    packed.attends_to = ("y", "x")
    with pytest.raises(ValueError, match="'x' has ragged rows: it cannot attend to 'y'"):
        small_clip.transformer({"x": packed, "y": padded})


def test_class_texts_contain_no_padding(small_clip):
    words = ClassWords(small_clip, ["Boeing 747-400", "cat", "yellow dog", "dog"], 4)
    packed = words.packed()
    assert packed.packing == ((2, 3), (1, 4), (1, words.lengths[0]))  # "cat . [EOS]", "yellow dog . [EOS]"
    start, rest = packed.embed(torch.zeros(1, 4, 16))
    assert start.shape == (1, 5, 16) and rest.shape == (sum(words.lengths), 16)
    assert packed.class_of_row.tolist() == [1, 3, 2, 0] and packed.row_of_class.tolist() == [3, 0, 2, 1]
    some = words.packed(slice(1, 3))
    assert some.packing == ((1, 3), (1, 4)) and some.row_of_class.tolist() == [0, 1]
    torch.testing.assert_close(some.embed(torch.zeros(1, 4, 16))[1][:3], rest[:3])
