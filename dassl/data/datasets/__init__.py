"""Datasets: one image (Datum), the lists of a dataset (DatasetBase), few-shot datasets and their registry."""

from dassl.data.datasets.annotations import name_classes, read_annotations, read_classnames, read_mat
from dassl.data.datasets.base_dataset import DatasetBase, Datum, check_images, sample_fewshot
from dassl.data.datasets.build import DATASET_REGISTRY, build_dataset
from dassl.data.datasets.fewshot import FewShotDataset, report_pickle
from dassl.data.datasets.folders import class_folders, list_files, read_class_folders
from dassl.data.datasets.layouts import read_layout
from dassl.data.datasets.names import class_names
from dassl.data.datasets.repeats import doubts
from dassl.data.datasets.splits import read_split, save_split, split_by_class, split_trainval, subsample_classes
from dassl.data.datasets.tables import read_table

__all__ = [
    "DATASET_REGISTRY",
    "DatasetBase",
    "Datum",
    "FewShotDataset",
    "build_dataset",
    "check_images",
    "class_folders",
    "class_names",
    "doubts",
    "list_files",
    "name_classes",
    "report_pickle",
    "read_annotations",
    "read_class_folders",
    "read_classnames",
    "read_layout",
    "read_mat",
    "read_split",
    "read_table",
    "sample_fewshot",
    "save_split",
    "split_by_class",
    "split_trainval",
    "subsample_classes",
]
