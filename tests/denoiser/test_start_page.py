"""The table of the first page: each line makes a denoiser of the network that it describes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import headstart
from headstart import DiscreteVariancePreserving, RectifiedFlow, VarianceExploding, VariancePreserving
from tests.denoiser.test_check import DATA, DDPM, exact, network_of

PAGE = Path(__file__).parents[2] / "docs" / "start.md"
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)

#: The networks that the lines are for, in their order, by definition.
NETWORKS: list[Callable[..., Tensor]] = [
    exact,
    lambda x, c: exact(x, c.exp()),
    network_of(exact, DiscreteVariancePreserving(DDPM.tolist()), "epsilon"),
    network_of(exact, VariancePreserving(0.1, 20.0), "epsilon"),
    network_of(exact, VarianceExploding(), "epsilon"),
    network_of(exact, RectifiedFlow(), "flow"),
    network_of(exact, RectifiedFlow(data_at=1), "flow"),
]


def codes() -> list[str]:
    """The code of each line."""
    table = PAGE.read_text(encoding="utf-8").partition("| is a denoiser by |\n|---|---|\n")[2].partition("\n\n")[0]
    told = [line.split("|")[2].strip() for line in table.splitlines()]
    return ["network" if line == "itself" else line.strip("`") for line in told]


def test_the_table_has_a_line_for_each_network() -> None:
    assert len(codes()) == len(NETWORKS)
    assert "torch.cumprod(1 - betas, 0)" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("line", range(len(NETWORKS)))
def test_each_line_makes_a_denoiser(line: int) -> None:
    names = {**vars(headstart), "network": NETWORKS[line], "alphas_cumprod": torch.cumprod(1 - BETAS, 0)}
    code = codes()[line]
    assert re.fullmatch(r"network|lambda.*|adapt\(network, .*\)", code)
    found = eval(code, names)
    x, sigma = DATA[:8], torch.full((8,), 0.7)
    torch.testing.assert_close(found(x, sigma), exact(x, sigma), atol=1e-4, rtol=1e-4)
    assert not headstart.check(found, DATA).errors
