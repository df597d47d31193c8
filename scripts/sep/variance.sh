#!/usr/bin/env bash
# SEP over ten seeds: [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/sep/variance.sh [DATASET ...]
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run.sh" variance SEP "$@"
