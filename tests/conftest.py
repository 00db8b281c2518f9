"""What all tests share: one thread for each process of theirs, and for every process that they start."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
