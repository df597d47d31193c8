"""Helpers that do not depend on models or datasets."""

from basics import mkdir_if_missing, read_json, write_json
from dassl.utils.images import MAX_MEGAPIXELS, is_image, read_image
from dassl.utils.logger import Logger, setup_logger
from dassl.utils.memory import free_memory, keep_freed_memory, return_freed_memory
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import Registry, UnknownName, file_of
from dassl.utils.seeds import get_random_state, sample_seed, set_random_seed, set_random_state, stream
from dassl.utils.tools import (
    available_cores,
    check_availability,
    check_isfile,
    collect_env_info,
    device_name,
    get_most_similar_str_to_a_from_b,
    in_threads,
    listdir_nohidden,
    tolist_if_not,
)
from dassl.utils.torchtools import (
    count_num_param,
    init_network_weights,
    last_checkpoint,
    load_checkpoint,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
    save_tensors,
)

__all__ = [
    "MAX_MEGAPIXELS",
    "AverageMeter",
    "Logger",
    "MetricMeter",
    "Registry",
    "UnknownName",
    "available_cores",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "device_name",
    "file_of",
    "free_memory",
    "get_most_similar_str_to_a_from_b",
    "get_random_state",
    "in_threads",
    "is_image",
    "init_network_weights",
    "keep_freed_memory",
    "last_checkpoint",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "open_all_layers",
    "open_specified_layers",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "return_freed_memory",
    "sample_seed",
    "save_checkpoint",
    "save_tensors",
    "set_random_seed",
    "set_random_state",
    "setup_logger",
    "stream",
    "tolist_if_not",
    "write_json",
]
