# For CoOp's and CoCoOp's own commands, as their READMEs have them: source this file, then `run` each seed.
#
# DATA    the folder that holds the datasets; unset: the built-in ones
# OUTPUT  where runs go (output/ in the checkout)
# SEEDS   of scripts that run several (1 2 3)
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
output="${OUTPUT:-$scripts/../output}"
read -r -a seeds <<< "${SEEDS:-1 2 3}"

# expect COUNT "USAGE" "$@": refuse a wrong number of arguments.
expect() {
    if (($# - 2 != $1)); then
        echo "error: expected $1 arguments, got $(($# - 2)). Usage: bash $0 $2" >&2
        exit 2
    fi
}

# run METHOD DATASET CONFIG SEED FOLDER [OPTION ...]: one run of train.py; it resumes what was interrupted.
run() {
    bash "$scripts/dassl.sh" "$scripts/../train.py" ${DATA:+--root "$DATA"} --seed "$4" --trainer "$1" \
        --dataset-config-file "$scripts/../configs/datasets/$2.yaml" \
        --config-file "$scripts/../configs/trainers/$1/$3.yaml" --output-dir "$output/$5" "${@:6}"
}
