"""UCF101: 101 human actions (Soomro et al., "UCF101 ...", arXiv:1212.0402), as the middle frame of each video.

Expected in the DATA folder: ``ucf101/UCF-101-midframes/<Action_Name>/*.jpg`` and, to use the CoOp family's split,
``ucf101/split_zhou_UCF101.json``; without it, ``ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt`` next to it.
"""

import os
import re

from dassl.data.datasets import DATASET_REGISTRY, Datum, FewShotDataset, read_annotations, split_trainval


@DATASET_REGISTRY.register()
class UCF101(FewShotDataset):
    """UCF101, first split. Without the split file, 20 % of each action's training frames become val."""

    dataset_dir = "ucf101"
    image_dir = "UCF-101-midframes"
    split_file = "split_zhou_UCF101.json"
    prompt = "a photo of a person doing {}."

    def make_split(self) -> tuple[list[Datum], list[Datum], list[Datum]]:
        lists = os.path.join(self.dataset_dir, "ucfTrainTestlist")
        labels = dict(read_annotations(os.path.join(lists, "classInd.txt"), action_and_label, "a number and an action"))

        def parse(line: str) -> Datum:
            """Parse "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"; the test list leaves the number out."""
            action, video = line.split(" ")[0].split("/")
            name = spaced(action)
            frame = os.path.join(self.image_dir, name, video.replace(".avi", ".jpg"))
            return Datum(frame, labels[action], classname=name)

        trainval, test = (
            read_annotations(os.path.join(lists, file), parse, "an action of classInd.txt and its video")
            for file in ("trainlist01.txt", "testlist01.txt")
        )
        train, val = split_trainval(trainval, rng=self.rng)
        return train, val, test


def action_and_label(line: str) -> tuple[str, int]:
    """Split "1 ApplyEyeMakeup" into ("ApplyEyeMakeup", 0)."""
    number, action = line.split(" ")
    return action, int(number) - 1


def spaced(action: str) -> str:
    """Name the folder of an action: "ApplyEyeMakeup" -> "Apply_Eye_Makeup"."""
    return "_".join(re.findall("[A-Z][^A-Z]*", action))
