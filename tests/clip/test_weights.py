"""Backbones are found by name or file, all sizes come from the file, and a bad file gives one clear message."""

import warnings
import zipfile

import open_clip.pretrained
import pytest
import torch
from hostile import Calls
from safetensors.torch import save_file
from small_clip import make_small_clip
from torch import nn
from torchscript_archive import write_archive

import clip
from basics import UserError, sha256
from clip import sources, weight_files, weights
from clip.archive import read_torchscript


@pytest.fixture
def state():
    return {k: v.contiguous() for k, v in make_small_clip().state_dict().items()}


SIZES = '{"vision_heads": 4, "text_heads": 2}'


def test_a_safetensors_file_gives_back_the_model(tmp_path, state):
    save_file(state, tmp_path / "clip.safetensors", metadata={"sizes": SIZES})
    model = clip.load_clip(str(tmp_path / "clip.safetensors"))
    assert model.config == make_small_clip().config
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.weights_sha256 == sha256(tmp_path / "clip.safetensors")


def test_a_plain_state_dict_gives_back_the_model_with_openais_head_width(tmp_path, state):
    wide = {k: v for k, v in state.items()}
    torch.save({"state_dict": wide}, tmp_path / "clip.pt")
    read, metadata = weights.read(tmp_path / "clip.pt")
    assert metadata == {} and read.keys() == state.keys()


def test_only_trained_rows_are_stored_and_the_others_sampled_again(tmp_path):
    model = make_small_clip()
    rows = torch.tensor([5, 49406, 49407])
    path = tmp_path / "rows.safetensors"
    path.write_bytes(weights.save_rows(model, rows, rows_seed=3))
    first, second = clip.load_clip(str(path)), clip.load_clip(str(path))
    table = first.token_embedding.weight
    torch.testing.assert_close(table[rows], model.token_embedding.weight[rows], atol=1e-3, rtol=1e-3)
    assert torch.equal(table, second.token_embedding.weight)
    assert table.std().item() == pytest.approx(table[rows].std().item(), rel=0.05)
    assert path.stat().st_size < 200_000


def test_half_precision_keeps_layer_norms_in_float32(tmp_path, state):
    save_file(state, tmp_path / "clip.safetensors", metadata={"sizes": SIZES})
    model = clip.load_clip(str(tmp_path / "clip.safetensors"), torch.float16)
    assert model.dtype == torch.float16
    assert model.ln_final.weight.dtype == torch.float32 and model.logit_scale.dtype == torch.float32


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"NAME: expected one of .*tiny.*, got 'ViT-B/17'. Did you mean 'ViT-B/16'\?"):
        clip.load_clip("ViT-B/17")


def test_a_missing_network_gives_a_clear_message(monkeypatch):
    def refuse(url):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_url", refuse)
    with pytest.raises(UserError, match=r"ViT-B/16: expected its weights from https://.*ViT-B-16\.pt.*unreachable"):
        clip.load_clip("ViT-B/16")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"not weights", bytes(range(256)) * 8])
def test_a_damaged_file_is_refused_by_name(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.\w+: expected tensors only"):
        clip.load_clip(str(path))


def test_a_truncated_file_is_refused(tmp_path, state):
    path = tmp_path / "cut.safetensors"
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut.safetensors: expected tensors only"):
        clip.load_clip(str(path))


def flip_last_number(path):
    """Flip one bit of one number: the file stays readable, but its checksum is wrong."""
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda r: r.file_size)
        start = record.header_offset
    data = bytearray(path.read_bytes())
    name_length, extra_length = data[start + 26 : start + 28], data[start + 28 : start + 30]
    first = start + 30 + int.from_bytes(name_length, "little") + int.from_bytes(extra_length, "little")
    data[first + record.file_size - 1] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_detected(tmp_path, state):
    torch.save(state, tmp_path / "flipped.pt")
    clip.weights.read(tmp_path / "flipped.pt")
    flip_last_number(tmp_path / "flipped.pt")
    with pytest.raises(UserError, match="flipped.pt: expected tensors only .* the checksum of .* is wrong"):
        clip.load_clip(str(tmp_path / "flipped.pt"))


def test_the_tiny_clip_is_the_one_that_was_pretrained(tmp_path, monkeypatch):
    clip.load_clip("tiny")
    damaged = tmp_path / "tiny.safetensors"
    damaged.write_bytes(sources.TINY.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(sources, "TINY", damaged)
    with pytest.raises(UserError, match="tiny.safetensors: expected SHA-256"):
        clip.load_clip("tiny")


def test_a_missing_name_lists_the_known_ones():
    with pytest.raises(UserError, match="expected one of .*ViT-B/16.*, got none. Give --backbone or --config-file"):
        clip.load_clip("")


def test_a_file_with_a_command_is_refused_and_runs_nothing(tmp_path):
    torch.save({"state_dict": Calls(open, str(tmp_path / "ran"), "w")}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="evil.pt: expected tensors only"):
        clip.load_clip(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("visual.proj"), r"visual.proj \(missing\)"),
        (lambda s: s.update({"visual.extra": torch.zeros(1)}), r"visual.extra \(unexpected\)"),
        (lambda s: s.update({"ln_final.bias": torch.zeros(7)}), r"ln_final.bias \(expected \(16,\), got \(7,\)\)"),
        (lambda s: s.pop("visual.conv1.weight"), "visual.conv1.weight' is missing"),
    ],
)
def test_weights_of_another_kind_are_refused_by_key(tmp_path, state, change, message):
    change(state)
    save_file(state, tmp_path / "odd.safetensors", metadata={"sizes": SIZES})
    with pytest.raises(UserError, match=message):
        clip.load_clip(str(tmp_path / "odd.safetensors"))


def test_an_archive_of_openai_is_read_without_running_it(tmp_path, state, monkeypatch):
    path = tmp_path / "ViT.pt"
    write_archive(path, {**state, "input_resolution": torch.tensor(24.0)})
    monkeypatch.setattr(weight_files, "published_hashes", lambda: {sha256(path)})
    read, _ = weights.read(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[k], state[k]) for k in state)


def test_an_archive_written_by_torchscript_is_read(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 2, 3, padding=(1, 1)).half(), nn.BatchNorm2d(2))
    path = tmp_path / "scripted.pt"
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated, but OpenAI's files remain
        torch.jit.script(model).save(str(path))
    for device in ("cpu", "meta"):
        read = read_torchscript(path, device)
        assert {k: (v.shape, v.dtype) for k, v in read.items()} == {
            k: (v.shape, v.dtype) for k, v in model.state_dict().items()
        }
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in read_torchscript(path).items())


def test_an_archive_that_openai_did_not_publish_is_refused(tmp_path, state):
    write_archive(tmp_path / "other.pt", state)
    with pytest.raises(UserError, match="an archive that OpenAI published, got"):
        clip.load_clip(str(tmp_path / "other.pt"))


def test_an_archive_with_other_objects_is_refused(tmp_path, state, monkeypatch):
    path = tmp_path / "evil.pt"
    write_archive(path, state, Calls(open, str(tmp_path / "ran"), "w"))
    monkeypatch.setattr(weight_files, "published_hashes", lambda: {sha256(path)})
    with pytest.raises(UserError, match=r"objects other than tensors \('_?io.open'\)"):
        weights.read(path)
    assert not (tmp_path / "ran").exists()


def test_every_published_archive_has_a_sha256():
    assert len(weight_files.published_hashes()) == len(sources.OPENAI)
    assert all(len(h) == 64 for h in weight_files.published_hashes())
