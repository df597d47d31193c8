"""Verbs, help and exit status of the `dassl` command. Each verb has a file of its own beside this one.

Exit status: 0 all is well; 1 a run failed; 2 bad input; 130 Ctrl-C; 143 SIGTERM. A script's own is passed
on.
"""

import difflib
import errno
import importlib
import signal
import sys

from basics import Stopped, StopSignals, UserError, drop, notify
from dassl import __version__
from dassl.config import is_text
from promptlearn.cli.script import run_script
from promptlearn.experiments import PROTOCOLS

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
LONGEST_NAME = 100  # letters of a file's name in a message

HELP = """\
usage: dassl COMMAND ...

Few-shot prompt learning on frozen CLIP. Call it from the checkout, where train.py and configs/ are.

commands:
  SCRIPT.py ...           run a script as `python SCRIPT.py ...` would
  base2new                train on the base classes, test on base and new classes
  few_shot                all classes, 1 to 16 shots
  cross_dataset           train on a source, test on other data sets
  domain_generalization   train on a source, test on its shifts
  variance                base2new with ten seeds: the spread
  ablation                base2new with a method's settings varied
  data                    the data sets: list, prepare (download), verify, stats
  results                 the tables of all that is there, and whether the differences are real
  report                  an HTML page of all that is there, with charts and a look into the models
  doctor                  look at packages, GPU, weights, data sets and disks, and say what to do

examples:
  dassl base2new
      every method on handwritten digits with the built-in tiny CLIP; nothing is downloaded
  dassl few_shot --trainers RPO --datasets letters braille
      one method on other built-in data sets
  dassl base2new --trainers RPO CoOp --datasets oxford_pets --data ~/data
      the real thing, ViT-B/16 with the released hyper-parameters
  dassl base2new --trainers RPO --datasets oxford_pets --data ~/data --dry-run
      one `python train.py ...` line for each run that is not done yet, for a cluster
  dassl data prepare oxford_pets dtd --root ~/data
      download, check and unpack two data sets
  dassl ablation --trainers RPO --vary TRAINER.RPO.K 1 4 16
      one setting after the other
  dassl results output --statistics
      the tables of all that is there, finished or not, and tests of the differences
  dassl report output
      all that on a page to look at
  dassl train.py --trainer RPO --dataset-config-file configs/datasets/digits.yaml \\
      --config-file configs/trainers/RPO/tiny.yaml --seed 1 DATASET.NUM_SHOTS 16
      a single run

`dassl COMMAND --help` has the options of a command. `dassl --version` prints the version.
"""

# verb -> its file beside this one
VERBS = {**dict.fromkeys(PROTOCOLS, "protocol"), **{name: name for name in ("data", "doctor", "results", "report")}}


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: sys.argv[1:]) and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        for word in argv:
            if not is_text(word):
                raise UserError(f"{word!r} is not valid Unicode or holds a zero byte")
        with StopSignals(patient=False):
            status = dispatch(argv)
            sys.stdout.flush()  # what cannot be written is told here, not by the interpreter at its end
            return status
    except Stopped as stop:
        notify(f"{stop}; the same command goes on from here")
        return stop.status
    except UserError as error:
        notify(f"error: {error}")
        return 2
    except BrokenPipeError:  # nobody reads on, as in `dassl results | head`
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
        notify(f"error: cannot use {what}: {error.strerror}")
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
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, [*VERBS, "train.py"], n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise UserError(f"unknown command {verb!r}; {hint}there are: {', '.join(VERBS)}, or a script such as train.py")
    # Imported here: some import packages that take seconds, and no verb should wait for another's.
    file = importlib.import_module(f"promptlearn.cli.{VERBS[verb]}")
    return file.run(PROTOCOLS[verb], arguments) if verb in PROTOCOLS else file.run(arguments)
