"""Commands, help, and exit status of `dassl`. Each command has a module of its own in this package.

Exit status: 0 success; 1 a run failed; 2 bad input; 128 + N stopped by signal N (130 Ctrl-C, 143 SIGTERM); that of a
script, if one was run.
"""

import errno
import importlib
import signal
import sys
from contextlib import redirect_stderr
from pathlib import Path

from basics import (
    Reported,
    Stopped,
    StopSignals,
    Tolerant,
    UserError,
    did_you_mean,
    drop,
    explain_missing_package,
    explain_os_error,
    notify,
    open_missing_streams,
)
from basics.additions import is_repository
from dassl import __version__
from dassl.config import is_text
from promptlearn.cli.script import run_script
from promptlearn.experiments import PROTOCOLS, Checkout

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
LONGEST_NAME = 100  # letters of a file's name in a message

HELP = """\
usage: dassl COMMAND ...

Few-shot prompt learning on frozen CLIP. Run it in any folder: methods, datasets, and configs are installed, and yours
are read from trainers/, datasets/, and configs/ there. In a checkout, the checkout's are used. Output goes to output/.

commands:
  fit                     train a classifier on your pictures
  predict                 classify pictures with a saved model
  export                  write a saved model to an ONNX file
  serve                   try a saved model in the browser, or use it over HTTP
  train                   train or test one model: `python train.py ...`
  base2new                train on the base classes, test on base and new classes
  few_shot                all classes, with 1 to 16 shots
  cross_dataset           train on one dataset, test on others
  domain_generalization   train on one dataset, test on its domain shifts
  variance                base2new with ten seeds
  ablation                base2new with a method's settings varied
  reproduce               the rows of a paper's table, next to the published figures
  tune                    search settings of a method on validation images
  data                    list, prepare (download), and verify datasets
  results                 print the tables of any folders of runs, and tests of the differences
  report                  write an HTML page with charts and a look into the models
  figures                 write the report's charts for a paper, as PDF, SVG, or PNG
  doctor                  check packages, GPU, weights, datasets, and disks
  completion              print a script that completes commands in bash, zsh, or fish
  SCRIPT.py               run a script as `python SCRIPT.py ...` does

examples:
  dassl base2new
      compare every method on handwritten digits with the built-in tiny CLIP; downloads nothing
  dassl few_shot --trainers RPO --datasets letters braille
      one method on other built-in datasets
  dassl base2new --trainers RPO CoOp --datasets oxford_pets --data ~/data
      ViT-B/16 with the released hyperparameters
  dassl base2new --trainers RPO CoOp --datasets photos/ birds.csv other=my.yaml
      pictures of your own: folders of class folders, CSV files, yaml files
  dassl base2new --trainers RPO --datasets oxford_pets --data ~/data --dry-run
      print one `python train.py ...` line per unfinished run, for a cluster
  dassl data prepare oxford_pets dtd --root ~/data
      download, check, and unpack two datasets
  dassl ablation --trainers RPO --vary TRAINER.RPO.K 1 4 16
      vary one setting
  dassl reproduce rpo --table 1 --data ~/data
      run the rows of RPO's table 1, and print them next to the published figures
  dassl results output --statistics
      tables of all results so far, with tests of the differences
  dassl train --trainer RPO --dataset-config-file configs/datasets/digits.yaml \\
      --config-file configs/trainers/RPO/tiny.yaml --seed 1 DATASET.NUM_SHOTS 16
      a single run

`dassl COMMAND --help` lists the options of a command. `dassl --version` prints the version.
"""

# command -> its module in this package
OTHERS = ("reproduce", "fit", "predict", "export", "serve", "tune", "data")
OTHERS += ("results", "report", "figures", "doctor", "completion")
VERBS = {**dict.fromkeys(PROTOCOLS, "protocol"), **{name: name for name in OTHERS}}


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv[1:]) and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    open_missing_streams()
    with redirect_stderr(Tolerant(sys.stderr, needs_reader=False)):  # progress and errors; the work does not need them
        return run(argv)


def run(argv: list[str]) -> int:
    """Run a command line, and turn what goes wrong into a message and an exit status."""
    try:
        for word in argv:
            if not is_text(word):
                raise UserError(f"{word!r}: expected valid Unicode without zero bytes, got something else.")
        with StopSignals(patient=False):
            status = dispatch(argv)
            sys.stdout.flush()  # an output that cannot be written is reported here, not by the interpreter at exit
            return status
    except Stopped as stop:
        notify(f"{stop}. Run the same command to resume from here.")
        return stop.status
    except Reported as error:
        return error.status
    except UserError as error:
        notify(f"error: {error}")
        return error.status
    except ModuleNotFoundError as error:
        notify(f"error: {explain_missing_package(error)}")
        return 2
    except BrokenPipeError:  # the reader is gone, as in `dassl results | head`
        drop(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is not None:
            what = repr(str(error.filename)[:LONGEST_NAME])
        elif error.errno in NO_SPACE:
            what = "the output"
            drop(sys.stdout)
        else:
            raise
        notify(f"error: {explain_os_error(what, 'an accessible file', error)}")
        return 2


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        print(f"dassl {__version__}")
        return 0
    verb, arguments = argv[0], argv[1:]
    if verb.endswith(".py"):
        return run_script(verb, arguments)
    if verb == "train":
        own = is_repository(Path.cwd())  # perhaps of the CoOp family, with a train.py that is not ours
        return run_script("train.py" if own else str(Checkout().root / "train.py"), arguments)
    if verb not in VERBS:
        hint = did_you_mean(verb, [*VERBS, "train"])
        raise UserError(
            f"unknown command {verb!r}.{hint} Expected train, {', '.join(VERBS)}, or a script such as train.py."
        )
    # Imported here, because some commands import slow packages that the others do not need.
    file = importlib.import_module(f"promptlearn.cli.{VERBS[verb]}")
    return file.run(PROTOCOLS[verb], arguments) if verb in PROTOCOLS else file.run(arguments)
