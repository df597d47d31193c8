#!/usr/bin/env bash
# CoOp's few-shot command, such as: bash scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
source "$(dirname "${BASH_SOURCE[0]}")/../family.sh"
expect 6 "DATASET CONFIG end|middle|front N_CTX SHOTS True|False (class-specific context)" "$@"
for seed in "${seeds[@]}"; do
    run CoOp "$1" "$2" "$seed" "$1/CoOp/${2}_${5}shots/nctx${4}_csc${6}_ctp${3}/seed$seed" DATASET.NUM_SHOTS "$5" \
        TRAINER.COOP.N_CTX "$4" TRAINER.COOP.CSC "$6" TRAINER.COOP.CLASS_TOKEN_POSITION "$3"
done
