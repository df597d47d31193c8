"""Every config key, its default and its meaning.

A method declares its own node (`TRAINER.<METHOD>`) in its own file. The original Dassl's nodes for domain adaptation,
domain generalization and semi-supervised trainers are left out, because those trainers are. Keys marked "Unused" exist
only so that config files of the CoOp family can be read.
"""

from yacs.config import CfgNode as CN

_C = CN()

_C.VERSION = 1
# Folder of the run: log, checkpoints, results. Running the same command again resumes the run in this folder.
_C.OUTPUT_DIR = "./output"
# Folder of another run to resume, if OUTPUT_DIR does not hold one yet.
_C.RESUME = ""
# Seed of everything random in a run. If negative, a seed is sampled and printed.
_C.SEED = -1
# Use the GPU if there is one.
_C.USE_CUDA = True
# Print which trainer, dataset, transforms and evaluator are built.
_C.VERBOSE = True

# ---- Images
_C.INPUT = CN()
# Height and width of the model's input, in pixels. It must be the size that the backbone was trained with. train.py
# takes this key, PIXEL_MEAN, and PIXEL_STD from the backbone, unless they are set on the command line or in the config
# file that names the backbone.
_C.INPUT.SIZE = (224, 224)
# How images are resized: bilinear, bicubic or nearest. CLIP was trained with bicubic.
_C.INPUT.INTERPOLATION = "bilinear"
# Names of the transforms of training images, listed in dassl/data/transforms/transforms.py. They are applied in a fixed
# order, whatever their order here. Test images are resized and center-cropped, and normalized if "normalize" is listed.
_C.INPUT.TRANSFORMS = ()
# Largest image that is read, in millions of pixels. A small file may hold a huge one.
_C.INPUT.MAX_MEGAPIXELS = 90.0
# Skip all transforms; a batch then holds PIL images.
_C.INPUT.NO_TRANSFORM = False
# normalize: mean and standard deviation of each channel (red, green, blue), for pixel values from 0 to 1. The defaults
# are ImageNet's; the method files set those of their backbone, and otherwise train.py does (see SIZE).
_C.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]
_C.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]
# random_crop: padding before the crop, in pixels.
_C.INPUT.CROP_PADDING = 4
# random_resized_crop: smallest and largest share of the image's area that a crop may cover.
_C.INPUT.RRCROP_SCALE = (0.08, 1.0)
# cutout: number of erased squares, and the length of their sides in pixels.
_C.INPUT.CUTOUT_N = 1
_C.INPUT.CUTOUT_LEN = 16
# gaussian_noise: mean and standard deviation, in units of the normalized image.
_C.INPUT.GN_MEAN = 0.0
_C.INPUT.GN_STD = 0.15
# randaugment: number of operations per image, and their magnitude (0 to 30).
_C.INPUT.RANDAUGMENT_N = 2
_C.INPUT.RANDAUGMENT_M = 10
# colorjitter: strength of the change in brightness, contrast, saturation and hue (hue at most 0.5).
_C.INPUT.COLORJITTER_B = 0.4
_C.INPUT.COLORJITTER_C = 0.4
_C.INPUT.COLORJITTER_S = 0.4
_C.INPUT.COLORJITTER_H = 0.1
# randomgrayscale: probability.
_C.INPUT.RGS_P = 0.2
# gaussian_blur: probability, and kernel size in pixels (odd).
_C.INPUT.GB_P = 0.5
_C.INPUT.GB_K = 21

# Number of augmented views of each training image, used in turn, epoch by epoch; 0 for a new view in every epoch. With
# a few views, RPO and methods with a frozen image encoder train faster, because what is frozen of them is computed only
# once. It is a different augmentation, so the numbers differ.
_C.INPUT.VIEWS = 0
# RPO with VIEWS: memory for the keys and values of all views, in GiB. A run that needs more is refused.
_C.INPUT.VIEWS_GIB = 4.0

