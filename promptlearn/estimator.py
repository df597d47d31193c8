"""A scikit-learn classifier of picture files: clone it, cross-validate it, search its parameters.

clf = PromptClassifier(epochs=20).fit(paths, labels)
clf.predict(["picture.jpg"])
cross_val_score(clf, paths, labels, cv=3)
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from promptlearn import fitting
from promptlearn.classifier import PromptedClassifier


class PromptClassifier(ClassifierMixin, BaseEstimator):
    """Trains a method of prompt learning on picture files, by a run of train.py in a temporary folder.

    Args:
        method, backbone, shots, epochs, seed, prompt, settings: as in `promptlearn.fitting.FitOptions`.
        validation_fraction: share of the pictures that is not trained on; the temperature of the probabilities is
            fitted on it.
        batch_size: pictures at a time, in predictions.
        device: where predictions are computed; None for the GPU if there is one.

    Attributes:
        classes_: the labels, sorted, (C,). Their texts are the class names.
        classifier_: the trained `PromptedClassifier`; `classifier_.save_pretrained(folder)` saves it.
    """

    def __init__(
        self,
        method: str = "RPO",
        *,
        backbone: str = "",
        shots: int | None = None,
        epochs: int | None = None,
        seed: int = 1,
        prompt: str = "",
        settings: dict[str, Any] | None = None,
        validation_fraction: float = 0.2,
        batch_size: int = 32,
        device: str | None = None,
    ):
        self.method = method
        self.backbone = backbone
        self.shots = shots
        self.epochs = epochs
        self.seed = seed
        self.prompt = prompt
        self.settings = settings
        self.validation_fraction = validation_fraction
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Sequence[str | Path], y: Sequence) -> PromptClassifier:
        """Train on the pictures X, paths (N,), with labels y, (N,).

        Raises:
            ValueError: X is not a list of paths, there are fewer than two classes, or two labels have the same text.
            UserError: pictures are missing or repeated, or the training failed.
        """
        paths, y = check_paths(X), column_or_1d(y, warn=True)
        check_consistent_length(paths, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        names = [" ".join(str(label).split()) for label in self.classes_]
        if len(names) < 2 or len({name.replace("_", " ") for name in names} - {""}) < len(names):
            raise ValueError(f"y: expected at least two classes whose texts differ, got {names}.")
        kept, held_out = train_test_split(
            np.arange(len(y)), test_size=self.validation_fraction, stratify=codes, random_state=self.seed
        )
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "pictures.csv")
            with open(table, "w", encoding="utf-8", newline="") as file:
                rows = [(i, "train") for i in kept] + [(i, "val") for i in held_out]
                csv.writer(file).writerows(
                    [("path", "label", "split"), *((paths[i], names[codes[i]], part) for i, part in rows)]
                )
            settings = {"TEST.NO_TEST": True, **(self.settings or {})}
            options = fitting.FitOptions(
                table,
                Path(folder, "model"),
                method=self.method,
                backbone=self.backbone,
                shots=self.shots,
                epochs=self.epochs,
                seed=self.seed,
                prompt=self.prompt,
                settings=settings,
            )
            fitting.fit(options, quiet=True)
            self._model = {path.name: path.read_bytes() for path in options.output.iterdir() if path.is_file()}
        self._loaded: PromptedClassifier | None = None
        self._columns = [sorted(names).index(name) for name in names]  # the dataset sorts the texts
        return self

    @property
    def classifier_(self) -> PromptedClassifier:
        check_is_fitted(self)
        if self._loaded is None:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self._model.items():
                    Path(folder, name).write_bytes(content)
                self._loaded = PromptedClassifier.from_pretrained(folder, device=self.device)
        return self._loaded

    def predict_proba(self, X: Sequence[str | Path]) -> np.ndarray:
        """Return the probability of each class, (N, C), in the order of `classes_`."""
        classifier = self.classifier_
        logits = classifier.predict(check_paths(X), batch_size=self.batch_size).logits
        return classifier.probabilities(logits.double()).numpy()[:, self._columns]

    def predict(self, X: Sequence[str | Path]) -> np.ndarray:
        """Return the label of each picture, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = True, False, True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the files of the model, without the loaded one."""
        state = super().__getstate__()
        return state | {"_loaded": None} if "_loaded" in state else state


def check_paths(X: Sequence[str | Path]) -> list[str]:
    """Return absolute paths.

    Raises:
        ValueError: X is not a list or one-dimensional array of texts or paths.
    """
    if isinstance(X, str | Path) or np.ndim(X) != 1 or not all(isinstance(path, str | os.PathLike) for path in X):
        raise ValueError("X: expected a list or one-dimensional array of the paths of pictures, got something else.")
    return [os.path.abspath(os.path.expanduser(path)) for path in X]
