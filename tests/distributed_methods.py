"""Train methods one after another in this process, or in each of those that torchrun has started; write what came out.

python tests/distributed_methods.py FOLDER METHOD ...
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import datasets  # noqa: E402, F401
import trainers  # noqa: E402
from dassl.config import get_cfg_default  # noqa: E402
from dassl.engine import build_trainer, distributed  # noqa: E402

ROOT = Path(__file__).parents[1]
SETTINGS = ["DATASET.NUM_SHOTS", 2, "OPTIM.MAX_EPOCH", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 6, "SEED", 1]
SETTINGS += ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TEST.BATCH_SIZE", 100, "TRAINER.CLIPLORA.DROPOUT", 0.0]
SETTINGS += ["MODEL.TEXT_BLOCK", "'3'", "MODEL.LINEAR", "torch", "USE_CUDA", False]


def config_of(method, folder):
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    cfg.merge_from_file(ROOT / "configs/datasets/roman_numerals.yaml")
    cfg.merge_from_file(ROOT / f"configs/trainers/{method}/tiny.yaml")
    cfg.merge_from_list([*SETTINGS, "TRAINER.NAME", method, "OUTPUT_DIR", str(folder)])
    cfg.freeze()
    return cfg


def main(folder, *methods):
    folder, found = Path(folder), {}
    with distributed.joined(config_of(methods[0], folder / "start")):
        for method in methods:
            output = folder / f"of_{distributed.size()}" / method / str(distributed.rank())
            trainer = build_trainer(config_of(method, output))
            trainer.train()
            found[method] = {
                "losses": [row["loss"] for row in trainer.record.rows],
                "answers": [(row["label"], row["predicted"]) for row in trainer.evaluator.predictions()],
                "paths": trainer.tested,
            }
        if distributed.rank() == 0:
            (folder / f"{distributed.size()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
