"""`sine tune`: teach an adapter the picture, patch by patch (Sec. 3.3)."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sine_cli.errors import Interrupted, SineError
from sine_cli.method.patches import cut, draw_boxes
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.method.tuning import Examples, Tuning, TuningPlan
from sine_cli.models.adapter import attach_adapter, positions
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_base
from sine_cli.models.device import best_device, best_dtype, peak_memory
from sine_cli.project.files import make_folder, remove, shown, storage_errors, write_bytes, write_text
from sine_cli.project.folder import Project
from sine_cli.project.manifest import Manifest, TuneSettings
from sine_cli.project.runs import save_picture
from sine_cli.project.source import read_picture
from sine_cli.workflow.adapters import AdapterRecord, intact_record, write_adapter
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.plots import loss_plot
from sine_cli.workflow.record import sha256, versions
from sine_cli.workflow.render import NULL, Recipe, Renderer, embed, recipe_of
from sine_cli.workflow.size import Size, default_size

ENCODED_AT_ONCE = 16 * 128**2
"""Pixels in one call of the autoencoder: 16 patches of `mini`, one of `sd15`."""

LOSS_WINDOW = 50
"""Steps over which the reported loss is averaged: one step's depends mostly on the times it drew."""


@dataclass(frozen=True)
class TuneProgress:
    """Where a tuning is: encoding patches while `loss` is None, then tuning; `loss` is a running mean."""

    done: int
    total: int
    loss: float | None = None


@dataclass(frozen=True)
class TuneResult:
    """The adapter's record, and whether it was gone on with from a checkpoint, or was there already."""

    record: AdapterRecord
    resumed_at: int
    already_there: bool = False


class TuneInterrupted(Interrupted):
    """Tuning was asked to stop, and a checkpoint holds the first `step` steps."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the same command goes on from step {step}")
        self.step = step


def tune(
    project: Project,
    manifest: Manifest,
    settings: TuneSettings,
    on_progress: Callable[[TuneProgress], None] = lambda _: None,
    on_notice: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TuneResult:
    """Tune the project's adapter, going on from its checkpoint where one fits.

    Args:
        should_stop: asked between two steps, so that no step is left half done.

    Raises:
        UserError, SineError: the base cannot be had, the picture is gone, the loss is not a number, disk.
        TuneInterrupted: `should_stop` said so.
    """
    started = time.monotonic()

    # 1. What the adapter would be made from; the same again need not be made again
    picture = read_picture(project.source(manifest)).image
    location = find_base(manifest)
    device = best_device()
    identity = {
        "base": manifest.base,
        "base_revision": location.revision,
        "source_sha256": sha256(project.source(manifest)),
        "source_prompt": manifest.prompts.source,
        "tune": settings.model_dump(),
        "frequencies": FREQUENCIES,
        "device": device.type,
        "dtype": str(best_dtype(device)).removeprefix("torch."),
        "versions": versions(),
    }
    record = intact_record(project)
    if record and all(record.model_dump()[key] == value for key, value in identity.items()):
        return TuneResult(record, 0, already_there=True)

    # 2. The base with a fresh adapter
    base = load_base(location.path, location.variant, device, best_dtype(device))
    adapter = attach_adapter(
        base.unet, rank=settings.rank, targets=settings.targets, frequencies=FREQUENCIES, seed=settings.seed
    )
    backbone = UNetBackbone(base.unet, positions(adapter), factor=base.autoencoder.factor)
    backbone.prepare_tuning()

    # 3. The source prompt, then the text encoder leaves memory
    embeddings = embed(base, [manifest.prompts.source, NULL])
    base.text.release()

    # 4. Patches and the whole picture, encoded ahead
    size = _whole_size(base, picture)
    examples = _encode(base, picture, size, settings, on_progress, should_stop)

    # 5. The tuning, from its checkpoint where one fits
    source = embeddings[manifest.prompts.source]
    tuning = Tuning(
        plan=plan_of(settings),
        schedule=base.schedule,
        examples=examples,
        predict=lambda x_t, t, boxes: backbone.tuned(x_t, t, source, boxes),
        lora=adapter.lora_parameters(),
        position=adapter.position_parameters(),
    )
    log = _Log(project, identity, started, on_notice)
    log.restore(tuning)
    resumed_at = tuning.taken

    # 6. Step by step
    preview = _preview_recipe(manifest, size)
    renderer = Renderer(base, backbone, embeddings)
    while not tuning.done:
        log.add(tuning.step())
        on_progress(TuneProgress(tuning.taken, settings.steps, log.recent_loss()))
        stop = should_stop()
        if not tuning.done and (stop or tuning.taken % settings.checkpoint_every == 0):
            log.checkpoint(tuning)
        if settings.preview_every and (tuning.taken % settings.preview_every == 0 or tuning.done):
            save_picture(
                project.tuning_dir / "previews" / f"step-{tuning.taken:06d}.png",
                renderer.picture(preview),
                {**preview.as_dict(), **identity, "step": tuning.taken},
            )
        if stop and not tuning.done:
            raise TuneInterrupted(tuning.taken)

    # 7. The adapter, then the checkpoint goes
    record = write_adapter(
        project,
        adapter,
        {**identity, "loss": log.recent_loss(), "seconds": log.seconds(), "peak_memory": peak_memory(device)},
    )
    log.close()
    return TuneResult(record, resumed_at)


def _whole_size(base: Base, picture: Image.Image) -> Size:
    factor = base.autoencoder.factor
    return default_size(Size(picture.height, picture.width), base.native_latent_size * factor, factor)


def _encode(
    base: Base,
    picture: Image.Image,
    size: Size,
    settings: TuneSettings,
    on_progress: Callable[[TuneProgress], None],
    should_stop: Callable[[], bool],
) -> Examples:
    native = base.native_latent_size * base.autoencoder.factor
    count = settings.pool if settings.patches else 0
    boxes = draw_boxes(count, settings.min_patch, torch.Generator().manual_seed(settings.seed))
    encoded: list[Tensor] = []
    at_once = max(1, ENCODED_AT_ONCE // native**2)
    for start in range(0, count, at_once):
        if should_stop():
            raise KeyboardInterrupt
        patches = [cut(picture, box, native, native) for box in boxes[start : start + at_once]]
        encoded.append(base.autoencoder.encode(patches))
        on_progress(TuneProgress(start + len(patches), count))
    whole = base.autoencoder.encode([cut(picture, torch.tensor(WHOLE), size.height, size.width)])
    patches = torch.cat(encoded) if encoded else whole.new_zeros(0, *whole.shape[1:])
    return Examples(patches, boxes.to(base.device), whole)


def plan_of(settings: TuneSettings) -> TuningPlan:
    """The manifest's settings as the method has them."""
    return TuningPlan(
        steps=settings.steps,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        position_learning_rate=settings.position_learning_rate,
        whole=settings.whole,
        min_timestep=settings.min_timestep,
        seed=settings.seed,
    )


