"""Helpers that know nothing of models or data sets."""

from dassl.utils.errors import BadImage, MissingFile, NonFiniteLoss, UserError
from dassl.utils.files import cache_dir, mkdir_if_missing, read_json, sweep_litter, write_atomic, write_json
from dassl.utils.images import read_image
from dassl.utils.logger import Logger, drop, setup_logger, tell
from dassl.utils.memory import free_memory, return_freed_memory
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import Registry, UnknownName
from dassl.utils.seeds import get_random_state, set_random_seed, set_random_state, stream
from dassl.utils.stopping import (
    Stopped,
    StopSignals,
    for_this_process,
    leave_signals_to_parent,
    stop_without_parent,
)
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
    "AverageMeter",
    "BadImage",
    "Logger",
    "MetricMeter",
    "MissingFile",
    "NonFiniteLoss",
    "Registry",
    "StopSignals",
    "Stopped",
    "UnknownName",
    "UserError",
    "available_cores",
    "cache_dir",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "device_name",
    "drop",
    "for_this_process",
    "free_memory",
    "get_most_similar_str_to_a_from_b",
    "get_random_state",
    "in_threads",
    "init_network_weights",
    "last_checkpoint",
    "leave_signals_to_parent",
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
    "save_checkpoint",
    "save_tensors",
    "set_random_seed",
    "set_random_state",
    "setup_logger",
    "stop_without_parent",
    "stream",
    "sweep_litter",
    "tell",
    "tolist_if_not",
    "write_atomic",
    "write_json",
]
