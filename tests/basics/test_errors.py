"""A user's error has the same message wherever it was raised."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from basics import MissingFile, UserError, explain_missing_package


class Broken(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise MissingFile('no picture at "a.png": expected one,\ngot none')


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_data_worker_keeps_its_message(workers):
    with pytest.raises(UserError) as info:
        next(iter(DataLoader(Broken(), num_workers=workers, generator=torch.Generator())))
    assert str(info.value) == 'no picture at "a.png": expected one,\ngot none'


def test_a_missing_optional_package_names_its_extra():
    assert "promptlearn-clip[tune]" in str(explain_missing_package(ModuleNotFoundError(name="optuna.trial")))
    with pytest.raises(ModuleNotFoundError):
        explain_missing_package(ModuleNotFoundError(name="torch"))
