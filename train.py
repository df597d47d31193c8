"""Train or test a method, with CoOp's flags: config -> trainer -> train or test.

Exit status: 0 success; 1 a defect, with a traceback; 2 bad input, or out of memory or disk; 75 another process works in
the folder; 128 + N stopped by signal N (130 Ctrl-C, 143 SIGTERM).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from basics import (
    Stopped,
    StopSignals,
    Tolerant,
    UserError,
    did_you_mean,
    drop,
    explain_missing_package,
    flush_or_drop,
    known_spelling,
    log,
    next_lines,
    notify,
    open_missing_streams,
    stop_without_parent,
)
from basics.additions import find_config, has_additions
from dassl.config import FREE_TO_CHANGE, decode, flatten, get_cfg_default, merge_valid, read_yaml
from dassl.config.declared import NotDeclared, declare_keys, registered_names
from dassl.config.family import add_missing_nodes, translate

if TYPE_CHECKING:
    from yacs.config import CfgNode

# torch, the methods, and the datasets are imported only when there is something to run, so help and refusals are fast.
# Set before torch is imported: threads that spin while they wait slow small steps to a crawl on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ALIKE = 10.0  # seconds within which all processes end that fail for one reason

ROOT = Path(__file__).resolve().parent
CONFIGS = ROOT / "configs"
TRAIN = ["python", "train.py"] if Path.cwd() == ROOT else ["dassl", "train"]  # the command that runs this file

INPUT_OF_BACKBONE = ("INPUT.SIZE", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD")
# Flags that stand for keys. --device cpu stands for USE_CUDA False.
SHORT_FLAGS = {
    "--epochs": "OPTIM.MAX_EPOCH",
    "--lr": "OPTIM.LR",
    "--batch-size": "DATALOADER.TRAIN_X.BATCH_SIZE",
    "--shots": "DATASET.NUM_SHOTS",
    "--classes": "DATASET.SUBSAMPLE_CLASSES",
    "--device": "USE_CUDA",
}

EXAMPLES = """\
examples:
  python train.py --trainer RPO                     the built-in demo: real digits, a tiny CLIP, no GPU, no downloads
  python train.py --trainer CoOp --dataset-config-file configs/datasets/braille.yaml --seed 1
  python train.py --trainer RPO --root DATA --dataset-config-file configs/datasets/oxford_pets.yaml \\
      --config-file configs/trainers/RPO/main_K24.yaml --seed 1 --output-dir output/pets/seed1 \\
      --shots 16 --classes base
  python train.py --eval-only --model-dir output/pets/seed1 --output-dir output/pets_new/seed1 --classes new
  python train.py --trainer RPO --find-lr           a learning rate to try, and lr_finder.csv

The same command resumes an interrupted run; --no-resume starts over in another folder. The keys are documented in
dassl/config/defaults.py and at the top of each method's file in trainers/."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="train.py",
        description="Train or test a prompt-learning method on CLIP.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--trainer", default="", help=f"the method: {', '.join(known_names('trainers'))}")
    p.add_argument("--config-file", default="", help="the method's settings: configs/trainers/METHOD/*.yaml")
    p.add_argument("--dataset-config-file", default="", help="the dataset: configs/datasets/*.yaml")
    p.add_argument("--root", default="", help="folder that holds the datasets (default: the built-in demo)")
    p.add_argument("--output-dir", default="", help="folder of this run: log, checkpoints, results")
    p.add_argument("--seed", type=int, default=-1, help="0 or more (default: sampled and printed)")
    p.add_argument("--epochs", type=int, help="OPTIM.MAX_EPOCH")
    p.add_argument("--lr", type=float, help="OPTIM.LR")
    p.add_argument("--batch-size", type=int, help="DATALOADER.TRAIN_X.BATCH_SIZE")
    p.add_argument("--shots", type=int, help="DATASET.NUM_SHOTS: training images per class; -1 for all")
    p.add_argument("--classes", choices=("all", "base", "new"), help="DATASET.SUBSAMPLE_CLASSES")
    p.add_argument("--device", choices=("cpu", "cuda"), help="USE_CUDA (default: the GPU if there is one)")
    p.add_argument("--backbone", default="", help='"ViT-B/16", "ViT-B-16/TAG", "hf-hub:NAME", a file, "tiny"')
    p.add_argument("--eval-only", action="store_true", help="test only: the model in --model-dir, with its config")
    p.add_argument("--model-dir", default="", help="a trained run: its folder, its checkpoint folder, or a file in it")
    p.add_argument("--explain", action="store_true", help="with --eval-only: explain the model instead of testing it")
    p.add_argument("--load-epoch", type=int, help="its epoch (default: the best one saved, else the last)")
    p.add_argument("--resume", default="", help="folder of another run to resume from")
    p.add_argument("--no-resume", action="store_true", help="start over, in a new folder if --output-dir is in use")
    p.add_argument("--find-lr", action="store_true", help="do not train, but look for a learning rate")
    p.add_argument("--no-train", action="store_true", help="build everything, but do not train")
    p.add_argument("--source-domains", nargs="+", help="for datasets with domains")
    p.add_argument("--target-domains", nargs="+", help="for datasets with domains")
    p.add_argument("--transforms", nargs="+", help="training transforms, instead of the configured ones")
    p.add_argument("--head", default="", help="MODEL.HEAD.NAME")
    p.add_argument("--verbose", action="store_true", help="print all that log.txt gets: config, every line of training")
    p.set_defaults(demo="", sampled_seed=None)
    p.add_argument("opts", nargs="*", help="other settings, as KEY VALUE or KEY=VALUE")
    return p


