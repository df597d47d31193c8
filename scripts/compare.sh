#!/usr/bin/env bash
# All methods side by side, from base to new classes, and whether their differences are real:
#   [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/compare.sh [DATASET ...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bash "$here/run.sh" base2new "" "$@"
exec bash "$here/dassl.sh" results "${OUTPUT:-$here/../output}/base2new" --statistics
