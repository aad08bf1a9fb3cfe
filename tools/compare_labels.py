"""Do two files of verdicts agree: which candidates passed in one run and failed in the other.

python tools/compare_labels.py first.jsonl second.jsonl [--max_share 0.001]
"""

from __future__ import annotations

import argparse
import sys

from daj_lightning.data.labels import flips, read_labels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2)
    parser.add_argument("--max_share", type=float, default=0.001, help="of flipped verdicts, for exit status 0")
    args = parser.parse_args()
    first, second = (read_labels([path]) for path in args.files)
    common = first.keys() & second.keys()
    flipped = flips(first, second)
    for name in flipped:
        print(f"{name}: {first[name].verdict.outcome.value}, then {second[name].verdict.outcome.value}")
    share = len(flipped) / max(len(common), 1)
    alone = len(first.keys() ^ second.keys())
    print(f"{len(flipped)} of {len(common)} verdicts flip ({share:.2%}); {alone} candidates stand in one file only")
    return 0 if common and share <= args.max_share else 1


if __name__ == "__main__":
    sys.exit(main())
