#!/usr/bin/env bash
# RPO over ten seeds: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/rpo/variance.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" variance RPO "$@"
