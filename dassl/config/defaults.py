"""Every configuration key, its default and its meaning.

A method adds its own node (`TRAINER.<METHOD>`) in its own file. The nodes that the original Dassl keeps for domain
adaptation, domain generalisation and semi-supervised trainers are left out, because those trainers are.
"""

from yacs.config import CfgNode as CN

_C = CN()

_C.VERSION = 1
# Folder of the run: log, checkpoints, results. A run that was stopped goes on in the folder it began in.
_C.OUTPUT_DIR = "./output"
# Folder to resume from, if not OUTPUT_DIR.
_C.RESUME = ""
# Seed of everything that is drawn; negative: one is drawn and printed.
_C.SEED = -1
# Use the GPU if there is one.
_C.USE_CUDA = True
# Print what is built.
_C.VERBOSE = True

# ---- Images
_C.INPUT = CN()
# Height, width in pixels.
_C.INPUT.SIZE = (224, 224)
# bilinear, bicubic or nearest.
_C.INPUT.INTERPOLATION = "bilinear"
# Names of the transforms; their order does not matter.
_C.INPUT.TRANSFORMS = ()
# Leave images as they are read (PIL).
_C.INPUT.NO_TRANSFORM = False
# Mean and standard deviation per channel (RGB, 0..1) for "normalize".
_C.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]
_C.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]
# random_crop: padding in pixels.
_C.INPUT.CROP_PADDING = 4
# random_resized_crop: range of the crop's share of the area.
_C.INPUT.RRCROP_SCALE = (0.08, 1.0)
# cutout: number and side (pixels) of the squares.
_C.INPUT.CUTOUT_N = 1
_C.INPUT.CUTOUT_LEN = 16
# gaussian_noise: mean and standard deviation.
_C.INPUT.GN_MEAN = 0.0
_C.INPUT.GN_STD = 0.15
# randaugment: number of operations and their magnitude.
_C.INPUT.RANDAUGMENT_N = 2
_C.INPUT.RANDAUGMENT_M = 10
# colorjitter: brightness, contrast, saturation, hue.
_C.INPUT.COLORJITTER_B = 0.4
_C.INPUT.COLORJITTER_C = 0.4
_C.INPUT.COLORJITTER_S = 0.4
_C.INPUT.COLORJITTER_H = 0.1
# randomgrayscale: probability.
_C.INPUT.RGS_P = 0.2
# gaussian_blur: probability and kernel size (pixels).
_C.INPUT.GB_P = 0.5
_C.INPUT.GB_K = 21

# Augmented views of each training image, taken in turn, epoch by epoch; 0: a new view in every epoch. A few views are
# faster with RPO and with methods that leave the image side alone, because what is frozen of them is remembered; they
# are another augmentation, and so give other numbers.
_C.INPUT.VIEWS = 0
# RPO with VIEWS: GiB of memory that the keys and values of all views may take; more is refused.
_C.INPUT.VIEWS_GIB = 4.0

# ---- Data set
_C.DATASET = CN()
# Folder that holds the data sets' folders. Built-in sets are made in the cache if it is empty.
_C.DATASET.ROOT = ""
_C.DATASET.NAME = ""
# Names of domains, for data sets that have them.
_C.DATASET.SOURCE_DOMAINS = ()
_C.DATASET.TARGET_DOMAINS = ()
# Semi-supervised learning: labelled images in all. Not used here.
_C.DATASET.NUM_LABELED = -1
# Training images per class; below 1: all of them.
_C.DATASET.NUM_SHOTS = -1
# Classes that are used: all, base (the first half) or new (the rest).
_C.DATASET.SUBSAMPLE_CLASSES = "all"
# Prompt template with {} for the class name; empty: the data set's own.
_C.DATASET.PROMPT = ""
# Of the original, read by no data set here: share held out for validation.
_C.DATASET.VAL_PERCENT = 0.1
# Of the original, read by nobody here: particulars of STL-10, CIFAR-C and semi-supervised learning.
_C.DATASET.STL10_FOLD = -1
_C.DATASET.CIFAR_C_TYPE = ""
_C.DATASET.CIFAR_C_LEVEL = 1
_C.DATASET.ALL_AS_UNLABELED = False

