"""Errors that a user can fix. The message is all the user sees: what was expected, what was found, and what to do."""

import errno


class UserError(Exception):
    """A user's mistake. The command prints the message, without a traceback, and exits with `status`."""

    status = 2

    def __str__(self):
        text = super().__str__()
        if text.startswith("Caught ") and "Original Traceback" in text:
            # torch raises the error of a data loader's worker again, with the worker's traceback in the message.
            return text.rstrip().rpartition(f"{type(self).__name__}: ")[2]
        return text


class Reported(UserError):
    """A mistake that another process has already reported on this console; nothing is left to print."""


class MissingFile(UserError, FileNotFoundError):
    """A file that the user named or that a command needs does not exist."""


class BadImage(UserError):
    """A file exists but is not a readable image."""


class NotApplicable(UserError):
    """The request is valid, but the method has no answer: it is bound to other classes."""


class NonFiniteLoss(UserError, FloatingPointError):
    """The loss became infinite or NaN."""


FULL = "Free some space, or choose another folder."
DENIED = "Change its permissions, or choose another path."
ADVICE = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EACCES: DENIED, errno.EPERM: DENIED, errno.EROFS: DENIED}


def explain_os_error(path, expected, error):
    """Turn an OSError into a UserError: `<path>: expected X, got an error: <reason>. <what to do>.`

    Args:
        path: of the file or folder.
        expected (str): such as "a writable file".
    """
    advice = ADVICE.get(error.errno, "Check the path, its permissions, and the free space.")
    return UserError(f"{path}: expected {expected}, got an error: {error.strerror or error}. {advice}")


EXTRAS = {
    **{"optuna": "tune", "onnx": "export", "onnxruntime": "export", "onnxscript": "export"},
    **{"starlette": "serve", "uvicorn": "serve", "python_multipart": "serve", "submitit": "slurm"},
    "ray": "ray",
}


def explain_missing_package(error):
    """Turn the ImportError of a package that an extra installs into a UserError that names the extra.

    Args:
        error (ModuleNotFoundError): any other package's is raised again.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        raise error
    return UserError(
        f"{package}: expected to be installed, got nothing. Run: pip install 'promptlearn-clip[{EXTRAS[package]}]'"
    )
