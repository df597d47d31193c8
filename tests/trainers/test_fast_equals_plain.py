"""Every method equals the plain path, in logits and gradients, whatever the class names."""

import pytest
import torch
from small_clip import make_small_clip

from benchmarks.methods import FURTHER, PROMPTS, Case, build

FULL = "cat " * 60  # cut to what fits next to the prompts and fixed words
NAMES = {
    "a single class": ["cat"],
    "names of one token": ["cat", "dog", "horse"],
    "names of many lengths": ["dog", "Boeing 747-400", "cat", "abandoned factory by the sea", "U.S.A."],
    "a name that fills the context": ["dog", FULL],
}
FIXED = {"CoOp": 3, "CoCoOp": 3, "MaPLe": 3, "SEP": 3, "VPT": 7, "RPO": 7}  # start, ".", end; and "a photo of a"


def full(method, prompts):
    """Return as many words as the context holds next to the prompts and fixed words."""
    room = 77 - FIXED[method] - (0 if method == "VPT" else prompts)
    return "cat " * (min(room, 77 - 7) if method == "SEP" else room)  # SEP also has the fixed text of frozen CLIP


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("method", PROMPTS)
def test_logits_and_gradients_equal_the_plain_path(method, names):
    prompts = PROMPTS[method]
    classnames = [full(method, prompts) if name == FULL else name for name in NAMES[names]]
    paths = build(Case(method, prompts, len(classnames), 2), make_small_clip(), classnames)
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    fast, plain = paths.model(images), paths.plain(images)
    torch.testing.assert_close(fast, plain, atol=1e-4, rtol=0)
    learned = [p for p in paths.model.prompt_learner.parameters() if p.requires_grad]
    fast = torch.autograd.grad(fast.square().sum(), learned, allow_unused=True)
    plain = torch.autograd.grad(plain.square().sum(), learned, allow_unused=True)
    for one, other in zip(fast, plain, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=2e-5 * float(other.abs().max()) + 1e-6, rtol=0)


def test_rpo_with_a_full_context_equals_the_plain_path():
    names = ["cat", "Boeing 747-400"]
    longest = 2 + 5 + 6  # start and end; "a photo of a" and "."; an upper bound for "boeing 747-400"
    paths = build(Case("RPO", 77 - longest - 4, len(names), 2), make_small_clip(), names)
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(paths.model(images), paths.plain(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", FURTHER)
def test_the_loss_and_its_gradients_equal_the_plain_path(method):
    paths = build(Case(method, FURTHER[method], 5, 2), make_small_clip(), NAMES["names of many lengths"])
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    learned = [p for p in paths.model.prompt_learner.parameters() if p.requires_grad]
    fast, plain = (paths.losses[path](images, torch.tensor([0, 4])) for path in ("fast", "plain"))
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(fast, learned), torch.autograd.grad(plain, learned)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5 * float(other.abs().max()) + 1e-6, rtol=0)
