"""Random numbers: one seed per run, one stream per purpose."""

import hashlib
import json
import random
import secrets

import numpy as np
import torch

from basics import notify


def set_random_seed(seed):
    """Seed Python's, numpy's and torch's global generators (torch: CPU and all GPUs)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def sample_seed() -> int:
    """Return a seed for a run that was given none, from the system's entropy, and print it."""
    seed = secrets.randbelow(2**31)
    notify(f"No seed given; sampled: {seed}")
    return seed


def stream(seed, purpose, *keys):
    """Return a separate generator for one purpose, so that random numbers added in one place change nothing elsewhere.

    Args:
        seed (int): the run's seed.
        purpose (str): such as "order".
        keys: numbers or strings that distinguish streams of one purpose, such as the epoch.

    Returns:
        torch.Generator: on the CPU, seeded from the SHA-256 of all arguments.
    """
    digest = hashlib.sha256(json.dumps([seed, purpose, *keys]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def get_random_state():
    """Return the state of all global generators as tensors and plain numbers, to be saved without pickled objects."""
    kind, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert isinstance(words, np.ndarray)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.tensor(words.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state):
    """Restore what `get_random_state` returned; the GPUs' part only if their number is the same."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
