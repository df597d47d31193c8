"""A checkout whose train.py only records its arguments: enough to test what starts runs and reads results."""

import json
import shutil
from pathlib import Path

FAKE_TRAIN = """
import json, os, pathlib, sys, time

arguments = sys.argv[1:]
value = lambda flag: arguments[arguments.index(flag) + 1] if flag in arguments else None
here = pathlib.Path(__file__).parent
output = pathlib.Path(value("--output-dir"))
with open(here / "calls.txt", "a") as file:
    file.write(json.dumps(arguments) + "\\n")

behavior = json.loads((here / "behavior.json").read_text())
output.mkdir(parents=True, exist_ok=True)
(output / "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
print("printed on stdout")
if any(word in str(output) for word in behavior.get("fail", [])):
    (output / "log.txt").write_text("a log")
    print("error: planted failure", file=sys.stderr)
    sys.exit(behavior.get("status", 1))
without_answer = any(word in str(output) for word in behavior.get("not_applicable", []))
if any(word in str(output) for word in behavior.get("slow", [])):
    (here / "slow.started").write_text("")
    time.sleep(60)
    (here / "slow.ended").write_text("")

if "--explain" in arguments:
    sys.exit("error: there is no model to explain")

trainer, seed, subsample = value("--trainer"), int(value("--seed")), value("DATASET.SUBSAMPLE_CLASSES") or "all"
shots = int(value("DATASET.NUM_SHOTS") or 0)
dataset = pathlib.Path(value("--dataset-config-file")).read_text().split("NAME:")[1].split()[0]
gain = 0 if trainer == "ZeroshotCLIP" else seed + (shots if subsample == "all" else 0)
gain -= 10 * abs(float(value("OPTIM.LR") or 0.1) - 0.1)  # the best learning rate is 0.1
result = {
    "format": 1, "status": "done", "trainer": trainer, "dataset": dataset, "seed": seed, "subsample": subsample,
    "shots": shots, "train_fraction": float(value("DATASET.TRAIN_FRACTION") or 1),
    "prompts_sha256": behavior.get("prompts", "abc"),
    "draw_hash": behavior.get("draws", {}).get(trainer),
    "metrics": {"accuracy": {"base": 90.0, "new": 60.0, "all": 50.0}[subsample] + gain},
}
if without_answer:
    result |= {"status": "n/a", "metrics": None, "prompts_sha256": "of no training"}
(output / "results.json").write_text(json.dumps(result))
sys.exit(2 if without_answer else 0)
"""

CONFIGS = Path(__file__).parents[1] / "configs"
OWN = ("tiny", "one", "two")  # configs of a method "Own", which has no released one


class FakeCheckout:
    """Made in an empty folder `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.output = root / "output"
        (root / "train.py").write_text(FAKE_TRAIN)
        shutil.copytree(CONFIGS, root / "configs")
        for name in OWN:
            self._write(f"configs/trainers/Own/{name}.yaml", "")
        self.behave()

    def _write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def behave(self, **behavior) -> None:
        """Set how runs behave.

        Args:
            fail, slow: words in the output folder of the runs that fail (with `status`) or are slow.
            prompts: their hash.
            draws: trainer -> the hash of its sample.
        """
        self._write("behavior.json", json.dumps(behavior))

    def calls(self) -> list[list[str]]:
        """Return the arguments of each run since the last call."""
        path = self.root / "calls.txt"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        path.unlink()
        return [json.loads(line) for line in lines]
