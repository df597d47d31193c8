#!/usr/bin/env bash
# bash scripts/run.sh PROTOCOL METHOD [DATASET ...] [OPTION ...]    (the other scripts call this one)
#
# DATA    the folder that holds the datasets; unset: the built-in demo
# OUTPUT  where runs and tables go (output/ in the checkout)
# SEEDS   such as "1 2 3"; unset: the protocol's (configs/protocols/)
# METHOD "" stands for all. Options are those of `dassl PROTOCOL --help`, such as --dry-run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

protocol=$1
method=$2
shift 2
read -r -a seeds <<< "${SEEDS:-}"
exec bash "$here/dassl.sh" "$protocol" --checkout "$here/.." ${method:+--trainers "$method"} ${seeds:+--seeds "${seeds[@]}"} \
    --data "${DATA:-}" --output "${OUTPUT:-$here/../output}" --datasets "$@"
