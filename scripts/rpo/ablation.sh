#!/usr/bin/env bash
# RPO with its settings varied: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/rpo/ablation.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" ablation RPO "$@"