# ---- Dataset
_C.DATASET = CN()
# Folder that holds the folders of the datasets (--root). Built-in datasets need none; they are rendered into the cache.
_C.DATASET.ROOT = ""
# Registered name of the dataset, such as OxfordPets. The files in configs/datasets/ set it.
_C.DATASET.NAME = ""
# Names of domains, for datasets that have them.
_C.DATASET.SOURCE_DOMAINS = ()
_C.DATASET.TARGET_DOMAINS = ()
# Unused: number of labeled images in semi-supervised learning.
_C.DATASET.NUM_LABELED = -1
# Training images per class (few-shot learning), sampled with SEED. Below 1, all training images are used.
_C.DATASET.NUM_SHOTS = -1
# Share of the training images of each class that is used, at least one image, sampled with SEED; needs NUM_SHOTS -1.
# Unlike with NUM_SHOTS, all validation images are kept. A larger share includes the images of a smaller one.
_C.DATASET.TRAIN_FRACTION = 1.0
# Classes to train and test on: all, base (the first half, rounded up) or new (the rest).
_C.DATASET.SUBSAMPLE_CLASSES = "all"
# Text for a class, with {} for its name, such as "a photo of a {}." If empty, the dataset's own text.
_C.DATASET.PROMPT = ""
# JSON file with the texts of each class, {"cat": ["A cat has whiskers.", ...], ...}, for methods with fixed class
# texts. The feature of a class is the mean over its texts. If empty, each class has one text, from PROMPT.
_C.DATASET.CLASS_TEXTS = ""
# Keep underscores in class names ("american_bulldog") instead of replacing them with spaces. The released code of RPO
# and of its linear probe keeps them; such a name has more tokens.
_C.DATASET.KEEP_UNDERSCORES = False
# Own photos (ImageFolder). How deep the class folders are: 1 for photos/cat, 2 for photos/animals/cat, ...; -1 for the
# folder that an image is in.
_C.DATASET.CLASS_LEVEL = 1
# Own photos: a CSV file's columns of path, label, and split (optional), separated by commas. If empty, they are found.
_C.DATASET.COLUMNS = ""
# Own photos: remove the number that class names start with (001.Black_footed_Albatross).
_C.DATASET.STRIP_NUMBERS = False
# Own photos without a split: hold out 20% of each class for val and 30% for test. False: train on all, test nothing.
_C.DATASET.HOLD_OUT = True
# If images have changed since NUM_SHOTS were sampled with this seed: sample again; the old record is kept next to it.
_C.DATASET.REDRAW = False
# Unused: share of the training images held out for validation.
_C.DATASET.VAL_PERCENT = 0.1
# Unused: settings of STL-10, CIFAR-C and semi-supervised learning.
_C.DATASET.STL10_FOLD = -1
_C.DATASET.CIFAR_C_TYPE = ""
_C.DATASET.CIFAR_C_LEVEL = 1
_C.DATASET.ALL_AS_UNLABELED = False

