"""Make a folder of class folders out of the two photographs that come with scikit-learn, to try image_folder.yaml with.

    python scripts/example_photos.py photos

Five classes, each cut from two regions that do not overlap: one gives the training images, the other the test
images. The photographs: china.jpg by danielbuechele and flower.jpg by vultilion (Flickr), CC BY 2.0.
"""

import argparse
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_image

SIDE, STEP = 48, 16  # pixels of an image, and from one to the next
# class: photograph, region of the training images, region of the test images; left, top, right, bottom in pixels
REGIONS = {
    "open_sky": ("china.jpg", (340, 0, 490, 130), (490, 0, 640, 130)),
    "temple": ("china.jpg", (100, 100, 212, 330), (212, 100, 324, 330)),
    "tree": ("china.jpg", (340, 310, 490, 427), (490, 310, 640, 427)),
    "flower": ("flower.jpg", (190, 105, 430, 225), (190, 225, 430, 345)),
    "leaf": ("flower.jpg", (0, 70, 140, 200), (0, 200, 140, 330)),
}


def main(folder: Path) -> None:
    for name, (photograph, *regions) in REGIONS.items():
        image = Image.fromarray(load_sample_image(photograph))
        for part, (left, top, right, bottom) in zip(("train", "test"), regions, strict=True):
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for y in range(top, bottom - SIDE + 1, STEP):
                for x in range(left, right - SIDE + 1, STEP):
                    image.crop((x, y, x + SIDE, y + SIDE)).save(place / f"{y:03}_{x:03}.png")
    print(f"{sum(1 for _ in folder.glob('*/*/*.png'))} images of {len(REGIONS)} classes in {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where train/ and test/ are made")
    main(parser.parse_args().folder)
