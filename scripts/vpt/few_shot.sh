#!/usr/bin/env bash
# VPT with 1 to 16 shots: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/vpt/few_shot.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" few_shot VPT "$@"