def split_pairs(words: list[str]) -> list[str]:
    """Split each KEY=VALUE into KEY VALUE. A value may contain "=" itself."""
    pairs: list[str] = []
    for word in words:
        at_key = len(pairs) % 2 == 0
        pairs += word.split("=", 1) if at_key else [word]
    return pairs


def known_names(package: str) -> list[str]:
    """Return the names that the files of `package`, which is trainers or datasets, register."""
    if package not in sys.modules and not has_additions(package):
        with suppress(NotDeclared):
            return registered_names(ROOT / package)
    importlib.import_module(package)
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    return sorted((TRAINER_REGISTRY if package == "trainers" else DATASET_REGISTRY).registered_names())


def extend_cfg(cfg: CfgNode) -> None:
    """Add the keys that the methods declare, and the CoOp family's."""
    if "trainers" not in sys.modules and not has_additions("trainers"):
        with suppress(NotDeclared):
            declare_keys(cfg, ROOT / "trainers")
            return add_missing_nodes(cfg)
    import trainers

    trainers.extend_cfg(cfg)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """Merge the defaults, the dataset's file, the method's file, the flags, and the KEY VALUE pairs.

    A test starts from the config of the model's run instead of the defaults.

    Raises:
        UserError: names all misspelled keys and names at once; if there are none, all values out of range.
    """
    cfg = get_cfg_default()
    extend_cfg(cfg)
    args.trainer = known_spelling(args.trainer, known_names("trainers"))
    flags = {
        "TRAINER.NAME": args.trainer,
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
        "RESUME": args.resume,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
    }
    opts = [word for key, value in flags.items() if value for word in (key, value)]
    if args.seed >= 0:
        opts += ["SEED", args.seed]
    short, disagreeing = short_flags(args)
    opts += short
    record = recorded_config(args)
    files, opts = config_files(args, demo=record is None), [*opts, *args.opts]
    problems = merge_record(cfg, record, files, opts) if record else []
    problems += merge_valid(cfg, files, opts, partial(translate, args.trainer or cfg.TRAINER.NAME))
    problems += disagreeing
    cfg.TRAINER.NAME = known_spelling(cfg.TRAINER.NAME, known_names("trainers"))
    if args.seed < -1:
        problems.append(f"--seed: expected 0 or more, got {args.seed}. Leave it out to sample one.")
    methods, datasets = known_names("trainers"), known_names("datasets")
    for key, kind, name, known in (
        ("--trainer", "method", cfg.TRAINER.NAME, methods),
        ("DATASET.NAME", "dataset", cfg.DATASET.NAME, datasets),
    ):
        if name and name not in [*methods, *datasets]:  # either folder may register either
            hint = did_you_mean(name, known)
            problems.append(f"{key}: unknown {kind} {name!r}.{hint} Expected one of: {', '.join(known)}.")
    if problems:
        raise UserError("\n".join(problems))
    follow_backbone(cfg, (str(record), *files) if record else files, opts)
    check_values(cfg)
    if args.device == "cuda":
        require_gpu()
    folder_given = "OUTPUT_DIR" in opts
    was_sampled = cfg.SEED < 0
    if was_sampled:
        cfg.SEED = find_seed(cfg.OUTPUT_DIR if folder_given and not args.no_resume else None)
    if not folder_given:
        args.sampled_seed = cfg.SEED if was_sampled else None  # the folder is named after it
        shots = f"shots{cfg.DATASET.NUM_SHOTS}" if cfg.DATASET.NUM_SHOTS > 0 else "all_shots"
        if cfg.DATASET.TRAIN_FRACTION < 1:
            shots = f"fraction{cfg.DATASET.TRAIN_FRACTION}"
        what = f"{cfg.DATASET.SUBSAMPLE_CLASSES}_{shots}" + ("_tested" if record else "")
        cfg.OUTPUT_DIR = os.path.join("output", cfg.DATASET.NAME, cfg.TRAINER.NAME, what, f"seed{cfg.SEED}")
    cfg.freeze()
    return cfg


