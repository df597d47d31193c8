"""MODEL.COMPILE and MODEL.CUDA_GRAPH: the same step, and a note where it fails. With a GPU: test_on_a_gpu.py."""

import pytest
import torch

import dassl.engine.accelerate
from dassl.engine.accelerate import GraphedStep

# The compiler looks at everything, and some releases of torch warn of what they themselves look at.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def backend(monkeypatch):
    """backend(name or function): what torch.compile hands its graphs to, in place of its slow code generator."""
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


@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_step_gives_the_same_numbers(make_trainer, backend, method, capsys):
    backend("eager")
    plain = make_trainer(method, *METHODS[method], output="plain")
    compiled = make_trainer(method, *METHODS[method], "MODEL.COMPILE", True, output="compiled")
    results = []
    for trainer in (plain, compiled):
        torch.manual_seed(7)  # dropout's stream, of which the trial step uses nothing up
        results.append(train_once(trainer))
    assert compiled.step.compiled is not None
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)
    assert "failed" not in capsys.readouterr().out


def test_a_step_that_cannot_be_compiled_runs_as_it_is_with_a_note(make_trainer, backend, capsys):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    backend(broken)
    plain = train_once(make_trainer("RPO", "TRAINER.RPO.K", 3, output="plain"))
    fallen = train_once(make_trainer("RPO", "TRAINER.RPO.K", 3, "MODEL.COMPILE", True, output="compiled"))
    torch.testing.assert_close(fallen, plain, atol=0, rtol=0)
    note = capsys.readouterr().out
    assert "MODEL.COMPILE: torch.compile failed, the step runs uncompiled" in note and "no compiler here" in note


def test_the_parts_of_a_loss_come_out_of_a_compiled_step(make_trainer, backend):
    backend("eager")
    trainers = [
        make_trainer("SEP", "TRAINER.SEP.LAYERS", [1], "MODEL.COMPILE", compiled, output=str(compiled))
        for compiled in (False, True)
    ]
    told = []
    for trainer in trainers:
        trainer.num_batches, trainer.batch_idx = 9, 0
        told.append({k: float(v) for k, v in trainer.forward_backward(next(iter(trainer.train_loader_x))).items()})
    assert trainers[1].step.compiled is not None
    assert told[1] == pytest.approx(told[0], rel=1e-4) and {"loss", "ce", "consistency", "prototypes"} <= told[0].keys()


@pytest.fixture
def capture(monkeypatch):
    """A stand-in for the GPU's capture: results stand in the same tensors at every call, as those of a graph."""
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


def test_a_captured_step_gives_results_that_the_next_one_leaves_alone(make_trainer, capture):
    trainer = make_trainer("RPO", "TRAINER.RPO.K", 3)
    step = GraphedStep(trainer.outputs, trainer.model.prompt_learner)
    batches = [(batch["img"], batch["label"]) for batch in trainer.train_loader_x]
    expected = [trainer.outputs(*batch)[:2] for batch in batches]
    found = [step(*batch)[:2] for batch in batches]
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert len(capture) == 1
    small = batches[0][0][:2], batches[0][1][:2]  # runs as it is
    torch.testing.assert_close(step(*small)[:2], trainer.outputs(*small)[:2], atol=0, rtol=0)
    assert len(capture) == 1 and step.graphed is not None


def test_without_a_gpu_there_is_nothing_to_capture(make_trainer, capsys):
    trainer = make_trainer("RPO", "USE_CUDA", False, "MODEL.CUDA_GRAPH", True)
    assert not isinstance(trainer.step, GraphedStep)
    assert "MODEL.CUDA_GRAPH: there is nothing to capture on a cpu" in capsys.readouterr().out


def test_a_step_that_cannot_be_captured_runs_as_it_is_with_a_note(make_trainer, monkeypatch, capsys):
    def refuse(module, sample):
        raise RuntimeError("operation not permitted when stream is capturing\nand advice")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    trainer = make_trainer("RPO", "TRAINER.RPO.K", 3)
    step = GraphedStep(trainer.outputs, trainer.model.prompt_learner)
    for batch in trainer.train_loader_x:
        torch.testing.assert_close(
            step(batch["img"], batch["label"])[:2], trainer.outputs(batch["img"], batch["label"])[:2], atol=0, rtol=0
        )
    note = capsys.readouterr().out
    assert note.count("MODEL.CUDA_GRAPH: capturing failed, the step runs as it is: RuntimeError: operation not") == 1
    assert "advice" not in note
