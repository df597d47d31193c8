import argparse
import os.path as osp
import re
from collections import OrderedDict, defaultdict

import numpy as np

from dassl.utils import check_isfile, listdir_nohidden


def parse_function(*metrics, directory="", args=None, end_signal=None):
    outputs = []
    for subdir in listdir_nohidden(directory, sort=True):
        fpath = osp.join(directory, subdir, "log.txt")
        assert check_isfile(fpath)
        good_to_go, output = False, OrderedDict()
        with open(fpath) as f:
            for line in f:
                line = line.strip()
                if line == end_signal:
                    good_to_go = True
                for metric in metrics:
                    match = metric["regex"].search(line)
                    if match and good_to_go:
                        output[metric["name"]] = float(match.group(1))
        if output:
            outputs.append(output)
    assert len(outputs) > 0, f"Nothing found in {directory}"
    results = defaultdict(list)
    for output in outputs:
        for key, value in output.items():
            results[key].append(value)
    for key, values in results.items():
        print(f"* {key}: {np.mean(values):.2f}% +- {np.std(values):.2f}%")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=str)
    parser.add_argument("--test-log", action="store_true")
    parser.add_argument("--keyword", default="accuracy", type=str)
    args = parser.parse_args()
    end_signal = "=> result" if args.test_log else "Finish training"
    metric = {"name": args.keyword, "regex": re.compile(rf"\* {args.keyword}: ([\.\deE+-]+)%")}
    parse_function(metric, directory=args.directory, args=args, end_signal=end_signal)
