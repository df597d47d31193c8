"""Installs the packages `promptlearn`, `dassl`, `clip` and `basics`, and the command `dassl`.

A wheel carries train.py, trainers/, datasets/, and configs/ in promptlearn/bundle/, because a package called `datasets`
in a user's environment would hide the well-known library of that name. train.py puts that folder on the path of its own
process. An editable installation uses the checkout.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
PACKAGES = ("basics", "clip", "dassl", "promptlearn")
BUNDLED = ("train.py", "trainers", "datasets", "configs")


def version() -> str:
    """Read `__version__` from the text: importing the package would need its dependencies before they are installed."""
    return re.search(r'^__version__ = "([^"]+)"', (HERE / "dassl" / "__init__.py").read_text(), re.MULTILINE).group(1)


class BuildWithBundle(build_py):
    """Copies what a checkout has next to the packages into promptlearn/bundle/."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        bundle = Path(self.build_lib, "promptlearn", "bundle")
        shutil.rmtree(bundle, ignore_errors=True)
        for source, target in self.bundled_files(bundle):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    @staticmethod
    def bundled_files(bundle: Path) -> list[tuple[Path, Path]]:
        """Return (source, target) of each file."""
        roots = [HERE / name for name in BUNDLED]
        files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
        wanted = [file for file in files if file.is_file() and "__pycache__" not in file.parts]
        return [(file, bundle / file.relative_to(HERE)) for file in wanted]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        targets = [target for _, target in self.bundled_files(Path(self.build_lib, "promptlearn", "bundle"))]
        return super().get_outputs(include_bytecode) + [str(target) for target in targets]


setup(
    name="promptlearn-clip",
    version=version(),
    description="Few-shot prompt learning on frozen CLIP: CoOp, RPO and their family on one small engine",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    author="The promptlearn-clip authors",
    keywords=["CLIP", "prompt learning", "prompt tuning", "few-shot learning", "vision-language", "CoOp", "Dassl"],
    project_urls={
        "RPO": "https://arxiv.org/abs/2308.14960",
        "CoOp": "https://arxiv.org/abs/2109.01134",
        "CLIP": "https://arxiv.org/abs/2103.00020",
    },
    python_requires=">=3.11",
    packages=find_packages(include=[f"{name}{below}" for name in PACKAGES for below in ("", ".*")]),
    package_data={
        **{name: ["py.typed"] for name in PACKAGES},
        "clip": ["tiny/*", "py.typed"],
        "promptlearn": ["experiments/published.json", "report/page.*", "serving.html", "py.typed"],
    },
    cmdclass={"build_py": BuildWithBundle},
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
        # dassl data; MATLAB annotations, statistics; the demo's digits, LinearProbeCLIP; dassl report
        "requests>=2.32.3",
        "urllib3>=2.2.2",
        "scipy>=1.15",
        "scikit-learn>=1.6",
        "matplotlib>=3.10",
        "jinja2>=3.1.4",
    ],
    extras_require={
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
            "starlette>=0.46",
            "uvicorn>=0.34",
            "python-multipart>=0.0.20",
            "pillow-heif>=0.18",
            "pydicom>=3",
            "submitit>=1.5.3",
            "ruff",
            "codespell",
            "mypy",
            "zensical>=0.0.73",
            "mkdocstrings[python]",
            "nbclient",
            "ipykernel",
        ],
        # TRAIN.TRACKER
        "tensorboard": ["tensorboard>=2.18"],
        "wandb": ["wandb>=0.31"],
        "mlflow": ["mlflow>=3"],
        "trackio": ["trackio>=0.43"],
        # dassl tune
        "tune": ["optuna>=4.2"],
        # dassl export
        "export": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.21"],
        # dassl serve
        "serve": ["starlette>=0.46", "uvicorn>=0.34", "python-multipart>=0.0.20"],
        # comparisons on a cluster
        "slurm": ["submitit>=1.5.3"],
        "ray": ["ray>=2.50"],
        # images of phones (.heic) and of hospitals (.dcm)
        "heif": ["pillow-heif>=0.18"],
        "dicom": ["pydicom>=3"],
    },
    entry_points={"console_scripts": ["dassl = promptlearn.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: Microsoft :: Windows",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
