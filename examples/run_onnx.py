"""Classify pictures with an exported model. Needs onnxruntime, numpy, and Pillow, but not this package.

python examples/run_onnx.py model.onnx picture.jpg ...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
meta = session.get_modelmeta().custom_metadata_map
names, steps = json.loads(meta["classnames"]), json.loads(meta["preprocessing"])
for path in sys.argv[2:]:
    image, side = Image.open(path).convert("RGB"), steps["resize_shorter_side"]
    width, height = (max(side, int(side * length / min(image.size))) for length in image.size)
    image = image.resize((width, height), Image.Resampling[steps["interpolation"].upper()])
    rows, columns = steps["center_crop"]
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    pixels = np.asarray(image.crop((left, top, left + columns, top + rows)), np.float32) / 255
    pixels = (pixels - np.float32(steps["mean"])) / np.float32(steps["std"])
    (logits,) = session.run(["logits"], {"images": pixels.transpose(2, 0, 1)[None]})
    odds = np.exp((logits[0] - logits[0].max()) / float(meta["temperature"]))
    print(f"{path}: {names[odds.argmax()]} {odds.max() / odds.sum():.1%}")