def short_flags(args: argparse.Namespace) -> tuple[list, list[str]]:
    """Return KEY VALUE words for the flags that stand for keys, and a line for each that disagrees with its key."""
    words: list = []
    problems, given = [], dict(zip(args.opts[::2], args.opts[1::2], strict=False))
    for flag, key in SHORT_FLAGS.items():
        value = getattr(args, flag[2:].replace("-", "_"))
        if value is None:
            continue
        value = value == "cuda" if flag == "--device" else value
        words += [key, value]
        if key in given and decode(given[key]) != value:
            problems.append(f"{flag}, {key}: expected one value, got {value} and {given[key]}. Leave one of them out.")
    return words, problems


def follow_backbone(cfg: CfgNode, files: tuple[str, ...], opts: list) -> None:
    """Take the size of images, and the mean and deviation of their pixels, from the backbone, unless they are set.

    A config file sets them for the backbone that it names; on the command line they are set for any backbone.
    """
    name, of_file, kept = cfg.MODEL.BACKBONE.NAME, dict[str, str](), set(opts[::2])
    for file in filter(None, files):
        settings = flatten(read_yaml(file))
        of_file |= dict.fromkeys(settings, file)
        kept |= settings.keys() if settings.get("MODEL.BACKBONE.NAME", name) == name else set()
    if kept.issuperset(INPUT_OF_BACKBONE):
        return
    from clip import OPENAI_PIXELS, backbone_config, backbone_pixels

    try:
        size, pixels = backbone_config(name).image_size, backbone_pixels(name)
    except UserError:
        return  # the checks report it with the other mistakes
    if pixels is None:  # then those of a file are as likely as others
        kept |= of_file.keys() - {"INPUT.SIZE"}
    mean, std = map(list, pixels or OPENAI_PIXELS)
    for key, value in zip(INPUT_OF_BACKBONE, ((size, size), mean, std), strict=True):
        before, last = flatten(cfg)[key], key.rpartition(".")[2]
        if key in kept or value == before:
            continue
        if key in of_file:
            notify(f"{key}: {value}, as {name} needs, instead of {before} in {of_file[key]}")
        cfg.INPUT[last] = value


