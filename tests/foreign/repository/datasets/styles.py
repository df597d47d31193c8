import os

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import listdir_nohidden


@DATASET_REGISTRY.register()
class Styles(DatasetBase):
    """Trains on some domains and tests on others."""

    dataset_dir = "styles"
    domains = ["plain", "dark", "inverted"]

    def __init__(self, cfg):
        root = os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT))
        self.dataset_dir = os.path.join(root, self.dataset_dir)
        self.check_input_domains(cfg.DATASET.SOURCE_DOMAINS, cfg.DATASET.TARGET_DOMAINS)
        train_x = self.read(cfg.DATASET.SOURCE_DOMAINS)
        test = self.read(cfg.DATASET.TARGET_DOMAINS)
        super().__init__(train_x=train_x, test=test)

    def read(self, domains):
        items = []
        for domain, name in enumerate(domains):
            folder = os.path.join(self.dataset_dir, name)
            for label, classname in enumerate(listdir_nohidden(folder, sort=True)):
                for file in listdir_nohidden(os.path.join(folder, classname), sort=True):
                    path = os.path.join(folder, classname, file)
                    items.append(Datum(impath=path, label=label, domain=domain, classname=classname))
        return items
