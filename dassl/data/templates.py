"""Text templates: where the class name goes in a prompt."""

from basics import UserError


def prompt_template(text: str) -> str:
    """Return a text template with ``{}`` for the class name.

    A text without ``{}`` has ``_`` in its place; as in the released RPO code, each ``_`` stands for the class name.

    Raises:
        UserError: the text has neither.
    """
    template = text if "{}" in text else text.replace("_", "{}")
    if "{}" not in template:
        raise UserError(f"DATASET.PROMPT: expected a text with {{}} for the class name, got {text!r}.")
    return template
