"""The scikit-learn estimator: its own checks where they apply, and what they would check, on picture files."""

import pickle
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks

from promptlearn import fitting
from promptlearn.classifier import PromptedClassifier
from promptlearn.estimator import PromptClassifier

# The others do not apply, because all of them fit on a matrix of numbers, and X is a list of paths here:
# - of the input: dtypes, NaN and infinity, complex, sparse, empty, or object matrices, memory maps, Fortran order, one
#   sample or feature, n_features_in_, feature names, array API, sample order and subsets;
# - of the estimator: fit returns self and changes no parameter, unfitted ones raise, pickles answer alike, labels of
#   any type, one class, a second fit, pipelines. The tests below check these on pictures.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
)
COLORS = [(220, 30, 30), (30, 30, 220)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Create pictures in two colors and return their paths and labels."""
    folder, paths = tmp_path_factory.mktemp("pictures"), []
    for label, color in enumerate(COLORS):
        for i in range(8):
            paths.append(folder / f"{label}-{i}.png")
            Image.new("RGB", (40 + i, 40), tuple(min(255, part + 4 * i) for part in color)).save(paths[-1])
    return np.array([str(path) for path in paths]), np.repeat(["red square", "blue square"], 8)


@pytest.fixture(scope="module")
def fitted(pictures):
    return PromptClassifier(backbone="tiny", epochs=2).fit(*pictures)


@pytest.fixture
def quick(fitted, monkeypatch, tmp_path):
    """Replace the training by a copy of a trained model; return the options and tables of each call."""
    for name, content in fitted._model.items():
        (tmp_path / name).write_bytes(content)
    calls = []

    def copy(options, quiet):
        calls.append((options, options.source.read_text().splitlines()))
        shutil.copytree(tmp_path, options.output)

    monkeypatch.setattr(fitting, "fit", copy)
    return calls


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_of_scikit_learn_that_do_not_fit_pass(check):
    partial(getattr(estimator_checks, check), "PromptClassifier")(PromptClassifier())


def test_probabilities_are_calibrated_and_in_the_order_of_the_classes(fitted, pictures):
    paths, labels = pictures
    assert fitted.classes_.tolist() == ["blue square", "red square"]
    found, probabilities = fitted.predict(paths), fitted.predict_proba(paths)
    assert probabilities.shape == (16, 2) and np.allclose(probabilities.sum(axis=1), 1)
    assert (found == fitted.classes_[probabilities.argmax(axis=1)]).all()
    assert fitted.score(paths, labels) == np.mean(found == labels)
    expected = fitted.classifier_.predict(list(paths))
    assert expected.top == found.tolist()
    assert np.allclose(expected.probabilities[:, 0], probabilities.max(axis=1), atol=1e-5)
    assert fitted.classifier_.description.calibration is not None


def test_all_but_the_validation_share_is_trained_on(quick, pictures):
    paths, labels = pictures
    PromptClassifier(validation_fraction=0.25, settings={"OPTIM.LR": 0.1}).fit(list(paths), list(labels))
    options, (header, *rows) = quick[0]
    assert header == "path,label,split" and len(rows) == 16
    held_out = [row.split(",")[1] for row in rows if row.endswith(",val")]
    assert sorted(held_out) == ["blue square"] * 2 + ["red square"] * 2
    assert options.settings == {"TEST.NO_TEST": True, "OPTIM.LR": 0.1}


def test_labels_of_any_type_are_predicted_as_given(quick, pictures):
    paths, _ = pictures
    numbers = np.repeat([10, 9], 8)  # as texts, 10 comes before 9
    estimator = PromptClassifier().fit(paths, numbers)
    assert estimator.classes_.tolist() == [9, 10]
    by_text = estimator.classifier_.predict(list(paths)).top  # of the copied model: its first class stands for "10"
    expected = [10 if name == estimator.classifier_.classnames[0] else 9 for name in by_text]
    assert estimator.predict(paths).tolist() == expected


def test_a_pickled_estimator_gives_the_same_answers(fitted, pictures):
    paths, _ = pictures
    before = fitted.predict_proba(paths)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(paths), before)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(paths)


def test_cross_validation_and_grid_search_work(quick, pictures):
    paths, labels = pictures
    scores = cross_val_score(PromptClassifier(), paths, labels, cv=2)
    assert scores.shape == (2,) and not np.isnan(scores).any()
    search = GridSearchCV(PromptClassifier(), {"epochs": [1, 2], "method": ["RPO", "CoOp"]}, cv=2).fit(paths, labels)
    assert {(options.epochs, options.method) for options, _ in quick[2:]} == {
        (epochs, method) for epochs in (1, 2) for method in ("RPO", "CoOp")
    }
    assert search.predict(paths).shape == (16,)


def test_a_second_fit_replaces_the_first(quick, pictures):
    paths, labels = pictures
    estimator = PromptClassifier()
    assert estimator.fit(paths, labels) is estimator
    first = estimator.classifier_
    assert isinstance(first, PromptedClassifier) and estimator.fit(paths, labels).classifier_ is not first


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((4, 2)), [0, 0, 1, 1], "X: expected a list or one-dimensional array of the paths"),
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], "X: expected a list or one-dimensional array of the paths"),
        ("a.png", ["a"], "X: expected a list or one-dimensional array of the paths"),
        (["a.png", "b.png"], ["a"], "inconsistent numbers of samples"),
        (["a.png", "b.png"], ["a", "a"], "y: expected at least two classes"),
        (["a.png", "b.png"], ["a_b", "a b"], "y: expected at least two classes whose texts differ"),
        (["a.png", "b.png"], [0.5, 1.5], "Unknown label type"),
    ],
)
def test_wrong_input_is_refused_before_the_training(quick, X, y, message):
    with pytest.raises(ValueError, match=message):
        PromptClassifier().fit(X, y)
    assert not quick
