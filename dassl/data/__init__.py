"""Data: data sets, transforms, samplers and loaders."""

from dassl.data.data_manager import UNREADABLE, DataManager, DatasetWrapper, build_data_loader
from dassl.data.feature_loader import with_features
from dassl.data.loader import dead_worker

__all__ = ["UNREADABLE", "DataManager", "DatasetWrapper", "build_data_loader", "dead_worker", "with_features"]
