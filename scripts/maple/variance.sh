#!/usr/bin/env bash
# MaPLe over ten seeds: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/maple/variance.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" variance MaPLe "$@"
