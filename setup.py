"""Installs the packages `promptlearn`, `dassl`, `clip` and `basics`, and the command `dassl`.

trainers/, datasets/, configs/ and scripts/ are used from the checkout and never installed: a package called `datasets`
in a user's environment would hide the well-known library of that name.
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
    # The oldest versions that the tests were run with; those of constraints.txt are the ones they always run with.
    install_requires=[
        "torch>=2.9",
        "torchvision>=0.24",
        "open_clip_torch>=3.0",
        "huggingface_hub>=0.30",
        "yacs>=0.1.8",
        "tabulate>=0.9",
        "gdown>=6",
        "numpy>=2.0.2",
        "pillow>=11",
        "tqdm>=4.67",
        "safetensors>=0.5",
        "msgspec>=0.19",
    ],
    extras_require={
        # dassl data; MATLAB annotations; the handwritten digits of the demo; LinearProbeCLIP
        "data": ["requests>=2.32.3", "urllib3>=2.2.2", "scipy>=1.15", "scikit-learn>=1.6"],
        # dassl report; dassl results --statistics
        "report": ["matplotlib>=3.10", "jinja2>=3.1.4", "scipy>=1.15", "scikit-learn>=1.6"],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.8",
            "hypothesis>=6.120",
            "playwright>=1.49",
            "tensorboard>=2.18",
            "optuna>=4.2",
            "onnx>=1.18",
            "onnxscript>=0.5",
            "onnxruntime>=1.21",
            "ruff",
            "codespell",
            "mypy",
            "zensical>=0.0.73",
            "mkdocstrings[python]",
            "nbclient",
            "ipykernel",
        ],
        "tensorboard": ["tensorboard>=2.18"],
        # dassl tune
        "tune": ["optuna>=4.2"],
        # dassl export
        "export": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.21"],
    },
    entry_points={"console_scripts": ["dassl = promptlearn.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
