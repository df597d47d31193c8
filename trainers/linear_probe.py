"""The linear probe on CLIP of CoOp's experiments: Zhou et al., arXiv 2109.01134 (section 4.1, "linear probe CLIP").

Logistic regression on the features of the frozen image tower, as Radford et al., 2103.00020, evaluate CLIP:

    p(y = i | x) = softmax_i( w_i f(x) + b_i ),  W (C, D), b (C,)
    minimize |W|^2 / 2 - C sum_x log p(y | x)  over the training images, by L-BFGS

As in the released code (lpclip/), f(x) is the projected feature, not normalized, of the image without augmentation, and
C is the most accurate one on the validation images: of 10^6, 10^4, ..., 10^-6, and then in eight steps of a binary
search between a tenth and ten times that. The released code has its own few-shot sample; here all methods share one.
ImageNet's validation images are its test images, here as there, so its C is chosen on test images.

Attention pattern: as zero-shot CLIP on the image side; there is no text side.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basics import UserError, log
from clip import CLIP
from dassl.engine import TRAINER_REGISTRY
from dassl.metrics import compute_accuracy
from trainers.base import PromptTrainer
from trainers.features import collect
from trainers.prompted import PromptedCLIP

EXPONENTS = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)  # log10 of the first values of C
STEPS = 8  # of the binary search
MAX_ITERATIONS = 1000


class LinearProbe(PromptedCLIP):
    """CLIP's image tower with a linear head: `weight` (C, D), whose rows stand for the classes, and `bias` (C,)."""

    frozen_image_encoder = True
    per_class_parameters = True
    independent_classes = False  # there are no texts to encode in blocks

    def __init__(self, clip_model: CLIP, n_classes: int):
        super().__init__(clip_model, n_classes)
        self.prompt_learner = nn.Linear(clip_model.text_projection.shape[1], n_classes)

    def class_features(self, classes: slice) -> Tensor:
        return F.normalize(self.prompt_learner.weight[classes], dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        return F.normalize(self.tower_features(images), dim=-1)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.prompt_learner(self.tower_features(images))


def fit(features: Tensor, labels: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Fit the logistic regression of features (N, D) on labels (N,); return weight (C, D) and bias (C,)."""
    from sklearn.exceptions import ConvergenceWarning  # here: scikit-learn is slow to import
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    regression = LogisticRegression(C=c, max_iter=MAX_ITERATIONS)  # L-BFGS and the L2 penalty are its defaults
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a large C may take all iterations, as released
        regression.fit(features.double().numpy(), labels.numpy())
    weight, bias = torch.from_numpy(regression.coef_).float(), torch.from_numpy(regression.intercept_).float()
    if len(weight) == 1:  # two classes: scikit-learn has the logit of the second minus that of the first
        return torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return weight, bias


def search(accuracy: Callable[[float], float]) -> float:
    """Return log10 of C, given the validation accuracy as a function of it, which is called repeatedly."""
    best = max(EXPONENTS, key=accuracy)
    left, right = best - 1, best + 1
    for _ in range(STEPS):
        middle = (left + right) / 2
        if accuracy(left) < accuracy(right):
            best, left = right, middle
        else:
            best, right = left, middle
    return best


@TRAINER_REGISTRY.register()
class LinearProbeCLIP(PromptTrainer):
    """Linear probe on frozen features: one fit in place of epochs and steps, so OPTIM is not used."""

    model: LinearProbe
    checkpoint_name = "linear_probe"
    has_fixed_texts = False
    unit_length_features = False
    honors_loss_options = False
    is_fitted = True

    def needs_whole_batches(self) -> bool:
        return True

    def texts(self, classnames: list[str]) -> Iterator[tuple[str, str, int]]:
        return iter(())

    def build_data_loader(self) -> None:
        super().build_data_loader()
        self.train_loader_x = self.dm.plain_train_loader

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return LinearProbe(clip_model, len(classnames))

    def build_optimizer(self, learner: nn.Module) -> tuple[None, None]:
        return None, None

    def build_model(self) -> None:
        super().build_model()
        self.max_epoch = 1

    def before_train(self) -> None:
        if self.val_loader is None:
            raise UserError(
                f"DATASET.NAME: expected a dataset with validation images, on which {type(self).__name__} chooses C, "
                f"got {self.cfg.DATASET.NAME}, which has none. Choose another dataset."
            )
        if self.num_classes < 2:
            raise UserError(f"DATASET.NAME: expected two or more classes, got {self.num_classes}. Nothing can be fit.")
        super().before_train()

    def run_epoch(self) -> None:
        """Find C, and set the head."""
        assert self.val_loader is not None  # see before_train
        (features, labels), (val_features, val_labels) = (
            collect(self, loader) for loader in (self.train_loader_x, self.val_loader)
        )

        @functools.cache
        def head(exponent: float) -> tuple[Tensor, Tensor]:
            self.signals.stop_if_requested("while C was searched")
            return fit(features, labels, 10.0**exponent)

        @functools.cache
        def accuracy(exponent: float) -> float:
            right = F.linear(val_features, *head(exponent)).argmax(dim=1) == val_labels
            found = 100 * right.sum().item() / len(right)
            log(f"C {10.0**exponent:.4g}: {found:.2f}% of the validation images")
            return found

        exponent = search(accuracy)
        weight, bias = head(exponent)
        with torch.no_grad():
            self.model.prompt_learner.weight.copy_(weight)
            self.model.prompt_learner.bias.copy_(bias)
        logits = F.linear(features, weight, bias)
        loss, acc = F.cross_entropy(logits, labels), compute_accuracy(logits, labels)[0]
        self.record.val_accuracy = accuracy(exponent)
        self.record.progress.add_step({"loss": loss, "acc": acc, "C": 10.0**exponent})
