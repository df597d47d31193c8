#!/usr/bin/env bash
# Everything that needs a GPU: bash benchmarks/gpu.sh [check | time [FOLDER]] (default: both, output/gpu)
# check: trains every method on the demo in every precision, JOBS (default 8) at a time, checks that the same command
#        gives the same bytes twice, and runs the tests that need a GPU.
# time:  prints the tables of gpu.py, and profiles RPO's step.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
what=${1:-both}
export out=${2:-output/gpu}
failed=0
mkdir -p "$out"

train() { # METHOD NODE PRECISION NAME
    local run="$out/$4"
    if python train.py --trainer "$1" --seed 1 --output-dir "$run" DATASET.SUBSAMPLE_CLASSES base \
        OPTIM.MAX_EPOCH 5 "TRAINER.$2.PREC" "$3" >"$run.txt" 2>&1; then
        python -c 'import json, sys; r = json.load(open(sys.argv[1])); print(
            *sys.argv[2:], r["device"], "accuracy", round(r["metrics"]["accuracy"], 1), "prompts", r["prompts_sha256"])' \
            "$run/results.json" "$1" "$3"
    else
        echo "$1 $3 FAILED: $(tail -n 3 "$run.txt")"
        return 1
    fi
}

check() {
    export -f train
    python - <<'PYTHON' | OMP_NUM_THREADS=1 xargs -P "${JOBS:-8}" -L 1 bash -c 'train "$@"' _ || failed=1
import trainers
from dassl.engine import TRAINER_REGISTRY

for name in TRAINER_REGISTRY.registered_names():
    node = TRAINER_REGISTRY.get(name).config_node
    for precision in ("fp32", "fp16", "bf16", "amp") if node else ():
        print(name, node, precision, f"{name}-{precision}")
PYTHON
    train RPO RPO fp32 RPO-again
    local first again
    first=$(sha RPO-fp32) && again=$(sha RPO-again) && [[ $first == "$again" ]] && echo "RPO twice: same bytes" ||
        { echo "RPO twice: DIFFERENT"; failed=1; }
    python -m pytest -q -m gpu || failed=1
}

sha() { python -c 'import json, sys; print(json.load(open(sys.argv[1]))["prompts_sha256"])' "$out/$1/results.json"; }

measure() {
    for prec in fp32 fp16 bf16; do
        python benchmarks/gpu.py --prec "$prec" --output "$out/steps-$prec.json" || failed=1
    done
    python benchmarks/gpu.py --prec bf16 --classes 50 --compile --output "$out/compiled.json" || failed=1
    python benchmarks/run.py --method RPO --device cuda --rounds 20 --prec bf16 --profile >"$out/profile.txt" || failed=1
}

case $what in
    check) check ;;
    time) measure ;;
    both) check; measure ;;
    *) echo "benchmarks/gpu.sh: expected check or time, got $what." >&2; exit 2 ;;
esac
exit $failed
