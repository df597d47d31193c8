#!/usr/bin/env bash
# Everything that needs a GPU: bash benchmarks/gpu.sh [FOLDER]
# Trains every method on the demo in every precision, checks that the same command gives the same bytes twice, runs the
# tests that need a GPU, prints the tables of gpu.py, and profiles RPO's step.
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
            OPTIM.MAX_EPOCH 5 "TRAINER.$(node "$trainer").PREC" "$prec" >"$out/log.txt" 2>&1; then
            echo "$trainer $prec $(python -c "import json; r = json.load(open('$run/results.json')); print(
                r['device'], 'accuracy', round(r['metrics']['accuracy'], 1), 'loss falls to',
                open('$run/metrics.csv').read().split()[-1].split(',')[1], 's/epoch', round(r['seconds']['per_epoch'], 2))")"
        else
            echo "$trainer $prec FAILED"; tail -n 5 "$out/log.txt"; failed=1
        fi
    done
done

sha() { python -c "import json; print(json.load(open('$1/results.json'))['prompts_sha256'])"; }
python train.py --trainer RPO --seed 1 --output-dir "$out/again" DATASET.SUBSAMPLE_CLASSES base OPTIM.MAX_EPOCH 5 >"$out/log.txt" 2>&1
if [[ "$(sha "$out/again")" == "$(sha "$out/RPO/fp32")" ]]; then echo "RPO twice: same bytes"; else echo "RPO twice: DIFFERENT"; failed=1; fi

python -m pytest -q -m gpu || failed=1

for prec in fp32 fp16 bf16; do
    python benchmarks/gpu.py --prec "$prec" --output "$out/steps-$prec.json" || failed=1
done
python benchmarks/gpu.py --prec bf16 --classes 50 --compile --output "$out/compiled.json" || failed=1
python benchmarks/run.py --method RPO --device cuda --rounds 20 --prec bf16 --profile >"$out/profile.txt" || failed=1
exit $failed
