#!/usr/bin/env bash
# CoCoOp trained on one data set, tested on others: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/cocoop/cross_dataset.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" cross_dataset CoCoOp "$@"
