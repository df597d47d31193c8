"""Evaluators collect a model's predictions batch by batch and summarize them."""

from collections import OrderedDict
from pathlib import Path

import torch

from basics import UserError, log, write_atomic
from basics.csv_files import csv_text
from dassl.data import UNREADABLE
from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.metrics import calibration_error
from dassl.utils import save_tensors

LARGEST_MATRIX = (
    4096  # classes of a confusion matrix with all its cells, 128 MiB; of a larger one, those of pairs that occur
)
CONFIDENCE_DIGITS = 6  # decimals; finer differences come from the machine, not the model


def macro_f1(y_true, y_pred):
    """Average F1 = 2 hits / (images of the class + predictions of the class) over the true classes, 0 to 1.

    Args:
        y_true, y_pred (Tensor): (N,) int.
    """
    labels = y_true.unique()
    hits, images, predictions = (
        count(of_label, labels).double() for of_label in (y_true[y_true == y_pred], y_true, y_pred)
    )
    return float((2 * hits / (images + predictions)).mean())


def count(values, labels):
    """Count how often each of some distinct labels, sorted, occurs in `values` (N,): (C,), in time linear in N."""
    found, counts = values.unique(return_counts=True)
    known = torch.isin(found, labels)
    return torch.zeros_like(labels).index_add_(0, torch.searchsorted(labels, found[known]), counts[known])


