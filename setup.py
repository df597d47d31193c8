"""Installs the packages `promptlearn`, `dassl`, `clip` and `basics`, and the command `dassl`.

trainers/, datasets/, configs/ and scripts/ are used from the checkout and never installed: a package called `datasets`
in somebody's environment would hide the well-known library of that name.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGES = ("basics", "clip", "dassl", "promptlearn")


def version() -> str:
    """Read `__version__` from the text: importing the package would need its dependencies before they are installed."""
    return re.search(r'^__version__ = "([^"]+)"', (HERE / "dassl" / "__init__.py").read_text(), re.MULTILINE).group(1)


setup(
    name="promptlearn-clip",
    version=version(),
    description="Few-shot prompt learning on frozen CLIP: CoOp, RPO and their family on one small engine",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    author="the authors",
    python_requires=">=3.11",
    packages=find_packages(include=[f"{name}{below}" for name in PACKAGES for below in ("", ".*")]),
    package_data={"clip": ["tiny/*"], "promptlearn": ["experiments/published.json", "report/page.*"]},
    install_requires=[
        "torch",
        "torchvision",
        "open_clip_torch",
        "yacs",
        "tabulate",
        "gdown>=6",
        "requests",
        "urllib3",
        "numpy",
        "scikit-learn",
        "scipy>=1.15",
        "pillow",
        "tqdm",
        "safetensors",
        "matplotlib",
        "jinja2",
    ],
    extras_require={
        "test": ["pytest", "hypothesis", "playwright", "ruff", "tensorboard"],
        "tensorboard": ["tensorboard"],
    },
    entry_points={"console_scripts": ["dassl = promptlearn.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
