#!/usr/bin/env bash
# VPT over ten seeds: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/vpt/variance.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" variance VPT "$@"