# ---- Data loaders
_C.DATALOADER = CN()
# Worker processes per loader, at most one per core; 0 loads images in the main process. The numbers stay the same.
_C.DATALOADER.NUM_WORKERS = 4
# Memory for decoded training images, in GiB. Images beyond it are read from disk in every epoch.
_C.DATALOADER.KEEP_GIB = 2.0
# Disk space in the cache for the image features of frozen image encoders, in GiB, shared by all runs; 0 for none.
_C.DATALOADER.FEATURES_GIB = 4.0
# Transformed copies of each training image. Above 1, a batch's `img` is a list of tensors.
_C.DATALOADER.K_TRANSFORMS = 1
# Add the image without augmentation to a batch, as `img0`.
_C.DATALOADER.RETURN_IMG0 = False
# Labeled training images. The sampler, here and below, is RandomSampler, SequentialSampler, RandomDomainSampler (each
# batch has equally many images of N_DOMAIN domains), SeqDomainSampler (of all domains, in order), RandomClassSampler
# (N_INS images of each of its classes), or ClassBalancedSampler (every class equally likely, images with replacement).
_C.DATALOADER.TRAIN_X = CN()
_C.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"
_C.DATALOADER.TRAIN_X.BATCH_SIZE = 32
# Domains per batch of a RandomDomainSampler (0 for all), and images per class in a batch of a RandomClassSampler.
_C.DATALOADER.TRAIN_X.N_DOMAIN = 0
_C.DATALOADER.TRAIN_X.N_INS = 16
# Unlabeled training images, for trainers that use them.
_C.DATALOADER.TRAIN_U = CN()
# Use the settings of TRAIN_X instead of the following ones.
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
# Checkpoint file whose trained tensors initialize the prompts.
_C.MODEL.INIT_WEIGHTS = ""
_C.MODEL.BACKBONE = CN()
# The frozen CLIP: a released name such as "ViT-B/16", "open_clip:<model>/<weights>", a weights file, or "tiny".
_C.MODEL.BACKBONE.NAME = ""
# Unused: the frozen model is always a trained one.
_C.MODEL.BACKBONE.PRETRAINED = True
# Run the training step through torch.compile, for fixed shapes. If that fails, the step runs uncompiled, with a note.
_C.MODEL.COMPILE = False
# On a GPU, capture the training step once as a CUDA graph and replay it: the same kernels and bytes, without the time
# to launch each kernel. For methods with `static_step` (trainers/base.py). If capturing fails, the step runs without a
# graph, with a note.
_C.MODEL.CUDA_GRAPH = True
# Library for multiplying by frozen weights in float32 on a CPU: torch, onednn, or auto for the faster one. The two
# round differently. "auto" measures once per machine and number of threads and keeps the answer in the cache; a run
# records it (results.json, "linear"), and a resumed run keeps it.
_C.MODEL.LINEAR = "auto"
# Class texts that keep their activations at a time in a training step; those of the others are computed again in the
# backward pass. "auto" picks as many as fit into half of the free memory; 0 keeps all. The numbers stay the same up to
# rounding, so a run that ran out of memory can be resumed with a smaller number.
_C.MODEL.TEXT_BLOCK = "auto"
# Memory for the keys and values of frozen class texts (RPO), in GiB. If they need more, every step computes them again.
_C.MODEL.TEXT_MEMORY = 2.0
# Unused: a classification head after the backbone, which prompt learning does not have.
_C.MODEL.HEAD = CN()
_C.MODEL.HEAD.NAME = ""
_C.MODEL.HEAD.HIDDEN_LAYERS = ()
_C.MODEL.HEAD.ACTIVATION = "relu"
_C.MODEL.HEAD.BN = True
_C.MODEL.HEAD.DROPOUT = 0.0

# ---- Optimization
_C.OPTIM = CN()
# adam, amsgrad, sgd, rmsprop, radam or adamw.
_C.OPTIM.NAME = "adam"
# Learning rate after the warm-up.
_C.OPTIM.LR = 0.0003
# Weight decay, for all parameters and every optimizer, including adamw.
_C.OPTIM.WEIGHT_DECAY = 5e-4
# Momentum of sgd and rmsprop.
_C.OPTIM.MOMENTUM = 0.9
# sgd: dampening, and Nesterov momentum (which needs dampening 0).
_C.OPTIM.SGD_DAMPNING = 0
_C.OPTIM.SGD_NESTEROV = False
# rmsprop: smoothing constant.
_C.OPTIM.RMSPROP_ALPHA = 0.99
# Decay rates of the moment estimates of adam, amsgrad, radam and adamw.
_C.OPTIM.ADAM_BETA1 = 0.9
_C.OPTIM.ADAM_BETA2 = 0.999
# Added to the denominator of all optimizers but sgd. Increase it if the loss becomes NaN in half precision.
_C.OPTIM.EPS = 1e-8
# Two learning rates: LR for the children of the model listed in NEW_LAYERS, and LR * BASE_LR_MULT for the rest.
_C.OPTIM.STAGED_LR = False
_C.OPTIM.NEW_LAYERS = ()
_C.OPTIM.BASE_LR_MULT = 0.1
# Learning-rate schedule, stepped after each epoch: single_step, multi_step or cosine.
_C.OPTIM.LR_SCHEDULER = "single_step"
# Epochs at which the rate drops: the last one for single_step (MAX_EPOCH if not positive), all of them for multi_step.
_C.OPTIM.STEPSIZE = (-1,)
# single_step and multi_step: factor of each drop.
_C.OPTIM.GAMMA = 0.1
# Number of epochs, including the warm-up.
_C.OPTIM.MAX_EPOCH = 10
# Epochs of warm-up; none if not positive.
_C.OPTIM.WARMUP_EPOCH = -1
# Warm-up: constant, or linear from the first epoch's rate up to LR.
_C.OPTIM.WARMUP_TYPE = "linear"
# Rate during a constant warm-up, and rate of the first epoch of a linear one.
_C.OPTIM.WARMUP_CONS_LR = 1e-5
_C.OPTIM.WARMUP_MIN_LR = 1e-5
# Start the schedule after the warm-up; False counts the epochs of the warm-up as epochs of the schedule.
_C.OPTIM.WARMUP_RECOUNT = True
# Largest norm of the gradient of all trained parameters together; larger gradients are scaled down to it. 0 for none.
_C.OPTIM.CLIP_NORM = 0.0
# Batches per step: the gradient of a step is the mean over so many batches of an epoch.
_C.OPTIM.ACCUMULATE = 1

