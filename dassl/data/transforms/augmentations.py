"""Augmentations that torchvision does not offer. Like torchvision's, all use torch's global random stream."""

import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image
from torch import Tensor

MAX_MAGNITUDE = 30  # of RandAugment's operations (Cubuk et al., CVPR Workshops 2020), as in torchvision


def _happens(p: float) -> bool:
    return torch.rand(()).item() < p


class RandomTranslation:
    """Resize an image to the target size or, with probability p, to 1.125 times that size and crop at random.

    Args:
        size: target (height, width) in pixels.
        interpolation: used to resize.
        p: probability of the crop.
    """

    ENLARGEMENT = 1.125

    def __init__(self, size: tuple[int, int], interpolation: T.InterpolationMode, p: float = 0.5):
        self.p = p
        self.resize = T.Resize(size, interpolation)
        self.enlarge = T.Resize([round(side * self.ENLARGEMENT) for side in size], interpolation)
        self.crop = T.RandomCrop(size)

    def __call__(self, image: Image.Image) -> Image.Image:
        if _happens(self.p):
            return self.crop(self.enlarge(image))
        return self.resize(image)


class RandomMagnitudeAugment:
    """``num_ops`` operations of torchvision's RandAugment, each with its own random magnitude.

    The closest equivalent, by torchvision's operations, of RandAugment as FixMatch uses it (Sohn et al., NeurIPS 2020).

    Args:
        num_ops: operations sampled, with replacement.
        p: probability that a sampled operation is applied.
    """

    def __init__(self, num_ops: int, p: float = 1.0):
        self.num_ops = num_ops
        self.p = p
        self.choices = [T.RandAugment(num_ops=1, magnitude=magnitude) for magnitude in range(MAX_MAGNITUDE + 1)]

    def __call__(self, image: Image.Image) -> Image.Image:
        for _ in range(self.num_ops):
            if _happens(self.p):
                image = self.choices[int(torch.randint(len(self.choices), ()))](image)
        return image


class Cutout:
    """Set square patches at random places to zero (DeVries & Taylor, arXiv:1708.04552).

    Args:
        num_holes: patches per image; they may overlap.
        length: side of a patch in pixels; it is cropped at the image's border.
    """

    def __init__(self, num_holes: int, length: int):
        self.num_holes = num_holes
        self.length = length

    def __call__(self, image: Tensor) -> Tensor:  # (C, H, W)
        height, width = image.shape[-2:]
        half = self.length // 2
        for _ in range(self.num_holes):
            y = int(torch.randint(height, ()))
            x = int(torch.randint(width, ()))
            top, left = max(y - half, 0), max(x - half, 0)
            image = F.erase(image, top, left, min(y + half, height) - top, min(x + half, width) - left, 0.0)
        return image


class GaussianNoise:
    """Add normal noise with probability p.

    Args:
        mean, std: of the noise, in units of the (normalized) image.
        p: probability.
    """

    def __init__(self, mean: float, std: float, p: float = 0.5):
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, image: Tensor) -> Tensor:  # (C, H, W)
        if not _happens(self.p):
            return image
        return image + torch.randn(image.shape) * self.std + self.mean


class InstanceNormalization:
    """Normalize each channel of an image to mean 0 and (sample) standard deviation 1.

    Args:
        eps: added to the standard deviation, so that a constant channel becomes zero.
    """

    def __init__(self, eps: float = 1e-8):
        self.eps = eps

    def __call__(self, image: Tensor) -> Tensor:  # (C, H, W)
        std, mean = torch.std_mean(image, dim=(1, 2), keepdim=True)
        return (image - mean) / (std + self.eps)