# ---- Loaders
_C.DATALOADER = CN()
# Worker processes per loader; 0: images are read in the main process. Has no influence on results.
_C.DATALOADER.NUM_WORKERS = 4
# GiB of decoded training images kept in memory; those beyond it are read from disk each time.
_C.DATALOADER.KEEP_GIB = 2.0
# GiB on disk (in the cache) for image features of frozen image sides, shared by all runs; 0: none are kept.
_C.DATALOADER.FEATURES_GIB = 4.0
# Transformed copies per training image; above 1, `img` is a list.
_C.DATALOADER.K_TRANSFORMS = 1
# Also return the image without augmentation, as `img0`.
_C.DATALOADER.RETURN_IMG0 = False
# Labelled training images.
_C.DATALOADER.TRAIN_X = CN()
_C.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"
_C.DATALOADER.TRAIN_X.BATCH_SIZE = 32
# Of the original, read by nobody here: domains per batch, images per class in a batch.
_C.DATALOADER.TRAIN_X.N_DOMAIN = 0
_C.DATALOADER.TRAIN_X.N_INS = 16
# Unlabelled training images.
_C.DATALOADER.TRAIN_U = CN()
# Take sampler and sizes from TRAIN_X.
_C.DATALOADER.TRAIN_U.SAME_AS_X = True
_C.DATALOADER.TRAIN_U.SAMPLER = "RandomSampler"
_C.DATALOADER.TRAIN_U.BATCH_SIZE = 32
_C.DATALOADER.TRAIN_U.N_DOMAIN = 0
_C.DATALOADER.TRAIN_U.N_INS = 16
# Validation and test images.
_C.DATALOADER.TEST = CN()
_C.DATALOADER.TEST.SAMPLER = "SequentialSampler"
_C.DATALOADER.TEST.BATCH_SIZE = 32

# ---- Model
_C.MODEL = CN()
# Checkpoint file to begin with.
_C.MODEL.INIT_WEIGHTS = ""
_C.MODEL.BACKBONE = CN()
# Name or file of the frozen model.
_C.MODEL.BACKBONE.NAME = ""
# Of the original, read by nobody here: the frozen model is always a trained one.
_C.MODEL.BACKBONE.PRETRAINED = True
# Run the training step through torch.compile, for fixed shapes; where that fails, it runs as it is, with a note.
_C.MODEL.COMPILE = False
# On a GPU, capture the training step once and replay it: the same kernels, without the time to launch them one by one.
# A loss that reads numbers off the GPU cannot be captured; it runs as it is, with a note. Not yet tried on a GPU.
_C.MODEL.CUDA_GRAPH = False
# Library for multiplying by frozen weights in float32 on a CPU: torch, onednn, or auto, the faster one. The two round
# differently. auto measures once per machine and number of threads and keeps the answer in the cache folder; a run
# records it (results.json, "linear"), and a resumed run keeps it.
_C.MODEL.LINEAR = "auto"
# Class texts whose activations are kept at a time in a training step; the others' are computed again in the backward
# pass. auto: as many as fit into half of the free memory, a number, or 0: all. The numbers of a run stay the same up to
# rounding, so that a run that ran out of memory can go on with less.
_C.MODEL.TEXT_BLOCK = "auto"
# GiB of keys and values of frozen class texts that may stay in memory (RPO); more are computed again in every step.
_C.MODEL.TEXT_MEMORY = 2.0
# Classification head after the backbone. Prompt learning has none.
_C.MODEL.HEAD = CN()
_C.MODEL.HEAD.NAME = ""
_C.MODEL.HEAD.HIDDEN_LAYERS = ()
_C.MODEL.HEAD.ACTIVATION = "relu"
_C.MODEL.HEAD.BN = True
_C.MODEL.HEAD.DROPOUT = 0.0

