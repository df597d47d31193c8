"""Data: datasets, transforms, samplers and loaders."""

from dassl.data.data_manager import UNREADABLE, DataManager, DatasetWrapper, build_data_loader
from dassl.data.feature_loader import with_features, with_views
from dassl.data.templates import prompt_template

__all__ = [
    "UNREADABLE",
    "DataManager",
    "DatasetWrapper",
    "build_data_loader",
    "prompt_template",
    "with_features",
    "with_views",
]
