#!/usr/bin/env bash
# CoCoOp's training on ImageNet (SOURCE: another dataset), such as: bash scripts/cocoop/xd_train.sh 1
source "$(dirname "${BASH_SOURCE[0]}")/../family.sh"
expect 1 "SEED" "$@"
config="${CONFIG:-vit_b16_c4_ep10_batch1_ctxv1}" source="${SOURCE:-imagenet}"
run CoCoOp "$source" "$config" "$1" "$source/CoCoOp/${config}_16shots/seed$1" DATASET.NUM_SHOTS 16
