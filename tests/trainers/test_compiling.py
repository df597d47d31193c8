"""MODEL.COMPILE and MODEL.CUDA_GRAPH give the same step, and a message if they fail. On a GPU: test_on_a_gpu.py."""

import pytest
import torch

import dassl.engine.accelerate
from dassl.engine.accelerate import GraphedStep

# The compiler inspects everything, and some releases of torch warn about what they inspect.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def backend(monkeypatch):
    """Return backend(name or function): what torch.compile passes its graphs to instead of its slow code generator."""
    compile = torch.compile

    def use(chosen):
        monkeypatch.setattr(dassl.engine.accelerate.torch, "compile", lambda f, dynamic: compile(f, backend=chosen))

    yield use
    torch.compiler.reset()


def train_once(trainer):
    trainer.num_batches, trainer.batch_idx = 9, 0
    trainer.set_model_mode("train")
    loss = trainer.forward_backward(next(iter(trainer.train_loader_x)))["loss"]
    return loss, [p.detach().clone() for p in trainer.model.prompt_learner.parameters()]


METHODS = {"RPO": ["TRAINER.RPO.K", 3], "VPT": ["TRAINER.VPT.DROPOUT", 0.5]}


@pytest.mark.parametrize("method", ["RPO", pytest.param("VPT", marks=pytest.mark.slow)])
def test_a_compiled_step_gives_the_same_numbers(make_trainer, backend, method, capsys):
    backend("eager")
    plain = make_trainer(method, *METHODS[method], output="plain")
    compiled = make_trainer(method, *METHODS[method], "MODEL.COMPILE", True, output="compiled")
    results = []
    for trainer in (plain, compiled):
        torch.manual_seed(7)  # the dropout stream, which the trial step does not advance
        results.append(train_once(trainer))
    assert compiled.step.compiled is not None
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)
    assert "failed" not in capsys.readouterr().err


def test_a_step_that_fails_to_compile_runs_uncompiled_with_a_message(make_trainer, backend, capsys):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    backend(broken)
    plain = train_once(make_trainer("RPO", "TRAINER.RPO.K", 3, output="plain"))
    fallback = train_once(make_trainer("RPO", "TRAINER.RPO.K", 3, "MODEL.COMPILE", True, output="compiled"))
    torch.testing.assert_close(fallback, plain, atol=0, rtol=0)
    printed = capsys.readouterr().err
    assert (
        "MODEL.COMPILE: torch.compile failed; running the step uncompiled" in printed and "no compiler here" in printed
    )


@pytest.mark.slow
def test_a_compiled_step_returns_the_parts_of_the_loss(make_trainer, backend):
    backend("eager")
    trainers = [
        make_trainer("SEP", "TRAINER.SEP.LAYERS", [1], "MODEL.COMPILE", compiled, output=str(compiled))
        for compiled in (False, True)
    ]
    losses = []
    for trainer in trainers:
        trainer.num_batches, trainer.batch_idx = 9, 0
        losses.append({k: float(v) for k, v in trainer.forward_backward(next(iter(trainer.train_loader_x))).items()})
    assert trainers[1].step.compiled is not None
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert {"loss", "ce", "consistency", "prototypes"} <= losses[0].keys()


@pytest.fixture
def capture(monkeypatch):
    """Replace the GPU's capture: every call writes its results into the same tensors, as a graph does."""
    captured = []

    def make_graphed_callables(module, sample):
        static = [torch.zeros_like(x) for x in module(*sample)[1:2]]
        captured.append(sample)

        def replay(images, labels):
            loss, logits, parts = module(images, labels)
            static[0].copy_(logits)
            return loss, static[0], parts

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    return captured


def test_the_next_captured_step_does_not_overwrite_results(make_trainer, capture):
    trainer = make_trainer("RPO", "TRAINER.RPO.K", 3)
    step = GraphedStep(trainer.outputs, trainer.model.prompt_learner)
    batches = [(batch["img"], batch["label"]) for batch in trainer.train_loader_x]
    expected = [trainer.outputs(*batch)[:2] for batch in batches]
    captured = [step(*batch)[:2] for batch in batches]
    torch.testing.assert_close(captured, expected, atol=0, rtol=0)
    assert len(capture) == 1
    small = batches[0][0][:2], batches[0][1][:2]  # runs uncaptured
    torch.testing.assert_close(step(*small)[:2], trainer.outputs(*small)[:2], atol=0, rtol=0)
    assert len(capture) == 1 and step.graphed is not None


def test_without_a_gpu_no_step_is_captured(make_trainer):
    trainer = make_trainer("RPO", "USE_CUDA", False, "MODEL.CUDA_GRAPH", True)
    assert not isinstance(trainer.step, GraphedStep)


def test_a_step_that_fails_to_capture_runs_uncaptured_with_a_message(make_trainer, monkeypatch, capsys):
    def refuse(module, sample):
        raise RuntimeError("operation not permitted when stream is capturing\nand advice")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    trainer = make_trainer("RPO", "TRAINER.RPO.K", 3)
    step = GraphedStep(trainer.outputs, trainer.model.prompt_learner)
    for batch in trainer.train_loader_x:
        torch.testing.assert_close(
            step(batch["img"], batch["label"])[:2], trainer.outputs(batch["img"], batch["label"])[:2], atol=0, rtol=0
        )
    printed = capsys.readouterr().err
    assert (
        printed.count("MODEL.CUDA_GRAPH: capturing failed; running the step uncaptured: RuntimeError: operation not")
        == 1
    )
    assert "advice" not in printed
