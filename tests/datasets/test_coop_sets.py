"""The datasets with a split of the CoOp family, read from small trees with their true layouts and annotations.

Each tree is a function of the DATA folder and `put` that writes it and returns what the dataset is: the rule by which
the original makes its split, [class name, its images] in the order of the labels or first images, and the test images.
Image paths are relative to the folder that the split's paths are relative to.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from basics import UserError
from dassl.data.datasets import build_dataset

# Images of a class, such that rounding half to even matters: 50 % of 13 and 5, 20 % of 13.
COUNTS = (10, 13, 5)
CUT, TRAINVAL = "half, fifth, rest", "a fifth of trainval"


def folders_of(image_dir, names):
    """Create a tree of class folders; `names`: class name by folder, in sorted order."""

    def tree(data, put):
        images = {f: [f"{f}/{n:04}.jpg" for n in range(count)] for f, count in zip(names, COUNTS, strict=False)}
        put(data / image_dir, [image for images in images.values() for image in images])
        return CUT, [(label, names[f], images[f]) for label, f in enumerate(names)], []

    return tree


def caltech101(data, put):
    put(data / "caltech-101/101_ObjectCategories", ["BACKGROUND_Google/a.jpg", "Faces_easy/a.jpg", "tick/.DS_Store"])
    names = {"Faces": "face", "airplanes": "airplane", "tick": "tick"}
    return folders_of("caltech-101/101_ObjectCategories", names)(data, put)


def eurosat(data, put):
    names = ["Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings"]
    names += ["Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"]
    folders = (
        "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
    )
    images = {f: [f"{f}/{f}_{n}.jpg" for n in range(1, 6)] for f in folders.split()}
    put(data / "eurosat/2750", [image for images in images.values() for image in images])
    return CUT, [(n, name, images[f]) for n, (name, f) in enumerate(zip(names, images, strict=True))], []


def oxford_flowers(data, put):
    labels = [3] * 10 + [1] * 6 + [3] * 3 + [2] * 5  # the classes come in the order of their first images
    images = [f"image_{n:05}.jpg" for n in range(1, len(labels) + 1)]
    put(data / "oxford_flowers/jpg", images)
    savemat(data / "oxford_flowers/imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    names = {"1": "pink primrose", "2": "hard-leaved pocket orchid", "3": "canterbury bells"}
    (data / "oxford_flowers/cat_to_name.json").write_text(json.dumps(names))
    numbered = list(zip(images, labels, strict=True))
    return CUT, [(c - 1, names[str(c)], [i for i, label in numbered if label == c]) for c in (3, 1, 2)], []


def stanford_cars(data, put):
    def annotate(path, folder, labels, bbox=("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")):
        images = [f"{n:05}.jpg" for n in range(1, len(labels) + 1)]
        put(data / "stanford_cars" / folder, images)
        path.parent.mkdir(exist_ok=True)
        records = [(*(np.uint16(9),) * 4, np.uint8(c), name) for name, c in zip(images, labels, strict=True)]
        fields = [(name, object) for name in (*bbox, "class", "fname")]
        savemat(path, {"annotations": np.array([records], dtype=fields).reshape(1, -1)})
        return [(f"{folder}/{name}", c - 1) for name, c in zip(images, labels, strict=True)]

    folder = data / "stanford_cars"
    trainval = annotate(folder / "devkit/cars_train_annos.mat", "cars_train", [2] * 10 + [1] * 13 + [2, 3, 3, 3])
    test = annotate(folder / "cars_test_annos_withlabels.mat", "cars_test", [3, 1, 2])
    meta = ["AM General Hummer SUV 2000", "Acura TL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array([meta], dtype=object)})
    names = ["2000 AM General Hummer SUV", "2012 Acura TL Sedan", "2012 Ram C/V Cargo Van Minivan"]
    classes = [(c, names[c], [image for image, label in trainval if label == c]) for c in (1, 0, 2)]
    return TRAINVAL, classes, [(image, c, names[c]) for image, c in test]


def sun397(data, put):
    scenes = {"a/abbey": "abbey", "c/church/indoor": "indoor church", "z/zen_garden": "zen_garden"}
    names = list(scenes.values())
    images = [(f"{s}/sun_{n}.jpg", c) for n in range(6) for c, s in enumerate(scenes)]
    put(data / "sun397/SUN397", [image for image, _ in images])
    trainval, test = images[:15], images[15:]
    for file, lines in (
        ("ClassName.txt", scenes),
        ("Training_01.txt", [image for image, _ in trainval]),
        ("Testing_01.txt", [image for image, _ in test]),
    ):
        (data / "sun397" / file).write_text("".join(f"/{line}\n" for line in lines))
    classes = [(c, names[c], [image for image, label in trainval if label == c]) for c in range(3)]
    return TRAINVAL, classes, [(image, c, names[c]) for image, c in test]


def ucf101(data, put):
    actions = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "HandstandPushups": "Handstand_Pushups", "YoYo": "Yo_Yo"}
    names = list(actions.values())
    videos = [(f"{a}/v_{a}_g{n:02}_c01", c) for n in range(8) for c, a in enumerate(actions)]
    frames = [(f"{names[c]}/{video.split('/')[1]}.jpg", c) for video, c in videos]
    put(data / "ucf101/UCF-101-midframes", [frame for frame, _ in frames])
    lists = data / "ucf101/ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{c} {a}\r\n" for c, a in enumerate(actions, start=1)))
    (lists / "trainlist01.txt").write_text("".join(f"{video}.avi {c + 1}\r\n" for video, c in videos[:15]))
    (lists / "testlist01.txt").write_text("".join(f"{video}.avi\r\n" for video, _ in videos[15:]))
    classes = [(c, names[c], [frame for frame, label in frames[:15] if label == c]) for c in range(3)]
    return TRAINVAL, classes, [(frame, c, names[c]) for frame, c in frames[15:]]


# registered name: its tree, the folder in DATA, the folder that the split's paths are relative to, the split file
SETS = {
    "Caltech101": (caltech101, "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json"),
    "DescribableTextures": (
        folders_of("dtd/images", {"banded": "banded", "cobwebbed": "cobwebbed"}),
        "dtd", "images", "split_zhou_DescribableTextures.json",
    ),
    "EuroSAT": (eurosat, "eurosat", "2750", "split_zhou_EuroSAT.json"),
    "Food101": (
        folders_of("food-101/images", {"apple_pie": "apple_pie", "waffles": "waffles"}),
        "food-101", "images", "split_zhou_Food101.json",
    ),
    "OxfordFlowers": (oxford_flowers, "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json"),
    "StanfordCars": (stanford_cars, "stanford_cars", ".", "split_zhou_StanfordCars.json"),
    "SUN397": (sun397, "sun397", "SUN397", "split_zhou_SUN397.json"),
    "UCF101": (ucf101, "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json"),
}  # fmt: skip


def split_of_the_original(rule, classes, test, rng):
    """List [image, label, class name] as the original splits and saves it, drawing from `rng`."""
    train, val, test = [], [], [list(entry) for entry in test]
    for label, name, images in classes:
        images = [[image, label, name] for image in images]
        rng.shuffle(images)
        if rule == CUT:
            half, fifth = round(0.5 * len(images)), round(0.2 * len(images))
            train += images[:half]
            val += images[half : half + fifth]
            test += images[half + fifth :]
        else:
            fifth = round(0.2 * len(images))
            val += images[:fifth]
            train += images[fifth:]
    return {"train": train, "val": val, "test": test}


def shots_of_the_original(split, shots, rng):
    """Sample train and val entries with `rng` as the original does: K of each class, and min(K, 4)."""
    sampled = {}
    for part, k in (("train", shots), ("val", min(shots, 4))):
        classes = {}
        for entry in split[part]:
            classes.setdefault(entry[1], []).append(entry)
        lists = [rng.sample(entries, k) if len(entries) >= k else entries for entries in classes.values()]
        sampled[part] = [entry for entries in lists for entry in entries]
    return sampled


def entries(items, folder):
    return [[Path(item.impath).relative_to(folder).as_posix(), item.label, item.classname] for item in items]


@pytest.mark.parametrize("name", SETS)
def test_a_created_split_and_its_sample_match_the_original(cfg, tmp_path, put, name):
    tree, folder, image_dir, split_file = SETS[name]
    rng = random.Random(3)
    split = split_of_the_original(*tree(tmp_path, put), rng)
    sampled = shots_of_the_original(split, 2, rng)
    cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS, cfg.SEED = name, 2, 3

    data = build_dataset(cfg)

    images = tmp_path / folder / image_dir
    assert json.loads((tmp_path / folder / split_file).read_text()) == split
    assert entries(data.train_x, images) == sampled["train"]
    assert entries(data.val, images) == sampled["val"]
    assert entries(data.test, images) == split["test"]


@pytest.mark.parametrize("name", SETS)
def test_a_split_file_gives_the_original_sample_without_annotations(cfg, tmp_path, put, name):
    _, folder, image_dir, split_file = SETS[name]
    split = {
        part: [[f"x/{part}_{label}_{n}.jpg", label, f"class {label}"] for label in range(3) for n in range(count)]
        for part, count in (("train", 9), ("val", 5), ("test", 2))
    }
    put(tmp_path / folder / image_dir, [path for part in split.values() for path, _, _ in part])
    (tmp_path / folder / split_file).write_text(json.dumps(split))
    cfg.DATASET.NAME, cfg.DATASET.NUM_SHOTS = name, 8
    sampled = shots_of_the_original(split, 8, random.Random(1))

    data = build_dataset(cfg)

    images = tmp_path / folder / image_dir
    assert entries(data.train_x, images) == sampled["train"] and entries(data.val, images) == sampled["val"]
    assert entries(data.test, images) == split["test"]
    cfg.DATASET.SUBSAMPLE_CLASSES = "new"
    assert entries(build_dataset(cfg).test, images) == [
        [path, 0, name] for path, label, name in split["test"] if label == 2
    ]


def line(text):
    return lambda path: path.write_text(text)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:150])


def not_utf8(path):
    path.write_bytes(b"\xff\xfe")


def rename(path):
    path.rename(path.with_name("elsewhere"))


def keep_three(folder):
    for path in sorted(folder.glob("*.jpg"))[3:]:
        path.unlink()


def variable(**content):
    return lambda path: savemat(path, content)


CLASS_0 = np.array([[(np.uint8(0), "00001.jpg")]], dtype=[("class", object), ("fname", object)])
NO_CLASS = np.array([[("00001.jpg",)]], dtype=[("fname", object)])


@pytest.mark.parametrize(
    ("name", "file", "damage", "message"),
    [
        ("Caltech101", "101_ObjectCategories/tick", keep_three, "class 'tick': expected enough images.* got 3"),
        ("EuroSAT", "2750/River", rename, "10 class folders, got none in 1, first: River"),
        ("Food101", "images", rename, "images: expected a folder of class folders"),
        ("OxfordFlowers", "imagelabels.mat", Path.unlink, "labels.mat: expected a file.*needs it, or the split file"),
        ("OxfordFlowers", "imagelabels.mat", cut_short, "imagelabels.mat: expected a MATLAB file"),
        ("OxfordFlowers", "imagelabels.mat", variable(other=[1]), "expected the variable 'labels'"),
        ("OxfordFlowers", "cat_to_name.json", Path.unlink, "cat_to_name.json.*or the split file"),
        ("OxfordFlowers", "cat_to_name.json", line('{"1": "a"}'), r"names of 3 kinds, got none for 2: \[2, 3\]"),
        ("OxfordFlowers", "cat_to_name.json", line("5"), "cat_to_name.json.*expected names by number, got int"),
        ("OxfordFlowers", "jpg/image_00003.jpg", Path.unlink, "expected 24 image files, got 23.*image_00003.jpg"),
        ("StanfordCars", "cars_test_annos_withlabels.mat", variable(annotations=CLASS_0), "number from 1 to 3"),
        ("StanfordCars", "devkit/cars_train_annos.mat", variable(annotations=NO_CLASS), "element 1.*fname and class"),
        ("StanfordCars", "devkit/cars_meta.mat", Path.unlink, "cars_meta.mat.*needs it, or the split file"),
        ("SUN397", "Testing_01.txt", line("\n/b/bank/sun_1.jpg\n"), "line 2: expected an image in a folder"),
        ("SUN397", "ClassName.txt", line("a/abbey\n"), "ClassName.txt, line 1: expected a scene's folder"),
        ("UCF101", "ucfTrainTestlist/classInd.txt", line("ApplyEyeMakeup\n"), "line 1: expected a number and an"),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", line("Run/v_Run_g01.avi\n"), "line 1: expected an action"),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", not_utf8, "expected a text file in UTF-8"),
    ],
)  # fmt: skip
def test_missing_and_damaged_files_are_named(cfg, tmp_path, put, name, file, damage, message):
    tree, folder, _, split_file = SETS[name]
    tree(tmp_path, put)
    damage(tmp_path / folder / file)
    cfg.DATASET.NAME = name
    with pytest.raises(UserError, match=message):
        build_dataset(cfg)
    assert not (tmp_path / folder / split_file).exists()
