#!/usr/bin/env bash
# What needs a GPU, in one go: bash benchmarks/gpu.sh [FOLDER]
# Every method trains on the demo in every precision; the same command twice gives the same bytes; rows of
# run.py by device events and the device's count of memory; a profile of RPO's step.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-output/gpu}
failed=0
mkdir -p "$out"

node() { case $1 in CoOp) echo COOP ;; CoCoOp) echo COCOOP ;; MaPLe) echo MAPLE ;; *) echo "$1" ;; esac; }

for trainer in CoOp CoCoOp MaPLe IVLP VPT SEP RPO LP; do
    for prec in fp32 fp16 bf16 amp; do
        run="$out/$trainer/$prec"
        if python train.py --trainer "$trainer" --seed 1 --output-dir "$run" DATASET.SUBSAMPLE_CLASSES base \
            OPTIM.MAX_EPOCH 5 "TRAINER.$(node "$trainer").PREC" "$prec" >"$out.log" 2>&1; then
            echo "$trainer $prec $(python -c "import json; r = json.load(open('$run/results.json')); print(
                r['device'], 'accuracy', round(r['metrics']['accuracy'], 1), 'loss falls to',
                open('$run/metrics.csv').read().split()[-1].split(',')[1], 's/epoch', round(r['seconds']['per_epoch'], 2))")"
        else
            echo "$trainer $prec FAILED"; tail -n 5 "$out.log"; failed=1
        fi
    done
done

sha() { python -c "import json; print(json.load(open('$1/results.json'))['prompts_sha256'])"; }
python train.py --trainer RPO --seed 1 --output-dir "$out/again" DATASET.SUBSAMPLE_CLASSES base OPTIM.MAX_EPOCH 5 >"$out.log" 2>&1
if [[ "$(sha "$out/again")" == "$(sha "$out/RPO/fp32")" ]]; then echo "RPO twice: same bytes"; else echo "RPO twice: DIFFERENT"; failed=1; fi

for classes in 50 500 1000; do
    for method in RPO CoOp CoCoOp MaPLe SEP VPT; do
        case $method in CoOp) batch=32 ;; CoCoOp) batch=1 ;; *) batch=4 ;; esac
        for how in "fp32" "fp16" "bf16" "bf16 --compile"; do
            # shellcheck disable=SC2086  # a precision and perhaps a flag
            python benchmarks/run.py --method "$method" --classes "$classes" --batch "$batch" --device cuda \
                --rounds 20 --prec $how || failed=1
        done
    done
done
python benchmarks/run.py --method RPO --prompts 4 --device cuda --rounds 20 --prec bf16 || failed=1
python benchmarks/run.py --method RPO --device cuda --rounds 20 --prec bf16 --profile >"$out/profile.txt" || failed=1
exit $failed
