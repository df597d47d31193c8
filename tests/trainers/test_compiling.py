"""MODEL.COMPILE: the same step, and a note where compiling fails."""

import pytest
import torch

import dassl.engine.compiling


@pytest.fixture
def backend(monkeypatch):
    """backend(name or function): what torch.compile hands its graphs to, in place of its slow code generator."""
    compile = torch.compile

    def use(chosen):
        monkeypatch.setattr(dassl.engine.compiling.torch, "compile", lambda f, dynamic: compile(f, backend=chosen))

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
