"""The counted work of a training step stays near the work that no exact method can avoid."""

import pytest
import torch
import torch.nn.functional as F
from small_clip import make_small_clip

from benchmarks import measure
from benchmarks.floor import Tokens, tower
from benchmarks.measure import line, loss_of, training_row
from benchmarks.methods import FURTHER, Case, build
from clip import linear
from clip.counting import WorkCounter, counted

# Two layers of ViT-B/16's sizes. The first layer's constant words, which the floor omits, weigh six times as much as in
# twelve layers, but the limits are the project's own for twelve.
LIMITS = {"RPO": 1.05, "VPT": 1.05, "CoOp": 1.1, "CoCoOp": 1.1, "MaPLe": 1.1, "SEP": 1.1}
# The floor omits CLIP-LoRA's first layer, and the constant part of MMA's first layer with adapters.
LIMITS |= dict.fromkeys(("KgCoOp", "ProGrad", "LASP", "DePT", "TCP", "PromptSRC", "PLOTPP", "MMRL"), 1.1)
LIMITS |= {"MMA": 1.25, "CLIPLoRA": 1.9}
PROMPTS = {"RPO": 24, "VPT": 8, "CoOp": 16, "CoCoOp": 4, "MaPLe": 2, "SEP": 6} | FURTHER


LIKE_OTHERS = ("KgCoOp", "ProGrad", "DePT", "LASP", "PromptSRC")  # whose floor is mostly that of CoOp or MaPLe


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.slow] if name in LIKE_OTHERS else []) for name in LIMITS]
)
def test_the_counted_work_is_near_the_floor(method):
    case = Case(method, PROMPTS[method], classes=50, batch=1, layers=2)
    paths = build(case)
    work = counted(loss_of(case, paths, "fast"))
    assert 1 <= work / paths.floor <= LIMITS[method]


def count_of_attention(queries, kv):
    """Count scaled dot-product attention and its gradients."""
    return counted(lambda: F.scaled_dot_product_attention(queries, kv, kv).sum())


def test_products_are_counted_as_computed_by_hand():
    x, weight, trained = torch.ones(3, 4), torch.ones(5, 4), torch.ones(2, 5, requires_grad=True)
    by_hand = 2 * 3 * 4 * 5  # frozen: forward only
    by_hand += 2 * (2 * 3 * 5 * 2)  # forward, and the gradient of `trained`
    assert counted(lambda: F.linear(F.linear(x, weight), trained).sum()) == by_hand

    queries, kv = torch.ones(2, 3, 4, 8, requires_grad=True), torch.ones(2, 3, 7, 8)  # 2 x 3 heads, 4 queries, 7 keys
    assert count_of_attention(queries, kv) == (2 + 5) * (2 * 2 * 3 * 4 * 7 * 8)

    images, filters = torch.ones(1, 3, 8, 8), torch.ones(6, 3, 4, 4, requires_grad=True)
    assert counted(lambda: F.conv2d(images, filters, stride=4).sum()) == 2 * (2 * (6 * 2 * 2) * (3 * 4 * 4))

    rows = torch.ones(2, 8, requires_grad=True)
    assert counted(lambda: torch.einsum("bd,bcd->bc", rows, torch.ones(2, 5, 8)).sum()) == 2 * (2 * (2 * 5 * 8))


@pytest.mark.parametrize("trained", [(), (0,), (1,), (0, 1, 2)])
def test_torchs_multi_head_attention_counts_as_its_parts(trained):
    n, batch, width, heads = 5, 3, 8, 2
    weight, out_weight = torch.randn(3 * width, width), torch.randn(width, width)
    x = torch.randn(n, batch, width)
    for i in trained:
        (x, weight, out_weight)[i].requires_grad_()
    extra = torch.zeros((), requires_grad=True)  # so that there is a gradient when everything is frozen

    def whole():
        out, _ = F.multi_head_attention_forward(
            x, x, x, width, heads, weight, torch.zeros(3 * width), None, None, False, 0.0, out_weight,
            torch.zeros(width), need_weights=False,
        )  # fmt: skip
        return out.sum() + extra

    def parts():
        q, k, v = (p.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for p in F.linear(x, weight).split(width, -1))
        attended = F.scaled_dot_product_attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
        return F.linear(attended, out_weight).sum() + extra

    torch.testing.assert_close(whole(), parts())
    assert counted(whole) == counted(parts) > 0


def test_a_product_without_a_rule_is_refused():
    x = torch.ones(2, 3, 3, requires_grad=True)
    with pytest.raises(NotImplementedError, match="bmm: expected a product with a rule"):
        counted(lambda: torch.bmm(x, x).sum())


