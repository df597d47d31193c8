"""Splits, records of samples, class names and images of any kind give a dataset or one clear message."""

import io
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import JUNK, TEXTS, damaged, grafted
from PIL import Image
from small_clip import make_small_clip
from yacs.config import CfgNode

from basics import UserError, read_json
from clip import tokenize
from dassl.config import get_cfg_default
from dassl.data.datasets import FewShotDataset
from dassl.evaluation import build_evaluator
from dassl.utils import read_image
from trainers.context import ContextCLIP

CLASSES = ("ant", "bee", "cat")
OPTIONS = CfgNode({"N_CTX": 4, "CTX_INIT": "", "CSC": False, "CLASS_TOKEN_POSITION": "end"})


class Few(FewShotDataset):
    dataset_dir = "few"
    split_file = "split.json"


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """Create pictures (empty files: their content is not read here) and the split that names them."""
    root = tmp_path_factory.mktemp("data")
    (root / "few").mkdir()
    split = {}
    for part, count in (("train", 4), ("val", 2), ("test", 2)):
        split[part] = [[f"{part}{n}_{name}.jpg", i, name] for i, name in enumerate(CLASSES) for n in range(count)]
        for name, _, _ in split[part]:
            (root / "few" / name).touch()
    return root, split


def open_set(root, shots=2):
    cfg = get_cfg_default()
    cfg.SEED, cfg.DATASET.ROOT, cfg.DATASET.NUM_SHOTS = 1, str(root), shots
    dataset = Few(cfg)
    assert dataset.num_classes == len(dataset.classnames) == len(set(dataset.lab2cname))
    assert all(type(item.label) is int and 0 <= item.label < dataset.num_classes for item in dataset.test)
    assert all(isinstance(name, str) and name for name in dataset.classnames)


def one_message(error):
    assert str(error).strip() and "Traceback" not in str(error)


@given(data=st.data())
def test_other_content_of_a_split_is_read_or_refused(data_folder, data):
    root, split = data_folder
    (root / "few" / "split.json").write_text(json.dumps(data.draw(grafted(split))))
    try:
        open_set(root, shots=-1)
    except UserError as error:
        one_message(error)


@given(data=st.data())
def test_a_damaged_split_is_read_or_refused(data_folder, data):
    root, split = data_folder
    (root / "few" / "split.json").write_bytes(data.draw(damaged(json.dumps(split).encode())))
    try:
        open_set(root, shots=-1)
    except UserError as error:
        one_message(error)


@given(data=st.data())
def test_other_content_of_a_record_is_used_or_refused(data_folder, data):
    root, split = data_folder
    (root / "few" / "split.json").write_text(json.dumps(split))
    record = root / "few" / "split_fewshot" / "shot_2-seed_1.json"
    record.unlink(missing_ok=True)
    open_set(root)
    changed = {**json.loads(record.read_text()), "after_making_split": data.draw(st.booleans())}
    record.write_text(json.dumps(data.draw(grafted(changed))))
    try:
        open_set(root)
    except UserError as error:
        one_message(error)


@given(text=TEXTS | JUNK.map(json.dumps))
def test_any_json_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        read_json(path)
    except UserError as error:
        one_message(error)


SMALL = make_small_clip()


@given(names=st.lists(TEXTS | st.sampled_from(CLASSES), min_size=1, max_size=5))
def test_any_class_names_are_read_or_refused(names):
    cfg = get_cfg_default()
    try:
        tokens = tokenize([f"a photo of a {name}." for name in names], truncate=True)
        assert tokens.shape == (len(names), 77) and tokens.max() < SMALL.vocab_size
        features = ContextCLIP(SMALL, names, OPTIONS).text_features()
        assert features.shape[0] == len(names) and features.isfinite().all()
    except UserError as error:
        one_message(error)
    cfg.TEST.PER_CLASS_RESULT = True
    evaluator = build_evaluator(cfg, lab2cname=dict(enumerate(names)))
    evaluator.process(torch.eye(len(names)), torch.arange(len(names)))
    assert evaluator.evaluate()["accuracy"] == 100


def picture(kind, mode):
    file = io.BytesIO()
    Image.linear_gradient("L").resize((17, 11)).convert(mode).save(file, kind)
    return file.getvalue()


PICTURES = [
    picture(kind, mode)
    for kind, modes in {
        "PNG": ("RGB", "P", "L", "RGBA", "1"),
        "JPEG": ("RGB", "L", "CMYK"),
        "GIF": ("P",),
        "BMP": ("RGB",),
        "TIFF": ("RGB", "L"),
        "WEBP": ("RGB",),
        "PPM": ("RGB",),
        "ICO": ("RGB",),
        "TGA": ("RGB",),
        "PCX": ("RGB",),
        "DDS": ("RGB",),
        "SGI": ("RGB",),
    }.items()
    for mode in modes
]


@given(data=st.data())
def test_a_damaged_image_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "picture"
    path.write_bytes(data.draw(st.sampled_from(PICTURES).flatmap(damaged)))
    try:
        assert read_image(path).mode == "RGB"
    except UserError as error:
        one_message(error)
