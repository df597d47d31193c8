"""The description of a model that needs no training, on the built-in tiny CLIP."""

DESCRIPTION = {
    "format": 1,
    "method": "ZeroshotCLIP",
    "checkpoint": "prompt_learner",
    "classnames": ["red fox", "gray wolf", "owl"],
    "template": "a photo of a {}.",
    "weights_sha256": "0c6b1cc9413a0eb3b0dc710e2c906c55541ff90becb9e2791a376717fe5640f9",
    "settings": {
        "MODEL.BACKBONE.NAME": "tiny",
        "INPUT.SIZE": [40, 40],
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.TRANSFORMS": ["normalize"],
        "INPUT.PIXEL_MEAN": [0.5, 0.5, 0.5],
        "INPUT.PIXEL_STD": [0.27, 0.27, 0.27],
    },
}
