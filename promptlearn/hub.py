"""Saved models on the Hugging Face Hub: download, upload, and the model card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from basics import UserError
from basics.hub import UNREACHABLE, cache_unless, hub_answers
from clip.sources import HUB_PREFIX
from promptlearn.model_files import BACKBONE, CONFIG, TENSORS, Description

CARD = "README.md"
BACKBONE_FILES = (f"{BACKBONE}.*", f"{BACKBONE}/*")
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MOST_CLASSES = 100  # whose accuracies the card lists
PAPERS = {
    "CoOp": "2109.01134",
    "CoCoOp": "2203.05557",
    "MaPLe": "2210.03117",
    "IVLP": "2210.03117",
    "VPT": "2203.12119",
    "SEP": "2405.15549",
    "RPO": "2308.14960",
    "KgCoOp": "2303.13283",
    "ProGrad": "2205.14865",
    "CLIPAdapter": "2110.04544",
    "TaskRes": "2211.10277",
    "TipAdapter": "2207.09519",
    "TipAdapterF": "2207.09519",
    "CLIPLoRA": "2405.18541",
    "MMRL": "2503.08497",
    "TCP": "2311.18231",
    "PromptSRC": "2307.06948",
    "PLOTPP": "2210.01253",
    "LASP": "2210.01115",
    "DePT": "2309.07439",
}
OPENAI_LICENSE = "MIT (OpenAI)"
LICENSES = {"tiny": "MIT (part of this package)", **dict.fromkeys(("ViT-B/16", "ViT-B/32", "ViT-L/14"), OPENAI_LICENSE)}
BASE_MODELS = {
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-L/14": "openai/clip-vit-large-patch14",
}


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name may be that of a repository on the Hub: owner/name, and not an existing path."""
    return bool(HUB_NAME.fullmatch(str(name))) and not Path(name).exists()


def download(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """Download the files of a model, or find them in the Hub's cache, and return their folder.

    Raises:
        UserError: no such repository or revision, no permission, or no network and nothing cached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    files, answers = [CONFIG, TENSORS, *BACKBONE_FILES], hub_answers()
    try:
        with cache_unless(answers):
            return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = brief(error) if answers else UNREACHABLE
        raise UserError(
            f"{name}: expected a folder, or a model on the Hub that can be downloaded, got neither ({reason}). "
            "Check the name and the connection."
        ) from error


def upload(folder: Path, name: str, private: bool, token: str | None, message: str) -> str:
    """Upload the files of a saved model, creating the repository if needed, and return its address.

    Raises:
        UserError: no permission, or no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token)
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        files = [CONFIG, TENSORS, CARD, *BACKBONE_FILES]
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=files, commit_message=message)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{name}: expected a repository on the Hub that you may write to, got an error ({brief(error)}). Log in by "
            "`hf auth login`, or give a token."
        ) from error
    return str(url)


def brief(error: Exception) -> str:
    """Return the kind of an error and its first line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def model_card(description: Description) -> str:
    """Write the model card: what was trained on what, how good it is, and how to use it, with the Hub's metadata."""
    trained = description.trained or {}
    backbone = str(description.settings.get("MODEL.BACKBONE.NAME", "unknown"))
    metadata = ["library_name: promptlearn-clip", "pipeline_tag: image-classification"]
    of_hub = backbone.removeprefix(HUB_PREFIX).partition("@")[0] if backbone.startswith(HUB_PREFIX) else None
    if base_model := BASE_MODELS.get(backbone, of_hub):
        metadata.append(f"base_model: {base_model}")
    metadata += ["tags:", "- clip", "- prompt-learning", "- few-shot"]
    paper = PAPERS.get(description.method)
    method = f"{description.method} ([arXiv:{paper}](https://arxiv.org/abs/{paper}))" if paper else description.method
    names = description.classnames
    shown = ", ".join(names[:20]) + (f", and {len(names) - 20} more" if len(names) > 20 else "")
    facts = {
        "Method": method,
        "Backbone": f"{backbone}, frozen; SHA-256 `{description.weights_sha256[:16]}...`",
        "Backbone's license": LICENSES.get(backbone, "that of its publisher"),
        "Classes": f"{len(names)}: {escaped(shown)}",
        "Text of a class": f"`{description.template}`",
        "Trained on": training_data(trained),
        "Trained parameters": f"{trained['trained_parameters']:,}" if trained.get("trained_parameters") else None,
        "Sample of images": f"`{trained['draw_hash'][:16]}...`" if trained.get("draw_hash") else None,
        "Accuracy": f"{trained['accuracy']:.1f}% of {trained.get('images')} test images"
        if trained.get("accuracy") is not None
        else None,
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items() if value)
    parts = [
        "---\n" + "\n".join(metadata) + "\n---",
        f"# {description.method} on {escaped(str(trained.get('dataset') or 'pictures'))}",
        f"| | |\n|---|---|\n{rows}",
        "## Use it\n\n```python\nfrom promptlearn.classifier import PromptedClassifier\n\n"
        'clf = PromptedClassifier.from_pretrained("this/repository")\nprint(clf.predict("picture.jpg", top_k=3))\n```',
        per_class_table(trained.get("per_class")),
        "## Limits\n\nThe model assigns every picture to one of its classes, also pictures of anything else. Its "
        "figures hold for test images like those above. What CLIP's authors say about its biases and uses applies too.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def training_data(trained: dict[str, Any]) -> str | None:
    """Describe the training data in a few words."""
    if not trained.get("dataset"):
        return None
    shots = trained.get("shots")
    amount = f"{shots} images per class" if isinstance(shots, int) and shots > 0 else "all training images"
    return f"{escaped(str(trained['dataset']))}, {amount}, seed {trained.get('seed')}"


def per_class_table(per_class: object) -> str:
    """Write the accuracy of each class as a table; empty without any."""
    if not isinstance(per_class, dict) or not per_class:
        return ""
    rows = [f"| {escaped(name)} | {accuracy:.1f} |" for name, accuracy in list(per_class.items())[:MOST_CLASSES]]
    more = f"\n\n{len(per_class) - MOST_CLASSES} more classes are not listed." if len(per_class) > MOST_CLASSES else ""
    return "## Accuracy by class, %\n\n| class | accuracy |\n|---|---|\n" + "\n".join(rows) + more


def escaped(text: str) -> str:
    """Write a name so that Markdown shows it literally, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
