#!/usr/bin/env bash
# CoCoOp's training on base classes, such as: bash scripts/cocoop/base2new_train.sh caltech101 1
source "$(dirname "${BASH_SOURCE[0]}")/../family.sh"
expect 2 "DATASET SEED" "$@"
config="${CONFIG:-vit_b16_c4_ep10_batch1_ctxv1}"
run CoCoOp "$1" "$config" "$2" "base2new/train_base/$1/shots_16/CoCoOp/$config/seed$2" \
    DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
