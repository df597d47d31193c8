"""A state with unexpected content is refused with a message, or resumed; nothing in between."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import grafted

from basics import UserError
from dassl.engine import record, state
from dassl.utils import load_checkpoint


def test_a_state_with_other_content_is_refused_with_a_message(make):
    trainer = make()
    trainer.train()
    path = f"{trainer.output_dir}/{record.STATE_FILE}"
    whole = load_checkpoint(path)
    settings = {key: whole.pop(key) for key in ("format", "config")}  # any change of these is another run's state

    @given(data=st.data())
    def restore(data):
        try:
            changed = data.draw(grafted(whole))
            torch.save({**settings, **changed} if isinstance(changed, dict) else changed, path)
        except (UnicodeEncodeError, OverflowError):
            return  # torch does not write it either
        try:
            assert state.restore_state(trainer, path) >= 0
        except UserError as error:
            assert path in str(error) and "Traceback" not in str(error)

    restore()
