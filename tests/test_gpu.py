"""What only an accelerator can show. Run with `pytest -m gpu` on a machine that has one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sine_cli.mini.training import as_graphs, autocast
from sine_cli.project.folder import Project
from sine_cli.project.manifest import Manifest, load_manifest
from sine_cli.workflow import open as opening
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.tune import TuneInterrupted, tune
from tests.benchmarks.memory import measured, write_base

DEMO = Path(__file__).parents[1] / "templates" / "demo" / "castle.png"

pytestmark = pytest.mark.gpu


def made(project: Project, manifest: Manifest) -> np.ndarray:
    request = EditRequest(["a castle at night"], manifest.edit)
    return np.asarray(Image.open(edit(project, manifest, request)[0].pictures[0]), np.float32) / 255


def test_an_adapter_tuned_on_the_accelerator_edits_alike_there_and_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = init(InitRequest(DEMO, "castle", base="mini")).project
    manifest = load_manifest(project.manifest_path)
    settings = manifest.tune.model_copy(update={"steps": 40, "pool": 32, "preview_every": 0})
    taken: list[int] = []
    with pytest.raises(TuneInterrupted):
        tune(
            project,
            manifest,
            settings,
            lambda p: taken.append(p.done),
            should_stop=lambda: taken[-1:] == [20],
        )
    result = tune(project, manifest, settings)
    record = result.record
    assert result.resumed_at == 20
    assert record.device != "cpu"
    assert record.peak_memory > 0
    monkeypatch.setattr(opening, "best_dtype", lambda device: torch.float32)
    there = made(project, manifest)
    monkeypatch.setattr(opening, "best_device", lambda: torch.device("cpu"))
    here = made(project, manifest)
    assert np.abs(there - here).mean() < 0.01


@pytest.mark.parametrize(("name", "most"), [("sd15", 8), ("sdxl", 16)])
def test_real_shapes_tune_and_edit_at_their_native_size_within_a_card(
    name: str, most: int, tmp_path: Path
) -> None:
    write_base(tmp_path / "base", name)
    figures = measured(tmp_path / "base", name, "low", tmp_path, steps=3, pool=2, edit_steps=4)
    assert figures.tuning_memory < most * 1e9
    assert figures.edit_memory < most * 1e9


def test_graphs_of_several_shapes_learn_as_the_model_launched_kernel_by_kernel() -> None:
    torch.manual_seed(0)

    class Cast(nn.Module):
        def __init__(self, layers: nn.Module):
            super().__init__()
            self.layers = layers

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with autocast():
                return self.layers(x)

    layers = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 16)).cuda()
    plain = Cast(layers)
    graphs = {size: as_graphs(Cast(layers), (torch.zeros(size, 16, device="cuda"),)) for size in (8, 32)}
    for size in (8, 32, 8, 32):  # each also with other weights than it was recorded with
        x = torch.randn(size, 16, device="cuda")
        gradients: list[list[torch.Tensor]] = []
        for step in (plain, graphs[size]):
            step(x).float().pow(2).mean().backward()
            gradients.append([p.grad.clone() for p in layers.parameters() if p.grad is not None])
            layers.zero_grad(set_to_none=True)
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(other, one)
        with torch.no_grad():
            for p in layers.parameters():
                p.mul_(1.1)
