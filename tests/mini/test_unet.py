"""Times of a batch: one in each equal part of all, and none beyond the last."""

import pytest
import torch

from sine_cli.mini.unet import alphas_cumprod, spread_times


@pytest.mark.parametrize("size", [8, 64, 512, 1024])
def test_each_time_lies_in_its_own_part_even_at_the_ends(size: int) -> None:
    first, last = torch.zeros(size), torch.full((size,), 1 - 2.0**-24)
    for shares in (first, last, torch.rand(size, generator=torch.Generator().manual_seed(size))):
        t = spread_times(shares)
        assert t.dtype == torch.int64
        assert 0 <= t.min() <= t.max() < len(alphas_cumprod())
        parts = torch.arange(size) * 1000 / size
        assert ((t >= parts.floor() - 1) & (t <= parts + 1000 / size)).all()
