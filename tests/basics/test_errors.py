"""A user's mistake reads the same wherever it was found."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from basics import MissingFile, UserError


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise MissingFile('no picture at "a.png": expected one,\nfound none')


@pytest.mark.parametrize("workers", [0, 1])
def test_a_message_from_a_loaders_worker_is_the_message_alone(workers):
    with pytest.raises(UserError) as info:
        next(iter(DataLoader(Broken(), num_workers=workers, generator=torch.Generator())))
    assert str(info.value) == 'no picture at "a.png": expected one,\nfound none'
