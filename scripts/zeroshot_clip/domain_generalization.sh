#!/usr/bin/env bash
# zero-shot CLIP trained on one data set, tested on its shifts: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/zeroshot_clip/domain_generalization.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" domain_generalization ZeroshotCLIP "$@"
