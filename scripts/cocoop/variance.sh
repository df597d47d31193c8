#!/usr/bin/env bash
# CoCoOp over ten seeds: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/cocoop/variance.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" variance CoCoOp "$@"
