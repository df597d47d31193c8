"""Later methods compute what their authors' released code computes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from reference import options, prompt_std, reference_clip, reference_images, uniform

from trainers import cliplora

FILE = Path(__file__).parents[1] / "data" / "further_values.json"


def build_cliplora(case, clip_model):
    settings = options(cliplora, R=case["r"], ALPHA=float(case["alpha"]), PARAMS=case["params"])
    settings.merge_from_list(["POSITION", case["position"], "DROPOUT", case["dropout"]])
    texts = [case["template"].format(name.replace("_", " ")) for name in case["classnames"]]
    return cliplora.CLIPLoRACLIP(clip_model, texts, settings), cliplora.CLIPLoRA, settings


BUILDERS = {"CLIP-LoRA": build_cliplora}
CASES = [case for case in json.loads(FILE.read_text()) if case["case"]["method"] in BUILDERS]
NAMES = [f"{case['case']['method']}-{number}" for number, case in enumerate(CASES)]


def set_tensors(module, reference, salt):
    """Copy the reference values of the learnable tensors into the module: all of them, and no others."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert parameters.keys() == reference["learnable"].keys()
    with torch.no_grad():
        for name, shape in reference["learnable"].items():
            std = reference.get("std", {}).get(name) or prompt_std(name)
            parameters[name].copy_(uniform(name, shape, std, salt))


@pytest.mark.parametrize("reference", CASES, ids=NAMES)
def test_logits_gradients_and_four_steps_equal_the_released_code(reference):
    case = reference["case"]
    model, trainer, settings = BUILDERS[case["method"]](case, reference_clip(case["layers"], case["salt"]))
    set_tensors(model.prompt_learner, reference, case["salt"])
    images = reference_images(case["batch"], case["salt"])
    labels = torch.arange(case["batch"])

    model.prompt_learner.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), torch.tensor(reference["logits"]), atol=2e-3, rtol=0)

    model.prompt_learner.train()
    optimizer = torch.optim.SGD(model.prompt_learner.parameters(), lr=case["lr"])
    stand_in = SimpleNamespace(model=model, options=settings, loss_parts={})
    for step, expected in enumerate(reference["losses"]):
        loss, _ = trainer.loss(stand_in, images, labels)
        assert loss.item() == pytest.approx(expected, abs=1e-3)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            actual = {name: p.grad.norm().item() for name, p in model.prompt_learner.named_parameters()}
            assert actual == pytest.approx(reference["grad_norm"], rel=0.01)
        optimizer.step()
