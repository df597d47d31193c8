"""Mistakes that a user can mend. Their message is all the user gets to see: what was expected, found, what to do."""


class UserError(Exception):
    """A mistake of the user. The command line prints the message and ends with status 2, without a traceback."""

    def __str__(self):
        text = super().__str__()
        if text.startswith("Caught ") and "Original Traceback" in text:
            # torch raises anew what happened in a loader's worker, with that worker's traceback in the message.
            return text.rstrip().rpartition(f"{type(self).__name__}: ")[2]
        return text


class MissingFile(UserError, FileNotFoundError):
    """A file that the user named, or that a command needs, is not there."""


class BadImage(UserError):
    """A file that is there, but is no image that can be read."""


class NonFiniteLoss(UserError, FloatingPointError):
    """The loss became infinite or NaN."""