class EvaluatorBase:
    """The interface of evaluators."""

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self):
        """Discard all predictions."""
        raise NotImplementedError

    def process(self, model_output, ground_truth):
        """Collect a batch."""
        raise NotImplementedError

    def evaluate(self):
        """Print the results and return them as an ordered dict; models are compared by the first one."""
        raise NotImplementedError

    def summary(self):
        """Return the results as plain dicts and numbers for `results.json`; None if it has none."""
        return None

    def predictions(self):
        """Return one dict per image, in the order of `process`; None if it has none."""
        return None

    def logits(self):
        """Return logits (N, C), in float64 on the CPU, and labels (N,) of readable images; None if it keeps none."""
        return None


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1, in percent.

    Args:
        lab2cname: {label: class name}, for per-class results.
    """

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self):
        self._y_true: list[torch.Tensor] = []
        self._y_pred: list[torch.Tensor] = []
        self._confidence: list[torch.Tensor] = []
        self._logits: list[torch.Tensor] = []
        self._ranked_hits: list[torch.Tensor] = []

    def process(self, model_output, ground_truth):
        """Collect logits (B, C) and labels (B,). Both stay on their device until the last batch.

        A label -1 - y marks an unreadable image of class y (`dassl.data.UNREADABLE`): its prediction is wrong, whatever
        the logits.
        """
        unreadable = ground_truth < 0
        self._y_pred.append(model_output.argmax(dim=1).masked_fill(unreadable, UNREADABLE))
        self._y_true.append(torch.where(unreadable, UNREADABLE - ground_truth, ground_truth))
        confidence = model_output.float().softmax(dim=1).amax(dim=1)
        self._confidence.append(confidence.masked_fill(unreadable, 0.0))
        if self.cfg.TEST.TOP_K:
            ranked = model_output.topk(min(max(self.cfg.TEST.TOP_K), model_output.shape[1]), dim=1).indices
            self._ranked_hits.append(ranked == ground_truth[:, None])  # all False for an unreadable image
        if self.cfg.TEST.CALIBRATE or self.cfg.TEST.UNKNOWNS:
            self._logits.append(model_output.double().cpu())

    def _answers(self):
        if not self._y_true:
            raise UserError("TEST.SPLIT: expected images to evaluate, got an empty split. Choose another split.")
        return torch.cat(self._y_true).cpu(), torch.cat(self._y_pred).cpu()

    def summary(self):
        """Return the results as a plain dict (percent, not rounded), for `results.json`.

        Returns:
            {accuracy, error_rate, macro_f1, ece, n, unreadable, per_class: {class name: {n, correct, accuracy}},
            balanced_accuracy, top<k>_accuracy for each k of TEST.TOP_K}, only classes that occur, in the order of their
            labels. Macro F1 and balanced accuracy are averaged over the labels that occur. ece is the expected
            calibration error over the readable images; None without any.
        """
        y_true, y_pred = self._answers()
        hits = y_true == y_pred
        labels = y_true.unique()
        counts = zip(*(count(y, labels).tolist() for y in (y_true, y_true[hits])), strict=True)
        per_class = {}
        for label, (n, correct) in zip(labels.tolist(), counts, strict=True):
            name = str(self._lab2cname.get(label, label))
            if name in per_class:
                name = f"{name} ({label})"  # two classes share this name
            per_class[name] = {"n": n, "correct": correct, "accuracy": 100.0 * correct / n}
        accuracy = 100.0 * int(hits.sum()) / len(hits)
        readable = y_pred != UNREADABLE
        confidence = torch.cat(self._confidence).cpu().double().round(decimals=CONFIDENCE_DIGITS)
        error = calibration_error(confidence[readable], hits[readable])
        return {
            "accuracy": accuracy,
            "error_rate": 100.0 - accuracy,
            "macro_f1": 100.0 * macro_f1(y_true, y_pred),
            "ece": 100.0 * error if error is not None else None,
            "n": len(hits),
            "unreadable": int((y_pred == UNREADABLE).sum()),
            "per_class": per_class,
            "balanced_accuracy": sum(of_class["accuracy"] for of_class in per_class.values()) / len(per_class),
            **self._top_k(len(hits)),
        }

    def _top_k(self, n):
        """Return {"top5_accuracy": percent of the n images, ...} for TEST.TOP_K; k may exceed the number of classes."""
        return {
            f"top{k}_accuracy": 100.0 * int(torch.cat(self._ranked_hits)[:, :k].any(dim=1).sum()) / n
            for k in self.cfg.TEST.TOP_K
        }

    def logits(self):
        """Return logits (N, C), in float64 on the CPU, and labels (N,) of the readable images.

        None unless TEST.CALIBRATE or TEST.UNKNOWNS needs them.
        """
        if not self._logits:
            return None
        y_true, y_pred = self._answers()
        readable = y_pred != UNREADABLE
        return torch.cat(self._logits)[readable], y_true[readable]

    def predictions(self):
        """Return one dict per image: label, predicted, confidence (softmax of the prediction), and both class names.

        For an unreadable image, the prediction is UNREADABLE and the confidence 0.
        """
        y_true, y_pred = self._answers()
        names = {**self._lab2cname, UNREADABLE: "unreadable"}
        columns = zip(y_true.tolist(), y_pred.tolist(), torch.cat(self._confidence).tolist(), strict=True)
        return [
            {
                "label": label,
                "predicted": predicted,
                "confidence": round(confidence, CONFIDENCE_DIGITS),
                "classname": names.get(label, label),
                "predicted_classname": names.get(predicted, predicted),
            }
            for label, predicted, confidence in columns
        ]

    def evaluate(self):
        summary = self.summary()
        correct = sum(of_class["correct"] for of_class in summary["per_class"].values())
        print(
            "=> result\n"
            f"* total: {summary['n']:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {summary['accuracy']:.1f}%\n"
            f"* error: {summary['error_rate']:.1f}%\n"
            f"* macro_f1: {summary['macro_f1']:.1f}%"
        )
        if summary["unreadable"]:
            print(f"* unreadable: {summary['unreadable']:,} (counted as wrong)")
        results = OrderedDict((key, summary[key]) for key in ("accuracy", "error_rate", "macro_f1"))
        for key, value in summary.items():
            if key.startswith("top"):
                print(f"* {key}: {value:.1f}%")
                results[key] = value
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_per_class(summary)
            self._write_per_class(summary["per_class"])
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix()
        return results

    def _write_per_class(self, per_class):
        """Write OUTPUT_DIR/per_class.csv: a row per class that occurs, with percentages as in `summary`."""
        y_true, y_pred = self._answers()
        rows, labels = [], y_true.unique()
        predictions = count(y_pred, labels).tolist()
        for label, predicted, (name, of_class) in zip(labels.tolist(), predictions, per_class.items(), strict=True):
            rows.append(
                {
                    "label": label,
                    "classname": name,
                    **of_class,
                    "predicted": predicted,
                    "precision": 100.0 * of_class["correct"] / predicted if predicted else None,
                    "f1": 200.0 * of_class["correct"] / (of_class["n"] + predicted),
                }
            )
        write_atomic(Path(self.cfg.OUTPUT_DIR) / "per_class.csv", csv_text(rows).encode(errors="backslashreplace"))

    def _print_per_class(self, summary):
        print("=> per-class result")
        per_class = summary["per_class"]
        labels = torch.cat(self._y_true).unique().tolist()
        for label, (name, of_class) in zip(labels, per_class.items(), strict=True):
            print(
                f"* class: {label} ({name})\ttotal: {of_class['n']:,}\tcorrect: {of_class['correct']:,}\t"
                f"acc: {of_class['accuracy']:.1f}%"
            )
        print(f"* average: {summary['balanced_accuracy']:.1f}%")
        return summary["balanced_accuracy"]

    def _save_confusion_matrix(self):
        y_true, y_pred = self._answers()
        answered = y_pred != UNREADABLE
        labels = torch.cat([y_true, y_pred[answered]]).unique()
        rows, columns = (torch.searchsorted(labels, y[answered]) for y in (y_true, y_pred))
        pairs, counts = torch.stack([rows, columns]).unique(dim=1, return_counts=True)
        totals = count(y_true[answered], labels)
        shares = counts.double() / totals[pairs[0]]
        cells = torch.zeros(len(labels), len(labels), dtype=shares.dtype) if len(labels) <= LARGEST_MATRIX else None
        if cells is not None:
            cells[pairs[0], pairs[1]] = shares
        matrix = {"labels": labels, "pairs": pairs, "shares": shares} if cells is None else cells
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        # A tensor instead of upstream's numpy array, which could not be loaded as tensors only.
        save_tensors(matrix, path)
        log(f"Confusion matrix is saved to {path}")
