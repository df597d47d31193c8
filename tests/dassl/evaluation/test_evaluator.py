"""The evaluator's printed lines, which other tools parse, and its figures."""

from collections import Counter

import pytest
import torch

from basics import UserError
from dassl.config import get_cfg_default, merge
from dassl.data import UNREADABLE
from dassl.evaluation import build_evaluator
from dassl.evaluation.build import EVALUATOR_REGISTRY
from dassl.evaluation.evaluator import EvaluatorBase


def evaluator(*opts, lab2cname=None):
    cfg = get_cfg_default()
    merge(cfg, opts=("VERBOSE", "False", *opts))
    return build_evaluator(cfg, lab2cname=lab2cname or {0: "abyssinian", 1: "beagle", 2: "boxer"})


def feed(evaluator, predictions, labels, batch_size=2):
    logits = torch.eye(3)[torch.tensor(predictions)]
    for at in range(0, len(labels), batch_size):
        evaluator.process(logits[at : at + batch_size], torch.tensor(labels[at : at + batch_size]))


def test_the_result_is_printed_line_by_line_as_parsers_expect_it(capsys):
    e = evaluator()
    feed(e, [0, 1, 1, 2, 0], [0, 0, 1, 2, 2])
    results = e.evaluate()
    assert capsys.readouterr().out == (
        "=> result\n* total: 5\n* correct: 3\n* accuracy: 60.0%\n* error: 40.0%\n* macro_f1: 61.1%\n"
    )
    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    assert results["accuracy"] == 60.0
    assert results["macro_f1"] == pytest.approx(100 * (1 / 2 + 2 / 3 + 2 / 3) / 3)


def test_thousands_are_separated_by_commas(capsys):
    e = evaluator()
    feed(e, [0] * 1234, [0] * 1234, batch_size=500)
    e.evaluate()
    assert "* total: 1,234\n* correct: 1,234\n" in capsys.readouterr().out


def test_the_share_of_images_with_the_class_among_the_best_k_is_measured(capsys):
    e = evaluator("TEST.TOP_K", "(2, 5)")
    e.process(torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1]]), torch.tensor([1, 2, UNREADABLE - 1]))
    assert e.evaluate()["top2_accuracy"] == pytest.approx(100 / 3)
    assert e.summary()["top5_accuracy"] == pytest.approx(200 / 3)  # of three classes, and an unreadable image
    assert "* top2_accuracy: 33.3%\n" in capsys.readouterr().out


def test_balanced_accuracy_is_the_mean_over_classes():
    e = evaluator()
    feed(e, [0, 0, 0, 1, 1], [0, 0, 0, 1, 2])
    assert e.summary()["balanced_accuracy"] == pytest.approx(200 / 3)


def test_the_results_of_each_class_are_written_as_csv(tmp_path):
    e = evaluator("TEST.PER_CLASS_RESULT", "True", "OUTPUT_DIR", str(tmp_path))
    feed(e, [0, 1, 1, 1], [0, 0, 1, 2])
    e.evaluate()
    assert (tmp_path / "per_class.csv").read_text().splitlines() == [
        "label,classname,n,correct,accuracy,predicted,precision,f1",
        "0,abyssinian,2,1,50.0,1,100.0,66.66666666666667",
        "1,beagle,1,1,100.0,3,33.333333333333336,50.0",
        "2,boxer,1,0,0.0,0,,0.0",
    ]


def test_results_are_printed_per_class(capsys, tmp_path):
    e = evaluator("TEST.PER_CLASS_RESULT", "True", "OUTPUT_DIR", str(tmp_path))
    feed(e, [0, 1, 2], [0, 0, 2])
    results = e.evaluate()
    assert capsys.readouterr().out.endswith(
        "=> per-class result\n"
        "* class: 0 (abyssinian)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n"
        "* class: 2 (boxer)\ttotal: 1\tcorrect: 1\tacc: 100.0%\n"
        "* average: 75.0%\n"
    )
    assert results["perclass_accuracy"] == 75.0


def test_the_summary_does_not_depend_on_the_batch_size():
    summaries = []
    for batch_size in (1, 2, 5):
        e = evaluator()
        feed(e, [0, 1, 1, 2, 0], [0, 0, 1, 2, 2], batch_size)
        summaries.append(e.summary())
    assert summaries[0] == summaries[1] == summaries[2]
    assert summaries[0]["n"] == 5
    assert summaries[0]["per_class"]["boxer"] == {"n": 2, "correct": 1, "accuracy": 50.0}


def test_each_answer_comes_with_its_confidence_and_names():
    e = evaluator(lab2cname={0: "ant", 1: "bee"})
    e.process(torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 2.0]]), torch.tensor([1, 0]))
    first, second = e.predictions()
    confidence = pytest.approx(torch.tensor([0.0, 3.0, 0.0]).softmax(0)[1].item(), abs=1e-6)
    assert first == {
        "label": 1,
        "predicted": 1,
        "confidence": confidence,
        "classname": "bee",
        "predicted_classname": "bee",
    }
    assert second["predicted"] == second["predicted_classname"] == 2  # a class without a name


def test_the_calibration_error_is_that_of_the_readable_images():
    e = evaluator()
    for labels in ([0, 0], [1, UNREADABLE - 1]):  # both predictions of a batch have the same logits
        e.process(torch.tensor([[2.0, 0.0, 0.0]] * 2), torch.tensor(labels))
    confidence = torch.tensor([2.0, 0.0, 0.0]).softmax(0)[0].item()
    assert e.summary()["ece"] == pytest.approx(100 * abs(2 / 3 - confidence), abs=1e-4)
    e.reset()
    e.process(torch.eye(3)[:1], torch.tensor([UNREADABLE - 0]))
    assert e.summary()["ece"] is None


