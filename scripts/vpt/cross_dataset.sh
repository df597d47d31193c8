#!/usr/bin/env bash
# VPT trained on one data set, tested on others: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/vpt/cross_dataset.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" cross_dataset VPT "$@"
