#!/usr/bin/env bash
# CoCoOp's test on new classes, such as: bash scripts/cocoop/base2new_test.sh caltech101 1
source "$(dirname "${BASH_SOURCE[0]}")/../family.sh"
expect 2 "DATASET SEED" "$@"
config="${CONFIG:-vit_b16_c4_ep10_batch1_ctxv1}"
folder="$1/shots_16/CoCoOp/$config/seed$2"
run CoCoOp "$1" "$config" "$2" "base2new/test_new/$folder" --eval-only --model-dir "$output/base2new/train_base/$folder" \
    DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new
