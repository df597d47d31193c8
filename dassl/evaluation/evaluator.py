"""Evaluators collect a model's answers batch by batch and sum them up."""

from collections import OrderedDict
from pathlib import Path

import torch
from sklearn.metrics import confusion_matrix, f1_score

from basics import UserError
from dassl.data import UNREADABLE
from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.utils import save_tensors

CONFIDENCE_DIGITS = 6  # behind the point: finer differences are the machine's, not the model's


class EvaluatorBase:
    """What every evaluator offers."""

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self):
        """Forget all answers."""
        raise NotImplementedError

    def process(self, model_output, ground_truth):
        """Take in a batch."""
        raise NotImplementedError

    def evaluate(self):
        """Print the results and return them as an ordered dict; the first is the one models are compared by."""
        raise NotImplementedError

    def summary(self):
        """The results as plain dicts and numbers for `results.json`; None: the evaluator does not offer them."""
        return None

    def predictions(self):
        """The answer to each image, in the order of `process`, as dicts; None: the evaluator does not offer them."""
        return None


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1, in percent.

    Args:
        lab2cname: {label: class name}; needed for results per class.
    """

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self):
        self._y_true, self._y_pred, self._confidence = [], [], []

    def process(self, model_output, ground_truth):
        """Take in logits (B, C) and labels (B,). Both stay on their device until all are there.

        A label -1 - y is that of an image of class y that could not be read (`dassl.data.UNREADABLE`): whatever the
        logits, the answer is wrong.
        """
        unreadable = ground_truth < 0
        self._y_pred.append(model_output.argmax(dim=1).masked_fill(unreadable, UNREADABLE))
        self._y_true.append(torch.where(unreadable, UNREADABLE - ground_truth, ground_truth))
        confidence = model_output.float().softmax(dim=1).amax(dim=1)
        self._confidence.append(confidence.masked_fill(unreadable, 0.0))

    def _answers(self):
        if not self._y_true:
            raise UserError("there is nothing to evaluate: the split is empty")
        return torch.cat(self._y_true).cpu(), torch.cat(self._y_pred).cpu()

    def summary(self):
        """The results as a plain dict (percent, not rounded), for `results.json`.

        Returns:
            {accuracy, error_rate, macro_f1, n, unreadable, per_class: {class name: {n, correct, accuracy}}}, classes in
            the order of their labels, those that occur. Macro F1 is averaged over the labels that occur.
        """
        y_true, y_pred = self._answers()
        hits = y_true == y_pred
        labels = y_true.unique().tolist()
        per_class = {}
        for label in labels:
            name = str(self._lab2cname.get(label, label))
            if name in per_class:
                name = f"{name} ({label})"  # two classes of one name
            of_class = hits[y_true == label]
            n, correct = len(of_class), int(of_class.sum())
            per_class[name] = {"n": n, "correct": correct, "accuracy": 100.0 * correct / n}
        accuracy = 100.0 * int(hits.sum()) / len(hits)
        return {
            "accuracy": accuracy,
            "error_rate": 100.0 - accuracy,
            "macro_f1": 100.0 * float(f1_score(y_true.numpy(), y_pred.numpy(), average="macro", labels=labels)),
            "n": len(hits),
            "unreadable": int((y_pred == UNREADABLE).sum()),
            "per_class": per_class,
        }

    def predictions(self):
        """One dict an image: label, predicted, confidence (softmax of the predicted class), and both classes' names.

        An image that could not be read has UNREADABLE as its answer, and no confidence.
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
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._print_per_class(summary["per_class"])
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix()
        return results

    def _print_per_class(self, per_class):
        print("=> per-class result")
        labels = torch.cat(self._y_true).unique().tolist()
        for label, (name, of_class) in zip(labels, per_class.items(), strict=True):
            print(
                f"* class: {label} ({name})\ttotal: {of_class['n']:,}\tcorrect: {of_class['correct']:,}\t"
                f"acc: {of_class['accuracy']:.1f}%"
            )
        average = sum(of_class["accuracy"] for of_class in per_class.values()) / len(per_class)
        print(f"* average: {average:.1f}%")
        return average

    def _save_confusion_matrix(self):
        y_true, y_pred = self._answers()
        answered = y_pred != UNREADABLE
        labels = torch.cat([y_true, y_pred[answered]]).unique()
        matrix = confusion_matrix(y_true[answered], y_pred[answered], labels=labels, normalize="true")
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        # A tensor, not upstream's numpy array: an array could not be loaded as tensors only.
        save_tensors(torch.from_numpy(matrix), path)
        print(f"Confusion matrix is saved to {path}")