# ---- Training
_C.TRAIN = CN()
# Write a checkpoint every so many epochs; 0 for the last epoch only, which always has one.
_C.TRAIN.CHECKPOINT_FREQ = 0
# Besides after every epoch, save the state of the run every so many minutes, so that a stopped or killed run resumes in
# the middle of an epoch; 0 for never.
_C.TRAIN.CHECKPOINT_MINUTES = 5.0
# If the loss is infinite or NaN: "stop" the run, or "skip:N" to skip up to N such steps and count them.
_C.TRAIN.ON_NONFINITE = "stop"
# Stop after so many epochs without a better result on the validation images; 0 for never. Needs FINAL_MODEL best_val.
_C.TRAIN.PATIENCE = 0
# Cross-entropy: share of each target that is spread over all classes, at least 0 and below 1.
_C.TRAIN.LABEL_SMOOTHING = 0.0
# Weights of the classes in the cross-entropy: none, or balanced (the inverse of their numbers of training images).
_C.TRAIN.CLASS_WEIGHTS = "none"
# Mix each training image and its target with another one of the batch: the parameter alpha of the Beta distribution of
# the shares; 0 for none. If both are set, each batch uses one of the two, at random.
_C.TRAIN.MIXUP = 0.0
_C.TRAIN.CUTMIX = 0.0
# Print a line every so many batches.
_C.TRAIN.PRINT_FREQ = 10
# Unused: the loader that defines the length of an epoch, for trainers with two.
_C.TRAIN.COUNT_ITER = "train_x"
# Resume the run in OUTPUT_DIR; False refuses a folder that holds a run.
_C.TRAIN.RESUME = True
# Write TensorBoard files to OUTPUT_DIR/tensorboard. TensorBoard must be installed.
_C.TRAIN.TENSORBOARD = False
# Log the numbers of the training with tensorboard, wandb, mlflow, or trackio, into a folder of that name in OUTPUT_DIR,
# without a network. The package must be installed. Empty for none.
_C.TRAIN.TRACKER = ""

# ---- Test
_C.TEST = CN()
# Registered name of the evaluator.
_C.TEST.EVALUATOR = "Classification"
# Print the accuracy of each class, and write OUTPUT_DIR/per_class.csv.
_C.TEST.PER_CLASS_RESULT = False
# Values of k: also measure the share of images whose class is among the k best predictions, such as (5,).
_C.TEST.TOP_K = ()
# Save the confusion matrix as OUTPUT_DIR/cmat.pt; its rows are the true classes and add up to 1. For more than 4,096
# classes, it is {"labels": (C,), "pairs": (2, n) places in labels, "shares": (n,)} of the pairs that occur.
_C.TEST.COMPUTE_CMAT = False
# Skip the test after training.
_C.TEST.NO_TEST = False
# Images to test on: test or val.
_C.TEST.SPLIT = "test"
# If a validation or test image cannot be read: "error" stops with its name, "wrong" counts it as a wrong prediction.
_C.TEST.BAD_IMAGES = "error"
# Model to test after training: last_step, or best_val (the best on the validation images, measured after every epoch).
_C.TEST.FINAL_MODEL = "last_step"
# After the test, fit a temperature and rejection thresholds on the validation images: "calibration" in results.json.
_C.TEST.CALIBRATE = False
# With SUBSAMPLE_CLASSES base, measure how well the new classes' test images are recognized as unknown: "unknowns" in
# results.json.
_C.TEST.UNKNOWNS = False

# ---- Trainer
_C.TRAINER = CN()
# Registered name of the method (--trainer).
_C.TRAINER.NAME = ""

# Keys that do not influence a run's numbers, so that a resumed run may change them. (ON_NONFINITE decides only whether
# a run continues.)
FREE_TO_CHANGE = {
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "DATASET.REDRAW",
    "INPUT.MAX_MEGAPIXELS",
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
    "TRAIN.TRACKER",
}


def get_cfg_default():
    """Return a copy of the default config, to extend and to merge into."""
    return _C.clone()
