#!/usr/bin/env bash
# The default methods side by side, from base to new classes, whether RPO's differences from the others are real, and a page:
#   [DATA=FOLDER] [OUTPUT=FOLDER] [SEEDS="1 2 3"] bash scripts/compare.sh [DATASET ...] [OPTION ...]
# A DATASET is a name, or a folder, CSV file, or yaml file of your own pictures.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
output="${OUTPUT:-$here/../output}/base2new"
if [[ -z "${DATA:-}" && ($# -eq 0 || $1 == -*) ]]; then
    set -- digits roman_numerals braille "$@" # a single dataset is too little for statistics
fi

status=0
bash "$here/run.sh" base2new "" "$@" || status=$?
for word in "$@"; do
    [[ $word != --dry-run && $word != --help && $word != -h ]] || exit "$status"
done
# 1: some runs failed, the others are compared; more: the call was wrong, or it was stopped
[[ $status -le 1 ]] || exit "$status"
against=RPO
[[ " $* " != *" --trainers "* || " $* " == *" RPO "* ]] || against= # every pair
bash "$here/dassl.sh" results "$output" --statistics ${against:+"$against"} || status=$?
echo
bash "$here/dassl.sh" report "$output" --checkout "$here/.." || status=$?
exit "$status"