def test_logits_are_kept_only_where_they_are_needed():
    plain, calibrated = evaluator(), evaluator("TEST.CALIBRATE", "True")
    for e in (plain, calibrated):
        e.process(torch.eye(3), torch.tensor([0, UNREADABLE - 1, 1]))
    assert plain.logits() is None
    logits, labels = calibrated.logits()
    assert torch.equal(logits, torch.eye(3).double()[[0, 2]]) and labels.tolist() == [0, 1]


def test_two_classes_of_one_name_are_kept_apart():
    e = evaluator(lab2cname={0: "missile", 1: "missile", 2: "crane"})
    feed(e, [0, 0], [0, 1])
    assert list(e.summary()["per_class"]) == ["missile", "missile (1)"]


def test_reset_clears_all_answers():
    e = evaluator()
    feed(e, [0], [1])
    e.reset()
    feed(e, [1], [1])
    assert e.summary()["n"] == 1
    e.reset()
    with pytest.raises(UserError, match="empty split"):
        e.summary()


def test_the_confusion_matrix_is_saved_as_a_tensor(tmp_path, capsys):
    e = evaluator("TEST.COMPUTE_CMAT", "True", "OUTPUT_DIR", str(tmp_path))
    feed(e, [0, 1, 1, 2], [0, 0, 1, 2])
    e.evaluate()
    matrix = torch.load(tmp_path / "cmat.pt", weights_only=True)
    assert matrix.tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert f"Confusion matrix is saved to {tmp_path / 'cmat.pt'}" in capsys.readouterr().out


def test_a_large_confusion_matrix_holds_the_pairs_that_occur(tmp_path, monkeypatch):
    answers = [0, 1, 1, 2, 0], [0, 0, 1, 2, UNREADABLE - 2]
    found = []
    for largest in (2, 3):
        monkeypatch.setattr("dassl.evaluation.evaluator.LARGEST_MATRIX", largest)
        e = evaluator("TEST.COMPUTE_CMAT", "True", "OUTPUT_DIR", str(tmp_path))
        feed(e, *answers)
        e.evaluate()
        found.append(torch.load(tmp_path / "cmat.pt", weights_only=True))
    pairs, matrix = found
    dense = torch.zeros_like(matrix)
    dense[tuple(pairs["pairs"])] = pairs["shares"]
    assert torch.equal(dense, matrix) and pairs["labels"].tolist() == [0, 1, 2] and len(pairs["shares"]) == 4


def test_results_of_21000_classes_equal_those_counted_one_by_one():
    generator = torch.Generator().manual_seed(0)
    y_true, y_pred = torch.randint(21_000, (2, 30_000), generator=generator)
    y_pred = torch.where(torch.rand(30_000, generator=generator) < 0.5, y_true, y_pred)
    e = evaluator(lab2cname={label: str(label) for label in range(21_000)})
    e._y_true, e._y_pred, e._confidence = [y_true], [y_pred], [torch.ones(30_000)]
    summary = e.summary()
    images, right, predicted = (Counter(y.tolist()) for y in (y_true, y_true[y_true == y_pred], y_pred))
    assert list(summary["per_class"]) == [str(label) for label in sorted(images)]
    assert all(
        (of["n"], of["correct"]) == (images[int(name)], right[int(name)]) for name, of in summary["per_class"].items()
    )
    f1 = [2 * right[label] / (n + predicted[label]) for label, n in images.items()]
    assert summary["macro_f1"] == pytest.approx(100 * sum(f1) / len(f1), rel=1e-12)


def test_a_custom_evaluator_can_be_registered():
    @EVALUATOR_REGISTRY.register()
    class Counter(EvaluatorBase):
        def __init__(self, cfg, lab2cname=None, **kwargs):
            super().__init__(cfg)

    assert isinstance(evaluator("TEST.EVALUATOR", "Counter"), Counter)
    own = evaluator("TEST.EVALUATOR", "Counter")
    assert own.summary() is None and own.predictions() is None


def test_an_unreadable_image_is_a_wrong_answer_of_its_class(tmp_path, capsys):
    e = evaluator("TEST.COMPUTE_CMAT", "True", "OUTPUT_DIR", str(tmp_path))
    feed(e, [0, 1, 2, 0], [0, UNREADABLE - 1, 2, UNREADABLE - 0])
    e.evaluate()
    assert "* total: 4\n* correct: 2\n* accuracy: 50.0%" in capsys.readouterr().out
    summary = e.summary()
    assert (summary["n"], summary["unreadable"], summary["accuracy"]) == (4, 2, 50.0)
    assert summary["per_class"]["beagle"] == {"n": 1, "correct": 0, "accuracy": 0.0}
    assert summary["macro_f1"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)
    matrix = torch.load(tmp_path / "cmat.pt", weights_only=True)
    assert torch.equal(matrix, torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]], dtype=matrix.dtype))
    assert [(row["label"], row["predicted"], row["confidence"] > 0) for row in e.predictions()] == [
        (0, 0, True),
        (1, UNREADABLE, False),
        (2, 2, True),
        (0, UNREADABLE, False),
    ]
    assert e.predictions()[1]["predicted_classname"] == "unreadable"
