"""An exported file gives the model's answers without this package."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from basics import UserError
from promptlearn import exporting
from promptlearn.classifier import PromptedClassifier

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
# torch 2.9 warns about the file that it reads itself.
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")


@pytest.fixture
def classifier(make):
    """Return classifier(method): a trained model."""

    def build(method):
        trainer = make(method, "OPTIM.MAX_EPOCH", 1)
        trainer.train()
        return PromptedClassifier.from_pretrained(trainer.output_dir, device="cpu")

    return build


@pytest.fixture
def pictures(tmp_path):
    """Create three pictures of different sizes."""
    generator = torch.Generator().manual_seed(0)
    paths = []
    for i, (height, width) in enumerate([(24, 24), (37, 50), (91, 30)]):
        pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return paths


def test_the_example_program_names_the_same_classes(classifier, pictures, tmp_path):
    model = classifier("RPO")
    done = exporting.export(model, tmp_path / "model.onnx")
    assert done.difference < 1e-4 and done.megabytes == pytest.approx((tmp_path / "model.onnx").stat().st_size / 1e6)
    program = [sys.executable, ROOT / "examples" / "run_onnx.py", tmp_path / "model.onnx", *pictures]
    lines = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.splitlines()
    predicted = model.predict(pictures)
    shares = predicted.probabilities[:, 0].tolist()
    assert lines == [
        f"{path}: {name} {share:.1%}" for path, name, share in zip(pictures, predicted.top, shares, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["CoCoOp", "CoOp", "MaPLe", "SEP", "VPT-add", "VPT-adapter", "LP"])
def test_a_method_with_texts_of_any_kind_runs_at_any_batch_size(classifier, method, tmp_path):
    model = classifier(method)
    exporting.export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 24, 24, generator=torch.Generator().manual_seed(batch))
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        torch.testing.assert_close(torch.as_tensor(logits), model.logits(images), atol=1e-3, rtol=0)


def test_a_program_of_torch_export_holds_no_unused_tower(classifier, tmp_path):
    model = classifier("RPO")
    exporting.export(model, tmp_path / "model.pt2")
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    loaded = torch.export.load(str(tmp_path / "model.pt2"))
    torch.testing.assert_close(loaded.module()(images), model.logits(images), atol=1e-4, rtol=0)
    assert not any("token_embedding" in name for name in loaded.state_dict)
    assert model.encode_text("a photo of a cat.").shape == (1, model.model.clip.text_projection.shape[1])


def test_a_file_that_differs_from_the_model_is_refused(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(UserError, match="Nothing was exported"):
        exporting.export(classifier("LP"), tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_another_ending_is_refused(classifier, tmp_path):
    with pytest.raises(UserError, match="expected a file name with .onnx or .pt2, got .bin"):
        exporting.export(classifier("LP"), tmp_path / "model.bin")
