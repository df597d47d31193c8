"""Damaged weights and checkpoints end in tensors or in one clear message."""

import json

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import JUNK, TEXTS, damaged, grafted
from original_files import original_checkpoint
from safetensors.torch import save_file
from small_clip import make_small_clip, open_clip_config, transformers_config, write_open_clip, write_transformers
from torch import nn
from torchscript_archive import write_archive

import clip
from basics import UserError
from clip.archive import read_torchscript
from clip.weights import save_rows
from dassl.engine.checkpoints import load_model_file
from dassl.utils import load_checkpoint

SMALL = make_small_clip()
WHOLE = save_rows(SMALL, torch.arange(40), 0)
HEADER = 6000  # bytes at a file's beginning, where its description stands


def one_line(error):
    assert str(error).strip() and "\n" not in str(error) and "Traceback" not in str(error)


def loaded(path):
    """Load sizes, then weights, as a run does; each gives a CLIP or one line."""
    for read in (clip.backbone_config, clip.load_clip):
        try:
            read(str(path))
        except UserError as error:
            one_line(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@given(data=st.data())
def test_a_damaged_safetensors_file_loads_or_is_refused(folder, data):
    path = folder / "small.safetensors"
    path.write_bytes(data.draw(damaged(WHOLE, within=HEADER)))
    loaded(path)


@example(sizes={"vocab_size": 2**63})  # torch answers with its stack
@given(sizes=JUNK | st.fixed_dictionaries({}, optional={"vocab_size": JUNK, "text_heads": JUNK, "activation": JUNK}))
def test_a_file_with_other_sizes_loads_or_is_refused(folder, sizes):
    tensors = {k: v.contiguous() for k, v in SMALL.state_dict().items()}
    used = {"token_embedding.rows": torch.arange(40), "token_embedding.weight": torch.zeros(40, 16)}
    about = {"sizes": json.dumps(sizes), "rows_seed": "1", "rows_std": "1"}
    save_file(tensors | used, folder / "says.safetensors", metadata=about)
    loaded(folder / "says.safetensors")


@given(
    about=st.fixed_dictionaries({"model_type": st.just("clip")}, optional={"text_config": JUNK, "projection_dim": JUNK})
)
def test_any_configuration_of_transformers_loads_or_is_refused(folder, about):
    if not (folder / "transformers").is_dir():
        write_transformers(folder / "transformers", SMALL.state_dict(), SMALL.config)
    (folder / "transformers" / "config.json").write_text(json.dumps(transformers_config(SMALL.config) | about))
    loaded(folder / "transformers")


@given(vision=JUNK | st.fixed_dictionaries({}, optional={"layers": JUNK, "width": JUNK, "head_width": JUNK}))
def test_any_configuration_of_open_clip_loads_or_is_refused(folder, vision):
    if not (folder / "open_clip").is_dir():
        write_open_clip(folder / "open_clip", SMALL.state_dict(), SMALL.config)
    about = {"model_cfg": open_clip_config(SMALL.config) | {"vision_cfg": vision}}
    (folder / "open_clip" / "open_clip_config.json").write_text(json.dumps(about))
    loaded(folder / "open_clip")


@given(data=st.data())
def test_a_state_dict_of_other_tensors_loads_or_is_refused(folder, data):
    state = {k: v for k, v in SMALL.state_dict().items() if k != "token_embedding.weight"}
    state["token_embedding.weight"] = torch.zeros(49408, 1).expand(-1, 16)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from([*state, "extra"]))
        shape = data.draw(st.lists(st.integers(0, 5), max_size=4))
        kind = data.draw(st.sampled_from([torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16]))
        odd = torch.zeros(shape, dtype=kind)
        nan = torch.full(SMALL.state_dict()[name].shape if name != "extra" else shape, torch.nan)
        state[name] = data.draw(st.sampled_from([odd, nan, odd.to_sparse() if shape else odd, "text", None]))
    torch.save(state, folder / "state.pt")
    loaded(folder / "state.pt")


@given(data=st.data())
def test_a_damaged_openai_archive_loads_or_is_refused(folder, data):
    path = folder / "archive.pt"
    write_archive(path, {"visual.proj": torch.ones(2, 3), "a.b.c": torch.ones(4)})
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    for device in ("cpu", "meta"):
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_torchscript(path, device).values())
        except UserError as error:
            one_line(error)
    loaded(path)


CHECKPOINT = {"state_dict": {"ctx": torch.ones(4, 3)}, "epoch": 3, "val_result": None, "optimizer": {"a": [1, 2.0]}}


@given(data=st.data(), original=st.booleans())
def test_a_damaged_checkpoint_loads_or_is_refused(folder, data, original):
    path = folder / "model.pth.tar-3"
    torch.save(original_checkpoint({"ctx": torch.ones(4, 3)}) if original else CHECKPOINT, path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        load_checkpoint(path)
    except UserError as error:
        one_line(error)


@given(data=st.data())
def test_other_content_of_a_checkpoint_loads_or_is_refused(folder, data):
    learner = nn.Module()
    learner.ctx = nn.Parameter(torch.zeros(4, 3))
    checkpoint = data.draw(grafted({**CHECKPOINT, "classnames": ["ant", "bee"]}))
    path = folder / "model.pth.tar-4"
    try:
        torch.save(checkpoint, path)
    except (UnicodeEncodeError, OverflowError):
        return  # torch does not write it either
    try:
        load_model_file(learner, path)
    except UserError as error:
        assert str(error).strip()


@given(name=TEXTS)
def test_any_backbone_name_loads_or_is_refused(name):
    with pytest.raises(UserError):
        clip.backbone_config(name)
    with pytest.raises(UserError):
        clip.backbone_config(f"open_clip:{name}")
