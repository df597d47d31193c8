"""The counted work of a training step stays at what no exact method can leave out."""

import pytest
import torch
import torch.nn.functional as F
from small_clip import make_small_clip

from benchmarks import measure
from benchmarks.counting import counted
from benchmarks.floor import Tokens, tower
from benchmarks.measure import line, loss_of, training_row
from benchmarks.methods import Case, build

# Two layers of ViT-B/16's sizes. The first layer's part of known words, which the floor leaves out, weighs six times
# what it does in twelve layers; the limits are the project's own for twelve all the same.
LIMITS = {"RPO": 1.05, "VPT": 1.05, "CoOp": 1.1, "CoCoOp": 1.1, "MaPLe": 1.1, "SEP": 1.1}
PROMPTS = {"RPO": 24, "VPT": 8, "CoOp": 16, "CoCoOp": 4, "MaPLe": 2, "SEP": 6}


@pytest.mark.parametrize("method", LIMITS)
def test_the_counted_work_is_near_the_floor(method):
    case = Case(method, PROMPTS[method], classes=50, batch=1, layers=2)
    paths = build(case)
    work = counted(loss_of(case, paths, "fast"))
    assert 1 <= work / paths.floor <= LIMITS[method]


def test_the_count_of_a_tiny_step_is_the_one_computed_by_hand():
    x, weight, trained = torch.ones(3, 4), torch.ones(5, 4), torch.ones(2, 5, requires_grad=True)
    by_hand = 2 * 3 * 4 * 5  # frozen: forward alone
    by_hand += 2 * (2 * 3 * 5 * 2)  # forward, and the gradient of `trained`
    assert counted(lambda: F.linear(F.linear(x, weight), trained).sum()) == by_hand

    queries, kv = torch.ones(2, 3, 4, 8, requires_grad=True), torch.ones(2, 3, 7, 8)  # 2 x 3 heads, 4 queries, 7 keys
    product = 2 * 2 * 3 * 4 * 7 * 8
    assert counted(lambda: F.scaled_dot_product_attention(queries, kv, kv).sum()) == (2 + 5) * product

    images, filters = torch.ones(1, 3, 8, 8), torch.ones(6, 3, 4, 4, requires_grad=True)
    assert counted(lambda: F.conv2d(images, filters, stride=4).sum()) == 2 * (2 * (6 * 2 * 2) * (3 * 4 * 4))


def test_the_plain_path_does_more():
    case = Case("CoOp", 16, classes=12, batch=1, layers=2)
    paths = build(case)
    assert counted(loss_of(case, paths, "plain")) > 2 * paths.floor


def test_tokens_that_read_themselves_run_forward_once_if_nothing_is_learned():
    w, layers, n = 8, 3, 5
    own = {"x": Tokens(n, {"x": n * n}, output=1)}
    full = 12 * n * w * w + 2 * n * n * w
    last = 2 * n * w * w + 10 * w * w + 2 * n * w
    assert tower(w, layers, own) == (layers - 1) * full + last
    own["x"].learned = True
    assert tower(w, layers, own) == (layers - 1) * (24 * n * w * w + 6 * n * n * w) + 4 * n * w * w + 20 * w * w + (
        6 * n * w
    )
    own["x"].learned, own["x"].known = False, True
    assert tower(w, layers, own) == 0


def test_a_line_through_two_points():
    assert line((100, 300), [2.0, 6.0], 1000) == pytest.approx(20.0)


def test_a_row_whose_losses_differ_is_wrong(monkeypatch):
    factors = []

    def small(case):
        paths = build(case, make_small_clip(), ["cat", "dog"])
        right = paths.losses["plain"]
        paths.losses["plain"] = lambda images, labels: factors[-1] * right(images, labels)
        return paths

    monkeypatch.setattr(measure, "build", small)
    monkeypatch.setattr(measure, "memory", lambda *_: 1.0)
    monkeypatch.setattr(measure, "reference_images", lambda batch: torch.ones(batch, 3, 24, 24))
    case = Case("CoOp", 4, classes=2, batch=2)
    for factor, told in ((1.0, "equal"), (1 + 2e-4, "WRONG")):
        factors.append(factor)
        assert training_row(case, rounds=1, threads=torch.get_num_threads())["numbers"] == told