def require_gpu() -> None:
    """Refuse --device cuda without a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("--device: expected cpu, because torch finds no GPU here, got cuda. `dassl doctor` says more.")


def check_values(cfg: CfgNode) -> None:
    """Refuse names and values that the engine, the method, or its backbone do not accept; all at once."""
    import datasets  # noqa: F401  (importing it registers the datasets)
    import trainers  # noqa: F401
    from dassl.engine import check_config

    if problems := check_config(cfg):
        raise UserError("\n".join(problems))


def find_seed(folder: str | None) -> int:
    """Return the seed of the run in `folder`, so that it can resume, or else a sampled one."""
    if folder and os.path.isfile(Path(folder) / "config.yaml"):
        config = read_yaml(Path(folder) / "config.yaml")
        seed = config.get("SEED") if isinstance(config, dict) else None
        if isinstance(seed, int) and seed >= 0:
            notify(f"No seed given; using that of the run in {folder}: {seed}")
            return seed
    from dassl.utils import sample_seed

    return sample_seed()


def recorded_config(args: argparse.Namespace) -> Path | None:
    """Return the config.yaml of the run whose model is tested; None if nothing is tested, or there is none."""
    if not (args.eval_only and args.model_dir):
        return None
    given = Path(args.model_dir).expanduser()
    runs = given, given / "run", given.parent, given.parent.parent  # `dassl fit` has it in run/; or a part of a run
    return next((run / "config.yaml" for run in runs if (run / "config.yaml").is_file()), None)


def merge_record(cfg: CfgNode, record: Path, files: tuple[str, str], settings: list) -> list[str]:
    """Merge the config of a model's run, as far as it influences the numbers, and return the mistakes as lines.

    Left out are what a test measures (TEST) and how often a training saves (TRAIN). If the command names another
    dataset, the settings of DATASET are left out, too, except the shots.

    Args:
        files, settings: of the command, which are merged afterwards.
    """
    try:
        recorded = flatten(read_yaml(record))
    except UserError as error:
        return [str(error)]
    command, known = cfg.clone(), flatten(cfg)
    merge_valid(command, files, settings)  # mistakes are reported when it is merged into cfg
    other_dataset = command.DATASET.NAME not in ("", recorded.get("DATASET.NAME"))
    left = FREE_TO_CHANGE - {"DATASET.ROOT"}
    if other_dataset:
        left |= {key for key in known if key.startswith("DATASET.")} - {"DATASET.NUM_SHOTS", "DATASET.TRAIN_FRACTION"}
    kept = {
        key: value for key, value in recorded.items() if key not in left and not key.startswith(("TEST.", "TRAIN."))
    }
    if unknown := kept.keys() - known.keys():
        notify(f"Note: {record}: settings that do not exist here are left out: {', '.join(sorted(unknown))}")
    pairs = [word for key, value in kept.items() if key in known for word in (key, value)]
    notify(f"Using the config of the model's run, {record}, where the command says nothing else")
    return [problem.replace("command line", str(record), 1) for problem in merge_valid(cfg, (), pairs)]


def config_files(args: argparse.Namespace, demo: bool) -> tuple[str, str]:
    """Return the dataset's and the method's config file.

    Sets `args.demo` to the latter if it is the demo's.

    Args:
        demo: whether they are the demo's without a data folder and a method's file.
    """
    dataset_file, config_file = (find_config(file, CONFIGS) for file in (args.dataset_config_file, args.config_file))
    given = args.opts[::2]
    own = args.root or config_file or args.backbone or "DATASET.ROOT" in given or "MODEL.BACKBONE.NAME" in given
    if own or not demo:
        return dataset_file, config_file
    if (
        args.eval_only
        and os.path.exists(os.path.expanduser(args.model_dir))
        and not dataset_file
        and "DATASET.NAME" not in given
    ):
        raise UserError(
            f"{args.model_dir}: expected a model in a run's folder, with its config.yaml, got one without. Give "
            "--dataset-config-file and --config-file, so that the model is tested on the classes that you mean."
        )
    demo_file = f"configs/trainers/{args.trainer}/tiny.yaml"
    found = find_config(demo_file, CONFIGS)
    if not args.trainer or not os.path.isfile(found):
        return dataset_file, config_file  # an unknown method is reported with the other mistakes
    if not dataset_file and "DATASET.NAME" not in given:
        dataset_file = find_config("configs/datasets/digits.yaml", CONFIGS)
    args.demo = demo_file
    return dataset_file, found


def run(args: argparse.Namespace) -> None:
    if args.eval_only and args.model_dir and not os.path.exists(os.path.expanduser(args.model_dir)):
        raise UserError(
            f'--model-dir: expected a trained run or one of its checkpoints, got "{args.model_dir}", which does not '
            "exist."
        )
    cfg = setup_cfg(args)
    from dassl.engine import distributed, explain_failures, explain_run, fresh_folder, run_folder

    if args.explain and not args.eval_only:
        raise UserError("--explain: expected --eval-only and --model-dir too, got neither. Add them.")
    if args.find_lr and (args.eval_only or args.no_train):
        raise UserError("--find-lr: expected neither --eval-only nor --no-train, got one of them. Leave it out.")
    if args.no_resume:
        if cfg.RESUME:
            raise UserError("--resume, --no-resume: expected at most one of them, got both. Leave one out.")
        cfg.defrost()
        cfg.OUTPUT_DIR = str(fresh_folder(cfg.OUTPUT_DIR))
        cfg.freeze()
        notify(f"Starting over in {cfg.OUTPUT_DIR}")
    if distributed.requested() and (args.seed < 0 or args.no_resume or args.find_lr or args.explain):
        raise UserError(
            "torchrun: expected --seed, and neither --no-resume, --find-lr, nor --explain, with several processes. "
            "Change the options, or start one process."
        )
    with distributed.joined(cfg), run_folder(cfg.OUTPUT_DIR), explain_run(cfg), explain_failures(cfg):
        train_or_test(args, cfg)


def train_or_test(args: argparse.Namespace, cfg: CfgNode) -> None:
    import torch

    from dassl.engine import build_trainer
    from dassl.engine.lr_finder import find_lr
    from dassl.engine.summary import next_commands, summarize_run
    from dassl.utils import collect_env_info, set_random_seed, setup_logger
    from trainers.explain import explain

    set_random_seed(cfg.SEED)  # for trainers that use the global random streams; ours have their own
    setup_logger(cfg.OUTPUT_DIR, args.verbose)
    if args.demo:
        print(f"No data folder and no method file given: running the built-in demo with {args.demo}")
    log(f"Setting fixed seed: {cfg.SEED}")
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.deterministic = True  # the same convolution for the same images
        torch.backends.cudnn.allow_tf32 = False  # fp32 is float32, in convolutions too
    log(f"** Config **\n{cfg}\n** Environment **\n{collect_env_info()}")
    trainer = build_trainer(cfg)
    if args.eval_only and not args.model_dir:
        trainer.load_for_test("")  # refuses a method that must be trained, before a summary of its training
    print(summarize_run(trainer, args.model_dir if args.eval_only else None))
    if args.find_lr:
        find_lr(trainer)
    elif args.explain:
        trainer.load_for_test(args.model_dir, epoch=args.load_epoch)
        explain(trainer)
    elif args.eval_only:
        trainer.evaluate(args.model_dir, epoch=args.load_epoch)
        print(f"results in {cfg.OUTPUT_DIR}")
    elif not args.no_train:
        trainer.train()
        print(f"results in {cfg.OUTPUT_DIR}")
        if commands := next_commands(trainer, TRAIN):
            print(next_lines(commands))


def report(error: UserError) -> None:
    """Print an error. Of several processes that torchrun has started, the first one prints those that all have."""
    rank = os.environ.get("RANK", "0")
    if rank == "0":
        notify(f"error: {error}")
    else:
        time.sleep(ALIKE)  # torchrun ends this process now if the first one has failed, too
        notify(f"error in process {rank}: {error}")


def main(argv: list[str] | None = None) -> int:
    open_missing_streams()
    console, sys.stdout = sys.stdout, Tolerant(sys.stdout)
    try:
        args = parser().parse_intermixed_args(argv)
        args.opts = split_pairs(args.opts)
        stop_without_parent()
        with StopSignals(patient=False):
            run(args)
    except UserError as error:
        report(error)
        return error.status
    except ModuleNotFoundError as error:
        notify(f"error: {explain_missing_package(error)}")
        return 2
    except Stopped as stop:
        seed = f" with --seed {args.sampled_seed}" if args.sampled_seed is not None else ""
        notify(f"{stop}. Run the same command{seed} to resume from the last saved state.")
        return stop.status
    except BrokenPipeError:  # the reader is gone, and the run had not opened its log
        drop(console)
        return 128 + signal.SIGPIPE
    finally:
        if not isinstance(sys.stdout, Tolerant):  # the log had replaced it
            sys.stdout.close()
        sys.stdout = console
        flush_or_drop(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
