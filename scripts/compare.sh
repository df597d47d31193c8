#!/usr/bin/env bash
# All methods side by side, from base to new classes, and whether RPO's differences from the others are real:
#   [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/compare.sh [DATASET ...] [OPTION ...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ -z "${DATA:-}" && $# -eq 0 ]]; then
    set -- digits roman_numerals braille # one alone is too little to tell anything
fi
bash "$here/run.sh" base2new "" "$@"
exec bash "$here/dassl.sh" results "${OUTPUT:-$here/../output}/base2new" --statistics RPO
