"""Make the bundled subset of Fashion-MNIST from its original files: ``python training/bundle_data.py``.

The first images of each split, in the files' own order: all labels, then all pixels, one byte each, compressed by LZMA.
"""

from __future__ import annotations

import argparse
import lzma
from pathlib import Path
from typing import Literal

import headstart.data
from headstart.data.fashion_mnist import DEBIAN, read_original


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DEBIAN, help="folder with the four original files")
    parser.add_argument("--out", type=Path, default=Path(headstart.data.__path__[0]))
    parser.add_argument("--train", type=int, default=14_000, help="number of training images")
    parser.add_argument("--test", type=int, default=6_000, help="number of test images")
    args = parser.parse_args()

    splits: list[tuple[Literal["train", "test"], int]] = [("train", args.train), ("test", args.test)]
    for split, count in splits:
        pixels, labels = read_original(args.folder, split)
        raw = labels[:count].tobytes() + pixels[:count].tobytes()
        packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
        (args.out / f"fashion_mnist_{split}.xz").write_bytes(packed)
        print(f"{split}: {count} images in {len(packed):,} bytes")


if __name__ == "__main__":
    main()