# ---- Optimisation
_C.OPTIM = CN()
# adam, amsgrad, sgd, rmsprop, radam or adamw.
_C.OPTIM.NAME = "adam"
_C.OPTIM.LR = 0.0003
# Applies to every parameter and every optimiser, adamw included.
_C.OPTIM.WEIGHT_DECAY = 5e-4
# sgd and rmsprop.
_C.OPTIM.MOMENTUM = 0.9
_C.OPTIM.SGD_DAMPNING = 0
_C.OPTIM.SGD_NESTEROV = False
_C.OPTIM.RMSPROP_ALPHA = 0.99
# adam, amsgrad, radam, adamw.
_C.OPTIM.ADAM_BETA1 = 0.9
_C.OPTIM.ADAM_BETA2 = 0.999
# Added to the denominator (adam, amsgrad, rmsprop, radam, adamw); raise it if half precision makes the loss NaN.
_C.OPTIM.EPS = 1e-8
# Two rates: children of the model named in NEW_LAYERS learn with LR, the rest with LR * BASE_LR_MULT.
_C.OPTIM.STAGED_LR = False
_C.OPTIM.NEW_LAYERS = ()
_C.OPTIM.BASE_LR_MULT = 0.1
# single_step, multi_step or cosine.
_C.OPTIM.LR_SCHEDULER = "single_step"
# Epochs: the last one for single_step (not positive: MAX_EPOCH), all of them for multi_step.
_C.OPTIM.STEPSIZE = (-1,)
# single_step and multi_step multiply the rate by this.
_C.OPTIM.GAMMA = 0.1
_C.OPTIM.MAX_EPOCH = 10
# Epochs of warm-up; not positive: none.
_C.OPTIM.WARMUP_EPOCH = -1
# linear or constant.
_C.OPTIM.WARMUP_TYPE = "linear"
# constant: the rate during the warm-up; linear: the rate of the first epoch.
_C.OPTIM.WARMUP_CONS_LR = 1e-5
_C.OPTIM.WARMUP_MIN_LR = 1e-5
# The schedule begins after the warm-up; False: the warm-up's epochs count as epochs of the schedule.
_C.OPTIM.WARMUP_RECOUNT = True

# ---- Training
_C.TRAIN = CN()
# Write a checkpoint every so many epochs; the last epoch's is always written.
_C.TRAIN.CHECKPOINT_FREQ = 0
# Save the state in the middle of an epoch as well, every so many minutes; 0: only after each epoch. Go on from there.
_C.TRAIN.CHECKPOINT_MINUTES = 5.0
# At a loss that is infinite or NaN: stop, or skip:N, which leaves out up to N such steps and counts them.
_C.TRAIN.ON_NONFINITE = "stop"
# Print a line every so many batches.
_C.TRAIN.PRINT_FREQ = 10
# With two training loaders, the one whose length is an epoch's. Not used here.
_C.TRAIN.COUNT_ITER = "train_x"
# Go on where the run in the output folder stopped; False: refuse a folder that holds a run.
_C.TRAIN.RESUME = True
# Write TensorBoard files to OUTPUT_DIR/tensorboard.
_C.TRAIN.TENSORBOARD = False

# ---- Test
_C.TEST = CN()
_C.TEST.EVALUATOR = "Classification"
# Print each class's accuracy.
_C.TEST.PER_CLASS_RESULT = False
# Save the confusion matrix (rows: true class, adding up to 1) as OUTPUT_DIR/cmat.pt.
_C.TEST.COMPUTE_CMAT = False
# Do not test after training.
_C.TEST.NO_TEST = False
# test or val.
_C.TEST.SPLIT = "test"
# A validation or test image that cannot be read: error stops and names it, wrong counts it as a wrong answer.
_C.TEST.BAD_IMAGES = "error"
# Which model is tested after training: last_step, or best_val (measured on the validation set after every epoch).
_C.TEST.FINAL_MODEL = "last_step"

# ---- Trainer
_C.TRAINER = CN()
# Registered name of the method.
_C.TRAINER.NAME = ""

# Keys that have no influence on the numbers of a run (ON_NONFINITE: of one that would go on without it).
FREE_TO_CHANGE = {
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "INPUT.VIEWS_GIB",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.KEEP_GIB",
    "DATALOADER.FEATURES_GIB",
    "MODEL.LINEAR",
    "MODEL.TEXT_BLOCK",
    "MODEL.TEXT_MEMORY",
    "TRAIN.PRINT_FREQ",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.CHECKPOINT_MINUTES",
    "TRAIN.ON_NONFINITE",
    "TRAIN.RESUME",
    "TRAIN.TENSORBOARD",
}


def get_cfg_default():
    """A copy of the default configuration, to add to and to merge into."""
    return _C.clone()