@pytest.mark.parametrize("library", linear.LIBRARIES)
def test_the_count_does_not_depend_on_the_library(library, monkeypatch):
    monkeypatch.setattr(linear, "_library", "torch")  # undone after the test
    frozen = linear.Linear(4, 5).requires_grad_(False)
    x = torch.ones(3, 4, requires_grad=True)
    used = linear.use(library)
    assert counted(lambda: frozen(x).sum()) == 2 * (2 * 3 * 4 * 5)
    assert linear.in_use() == used


def test_the_plain_path_counts_at_least_twice_the_floor():
    case = Case("CoOp", 16, classes=12, batch=1, layers=2)
    paths = build(case)
    assert counted(loss_of(case, paths, "plain")) > 2 * paths.floor


@pytest.mark.parametrize("method", ["VPT", "SEP", "LP", "ZeroshotCLIP"])
def test_a_plain_step_does_not_encode_fixed_texts(method):
    def count(classes):
        case = Case(method, {**PROMPTS, "LP": 0, "ZeroshotCLIP": 0}[method], classes, batch=1, layers=2)
        images, paths = torch.ones(1, 3, 224, 224), build(case)
        with torch.no_grad(), WorkCounter() as counter:
            paths.plain(images)
        return counter.total

    w, n, layers = 512, 77, 2
    one_text = layers * (2 * 12 * n * w * w + 2 * 2 * n * n * w) + 2 * w * w
    texts = (count(12) - count(2)) / 10 / one_text
    # SEP encodes its trained prompts, with the fusion; the others only compare.
    assert 1 < texts < 1.2 if method == "SEP" else texts < 0.001


def test_the_floor_of_a_tower_is_the_one_computed_by_hand():
    w, layers, n = 8, 3, 5
    own = {"x": Tokens(n, {"x": n * n}, output=1)}
    full = 12 * n * w * w + 2 * n * n * w
    last = 2 * n * w * w + 10 * w * w + 2 * n * w
    assert tower(w, layers, own) == (layers - 1) * full + last
    own["x"].learned = True
    assert tower(w, layers, own) == (layers - 1) * (24 * n * w * w + 6 * n * n * w) + 4 * n * w * w + 20 * w * w + (
        6 * n * w
    )
    own["x"].learned, own["x"].constant = False, True
    assert tower(w, layers, own) == 0


def test_a_line_passes_through_two_points():
    assert line((100, 300), [2.0, 6.0], 1000) == pytest.approx(20.0)


@pytest.fixture
def small_rows(monkeypatch):
    """Make up rows of a small CLIP with memory and peak. Returns a function that changes both paths' losses."""

    def change(plain=lambda value: value, fast=lambda value: value):
        def small(case):
            paths = build(case, make_small_clip(), ["cat", "dog"])
            for name, edit in (("plain", plain), ("fast", fast)):
                right = paths.losses[name]
                paths.losses[name] = lambda *batch, edit=edit, right=right: edit(right(*batch))
            return paths

        monkeypatch.setattr(measure, "build", small)

    monkeypatch.setattr(linear, "_library", "torch")  # undone after the test
    monkeypatch.setattr(measure, "memory", lambda *_: 1.0)
    monkeypatch.setattr(measure, "peak_flops", lambda: 1e9)
    monkeypatch.setattr(measure, "reference_images", lambda batch: torch.ones(batch, 3, 24, 24))
    return change


@pytest.mark.parametrize("factor, verdict", [(1.0, "equal"), (1 + 2e-4, "WRONG")])
def test_a_row_whose_losses_differ_is_wrong(small_rows, factor, verdict):
    small_rows(plain=lambda value: factor * value)
    row = training_row(Case("CoOp", 4, classes=2, batch=2), rounds=1, threads=torch.get_num_threads())
    assert row["numbers"] == verdict


@pytest.mark.skipif(not linear.available(), reason="need the oneDNN operator (a torch release that has it)")
@pytest.mark.parametrize("wrong, verdict", [(None, "equal"), ("torch", "WRONG"), ("onednn", "WRONG")])
def test_a_row_compares_the_losses_of_both_libraries(small_rows, monkeypatch, wrong, verdict):
    used = set()

    def fast(value):
        used.add(linear.in_use())
        return 1.01 * value if linear.in_use() == wrong else value

    small_rows(fast=fast)
    monkeypatch.setattr(linear, "faster", lambda towers: "onednn")
    row = training_row(Case("CoOp", 4, classes=2, batch=2), rounds=1, threads=torch.get_num_threads())
    assert used == {"torch", "onednn"} and row["linear"] == "onednn" == linear.in_use()
    assert row["numbers"] == verdict and row["of peak"] == pytest.approx(row["GFLOP"] / row["fast s"])