def _preview_recipe(manifest: Manifest, size: Size) -> Recipe:
    """The tuned model alone: as near to the picture as it has come."""
    alone = manifest.edit.model_copy(update={"switch_step": 0, "base_weight": 0.0, "negative": ""})
    return recipe_of(manifest, alone, prompt=manifest.prompts.source, size=size)


class _Log:
    """The `tuning/` folder: losses, their plot, and the checkpoint, one file that is replaced whole."""

    def __init__(
        self,
        project: Project,
        identity: dict[str, Any],
        started: float,
        on_notice: Callable[[str], None],
    ) -> None:
        self.folder = project.tuning_dir
        self.file = project.tuning_dir / "checkpoint" / "state.safetensors"
        self.identity = json.dumps(identity, sort_keys=True)
        self.on_notice = on_notice
        self.losses: list[float] = []
        self.before = 0.0
        self.started = started

    def add(self, loss: float) -> None:
        if loss != loss:
            raise SineError(
                f"the loss is not a number (NaN) after {len(self.losses)} steps",
                "lower `tune.learning_rate` in sine.yaml, then run `sine tune` again",
            )
        self.losses.append(loss)

    def recent_loss(self) -> float:
        recent = self.losses[-LOSS_WINDOW:]
        return sum(recent) / len(recent)

    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.started, 1)

    def restore(self, tuning: Tuning) -> None:
        """Put the tuning where its checkpoint left it; one of other settings is not gone on with, aloud."""
        if not self.file.is_file():
            return
        try:
            with safe_open(self.file, framework="pt") as file:
                about = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            self.on_notice(f"{shown(self.file)} is damaged ({error}); starting from step 0")
            return
        if about.get("identity") != self.identity:
            self.on_notice(
                "the checkpoint was made with other settings, base, picture or versions; starting from step 0"
            )
            return
        tuning.load_state(state)
        self.losses = json.loads(about["losses"])
        self.before = float(about["seconds"])

    def checkpoint(self, tuning: Tuning) -> None:
        """Write losses and state; at any moment the file on the disk is a whole one."""
        with storage_errors(self.file):
            make_folder(self.file.parent)
        about = {"identity": self.identity, "losses": json.dumps(self.losses), "seconds": str(self.seconds())}
        write_bytes(self.file, save(tuning.state(), metadata=about))
        self._write_losses()

    def close(self) -> None:
        """The losses and their plot; the checkpoint has served."""
        with storage_errors(self.folder):
            make_folder(self.folder)
        self._write_losses()
        write_bytes(self.folder / "loss.png", loss_plot(self.losses))
        remove(self.file.parent)

    def _write_losses(self) -> None:
        rows = [f"{step},{loss:.6f}" for step, loss in enumerate(self.losses, start=1)]
        write_text(self.folder / "loss.csv", "\n".join(["step,loss", *rows]) + "\n")
