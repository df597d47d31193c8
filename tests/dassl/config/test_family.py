"""Keys as released commands of the CoOp family spell them."""

import pytest

import trainers
from basics import UserError
from dassl.config import get_cfg_default, merge_valid
from dassl.config.family import translate


def merged(method, *opts):
    cfg = get_cfg_default()
    trainers.extend_cfg(cfg)
    problems = merge_valid(cfg, opts=opts, translate=lambda key, value: translate(method, key, value))
    return cfg.TRAINER, problems


def test_seps_released_command_sets_seps_settings():
    command = "N_CTX 5 N_CTX_V 3 CSC False W 7.0 L_IND 0 W_V 5.0 CTX_INIT False CLASS_TOKEN_POSITION end".split()
    opts = [word if i % 2 else f"TRAINER.COOP.{word}" for i, word in enumerate(command)]
    node, problems = merged("SEP", *opts)
    assert problems == []
    assert (node.SEP.N_CTX, node.SEP.N_CTX_V, node.SEP.W, node.SEP.W_V, node.SEP.CTX_INIT) == (5, 3, 7.0, 5.0, "")
    assert node.COOP == merged("SEP")[0].COOP


@pytest.mark.parametrize(("value", "words"), [("True", "a photo of a"), (True, "a photo of a"), (False, "")])
def test_the_start_from_words_may_be_a_boolean(value, words):
    assert merged("SEP", "TRAINER.COOP.CTX_INIT", value)[0].SEP.CTX_INIT == words
    assert merged("CoOp", "TRAINER.COOP.CTX_INIT", value)[0].COOP.CTX_INIT == words


def test_settings_that_sep_lacks_are_refused():
    for key, value in (("CSC", "True"), ("CLASS_TOKEN_POSITION", "middle"), ("L_IND", "2")):
        with pytest.raises(UserError, match=rf"TRAINER.COOP.{key}: expected .* with SEP, got {value}"):
            translate("SEP", f"TRAINER.COOP.{key}", value)
    assert "unknown key TRAINER.SEP.M" in merged("SEP", "TRAINER.COOP.M", 1)[1][0]


def test_other_methods_keep_their_keys():
    assert translate("CoOp", "TRAINER.COOP.N_CTX", "4") == [("TRAINER.COOP.N_CTX", "4")]
