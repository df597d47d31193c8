"""The registry of datasets."""

from basics import log
from dassl.data.datasets.base_dataset import DatasetBase
from dassl.utils import Registry

DATASET_REGISTRY = Registry("DATASET", lambda dataset: dataset.__module__.startswith("datasets."))


def build_dataset(cfg) -> DatasetBase:
    """Return the dataset that ``cfg.DATASET.NAME`` names.

    Raises:
        UserError: no dataset of that name is registered; lists those that are.
    """
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        log(f"Loading dataset: {cfg.DATASET.NAME}")
    return dataset(cfg)
