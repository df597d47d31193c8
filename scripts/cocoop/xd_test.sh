#!/usr/bin/env bash
# CoCoOp's test of the model that xd_train.sh trained, such as: bash scripts/cocoop/xd_test.sh caltech101 1
source "$(dirname "${BASH_SOURCE[0]}")/../family.sh"
expect 2 "DATASET SEED" "$@"
config="${CONFIG:-vit_b16_c4_ep10_batch1_ctxv1}" source="${SOURCE:-imagenet}"
run CoCoOp "$1" "$config" "$2" "evaluation/CoCoOp/${config}_16shots/$1/seed$2" --eval-only \
    --model-dir "$output/$source/CoCoOp/${config}_16shots/seed$2"
