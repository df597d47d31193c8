#!/usr/bin/env bash
# CoOp's test of models that main.sh trained on ImageNet (SOURCE: another dataset), such as: bash scripts/coop/eval.sh imagenetv2 rn50_ep50
source "$(dirname "${BASH_SOURCE[0]}")/../family.sh"
expect 2 "DATASET CONFIG" "$@"
model="CoOp/${2}_${SHOTS:-16}shots/nctx${NCTX:-16}_cscFalse_ctpend"
for seed in "${seeds[@]}"; do
    run CoOp "$1" "$2" "$seed" "evaluation/$model/$1/seed$seed" --eval-only \
        --model-dir "$output/${SOURCE:-imagenet}/$model/seed$seed" TRAINER.COOP.N_CTX "${NCTX:-16}"
done
