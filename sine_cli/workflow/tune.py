"""`sine tune`: teach an adapter the picture, patch by patch (Sec. 3.3)."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sine_cli.errors import Interrupted, SineError
from sine_cli.method.patches import cut, draw_boxes
from sine_cli.method.position import FREQUENCIES, WHOLE
from sine_cli.method.tuning import Examples, Patches, Tuning, TuningPlan, adamw
from sine_cli.models.adapter import Adapter, attach_adapter, tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_base
from sine_cli.models.device import best_device, best_dtype, peak_memory, small_optimizer
from sine_cli.models.rows import TUNED
from sine_cli.models.text import Conditioning
from sine_cli.project.files import (
    make_folder,
    sha256,
    shown,
    storage_errors,
    write_bytes,
    write_text,
)
from sine_cli.project.folder import Project
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.lock import held
from sine_cli.project.manifest import Manifest, TuneSettings
from sine_cli.project.migration import migrate
from sine_cli.project.runs import save_picture
from sine_cli.workflow.adapter_record import AdapterRecord
from sine_cli.workflow.adapters import intact_record, write_adapter
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.checkpoint import LOOSE, Checkpoint, versions_in
from sine_cli.workflow.fit import check_tuning_fits
from sine_cli.workflow.kept_adapters import keep_adapter, take_up_adapter
from sine_cli.workflow.open import stored_picture
from sine_cli.workflow.plots import loss_plot
from sine_cli.workflow.prior import class_pictures, class_settings
from sine_cli.workflow.record import other_versions, versions
from sine_cli.workflow.render import Reading, Recipe, Renderer, embed, recipe_of
from sine_cli.workflow.size import Size, default_size
from sine_cli.workflow.tensors import write_tensors

ENCODED_AT_ONCE = 16 * 128**2
"""Pixels in one call of the autoencoder: 16 patches of `mini`, one of `sd15`."""

LOSS_WINDOW = 50
"""Steps over which the reported loss is averaged: one step's depends mostly on the times it drew."""


@dataclass(frozen=True)
class TuneProgress:
    """Where a tuning is: `done` of `total` of what it does, None where that is not known yet.

    Once it tunes, `loss` is a running mean, and `distance` the last look's of one that may stop early.
    """

    what: Literal["pictures of the class", "encoding patches", "tuning"]
    done: int
    total: int | None
    loss: float | None = None
    distance: float | None = None


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
    *,
    low_memory: bool = False,
) -> TuneResult:
    """Tune the project's adapter, going on from its checkpoint where one fits.

    Args:
        low_memory: whether only the U-Net stays on the device, activations are computed twice, and the
            optimiser keeps 8 bits where it can.
        should_stop: asked between two steps, so that no step is left half done.

    Raises:
        UserError: another process tunes the project.
        UserError, SineError: the base cannot be had, the picture is gone, the loss is not a number, disk.
        TuneInterrupted: `should_stop` said so.  Interrupted: so it did among the pictures of the class.
    """
    with held(project.tuning_lock, f"{project.label} is being tuned"):
        remove_leftovers(project)
        return _tune(project, manifest, settings, on_progress, on_notice, should_stop, low_memory)


def _tune(
    project: Project,
    manifest: Manifest,
    settings: TuneSettings,
    on_progress: Callable[[TuneProgress], None],
    on_notice: Callable[[str], None],
    should_stop: Callable[[], bool],
    low_memory: bool,
) -> TuneResult:
    started = time.monotonic()

    # 1. What the adapter would be made from; the same again need not be made again
    picture = stored_picture(project, manifest)
    project.check_picture(manifest)
    location = find_base(manifest)
    device = best_device()
    small = small_optimizer(device) if low_memory else None
    identity = {
        "base": manifest.base,
        "base_revision": location.revision,
        "source_sha256": sha256(project.source(manifest)),
        "source_prompt": manifest.prompts.source,
        "tune": settings.model_dump(),
        "frequencies": FREQUENCIES,
        "class_pictures": _class_pictures(manifest) if settings.prior else None,
        "device": device.type,
        "dtype": str(best_dtype(device)).removeprefix("torch."),
        "low_memory": low_memory,
        "eight_bits": bool(small),
        "versions": versions(),
    }
    # Where a tuning may stop early, settings of its preview decide when: it goes on with the same alone.
    deciding = {"guidance_scale", "steps", "solver"} if settings.stop_early else set[str]()
    looks = {"preview": manifest.edit.model_dump(include=deciding)} if deciding else {}
    log, previews = _Log(project, identity | looks, started, on_notice), project.tuning_dir / "previews"

    def is_wanted(record: AdapterRecord) -> bool:
        kept = record.model_dump()
        return all(kept[key] == value for key, value in identity.items() if key not in LOOSE)

    record = intact_record(project)
    if record is None or not is_wanted(record):
        record = take_up_adapter(project, is_wanted)
        if record:
            on_notice(
                "an adapter tuned with these settings was kept, and is in its place again; "
                "losses and previews are still those of the other one"
            )
    if record:
        if log.kept.exists():  # of this very tuning, killed after its adapter was there
            log.kept.drop()
        if changed := other_versions(record.versions, versions()):
            on_notice(f"that adapter was tuned with {', '.join(changed)}")
        return TuneResult(record, 0, already_there=True)
    migrate(project, manifest, on_notice)

    # 2. The base; pictures of the class, which it makes while nothing is tuned yet
    base = load_base(location.path, location.variant, device, best_dtype(device), low_memory=low_memory)
    check_tuning_fits(base, manifest.base, settings, low_memory=low_memory)
    prior = None
    if settings.prior:
        prior = class_pictures(
            project,
            manifest,
            base,
            {name: identity[name] for name in ("base", "base_revision", "device", "dtype", "versions")},
            settings.prior,
            lambda *done: on_progress(TuneProgress("pictures of the class", *done)),
            should_stop,
        )

    # 3. A fresh adapter
    adapter = attach_adapter(
        base.unet,
        rank=settings.rank,
        targets=settings.targets,
        frequencies=FREQUENCIES,
        seed=settings.seed,
        text=base.text if settings.text_encoder else None,
    )
    backbone = UNetBackbone(base.unet, tuned_models(adapter), factor=base.autoencoder.factor)
    backbone.prepare_tuning(low_memory=low_memory)

    # 4. The prompts; then the text encoder leaves memory, unless it learns too
    preview = _preview_recipe(manifest, size := _whole_size(base, picture))
    words = _Words(base, adapter, [(TUNED, manifest.prompts.of_class), *preview.readings])

    # 5. Patches and the whole picture, encoded ahead
    examples = _encode(base, picture, size, settings, prior, on_progress, should_stop)

    # 6. The tuning, from its checkpoint where one fits
    if low_memory and not small:
        on_notice("the optimiser keeps 32 bits; 8 are enough with `pip install 'sine-cli[low-memory]'`")

    def predict(x_t: Tensor, t: Tensor, boxes: Tensor | None) -> Tensor:
        prompt = manifest.prompts.of_class if boxes is None else manifest.prompts.source
        return backbone.tuned(x_t, t, words.tuned(prompt), boxes)

    tuning = Tuning(
        plan=plan_of(settings),
        schedule=base.schedule,
        examples=examples,
        predict=predict,
        weights=[*adapter.unet_parameters(), *adapter.text_parameters()],
        position=adapter.position_parameters(),
        new_optimizer=small or adamw,
    )
    log.restore(tuning)
    resumed_at = tuning.taken
    if not resumed_at:
        _remove_previews(previews)  # of an older tuning

    # 7. Step by step
    while not tuning.done:
        if tuning.wants_look:
            tuning.look(_distance(Renderer(base, backbone, words.embeddings()).picture(preview), picture))
        at_once = tuning.at_once
        log.add(tuning.step())
        if tuning.at_once < at_once:
            on_notice(f"memory ran out; from now on {tuning.at_once} of {settings.batch} patches at a time")
        on_progress(
            TuneProgress("tuning", tuning.taken, tuning.steps, log.recent_loss(), tuning.last_distance)
        )
        stop = should_stop()
        if settings.preview_every and (tuning.taken % settings.preview_every == 0 or tuning.done):
            save_picture(
                previews / f"step-{tuning.taken:06d}.png",
                Renderer(base, backbone, words.embeddings()).picture(preview),
                {**preview.as_dict(), **identity, "step": tuning.taken},
            )
        if not tuning.done and (stop or tuning.taken % settings.checkpoint_every == 0):
            log.checkpoint(tuning)  # after the preview: who is killed between them makes it again
        if stop and not tuning.done:
            raise TuneInterrupted(tuning.taken)

    # 8. The losses, the adapter, and then the checkpoint goes
    measured = {
        "steps_taken": tuning.taken,
        "loss": log.recent_loss(),
        "seconds": log.seconds(),
        "peak_memory": peak_memory(device),
    }
    log.close()
    if kept := keep_adapter(project):
        on_notice(f"the adapter that was there, of other settings, base or picture, is kept in {shown(kept)}")
    record = write_adapter(project, adapter, {**identity, **measured})
    log.kept.drop()
    return TuneResult(record, resumed_at)


def _remove_previews(folder: Path) -> None:
    """Remove an older tuning's own previews; what else lies there stays."""
    for preview in folder.glob("step-[0-9]*.png"):
        with storage_errors(preview):
            preview.unlink(missing_ok=True)


def _class_pictures(manifest: Manifest) -> dict[str, Any]:
    """What decides about the pictures of the class, besides what decides about all."""
    return {"prompt": manifest.prompts.of_class, **class_settings(manifest).model_dump()}


def _whole_size(base: Base, picture: Image.Image) -> Size:
    factor = base.autoencoder.factor
    return default_size(Size(picture.height, picture.width), base.native_latent_size * factor, factor)


def _encode(
    base: Base,
    picture: Image.Image,
    size: Size,
    settings: TuneSettings,
    prior: list[Image.Image] | None,
    on_progress: Callable[[TuneProgress], None],
    should_stop: Callable[[], bool],
) -> Examples:
    native = base.native_latent_size * base.autoencoder.factor
    count = settings.pool if settings.patches else 0
    boxes = draw_boxes(count, settings.min_patch, torch.Generator().manual_seed(settings.seed))
    square = Size(native, native)
    squares = count if size == square else count // 2  # the others have the picture's own aspect
    shapes = [
        (shape, part) for shape, part in ((square, boxes[:squares]), (size, boxes[squares:])) if len(part)
    ]
    total, done = count + len(prior or []), 0
    at_once = max(1, ENCODED_AT_ONCE // native**2)

    def encoded(pictures: Iterator[Image.Image]) -> Tensor:
        nonlocal done
        latents = list[Tensor]()
        while several := list(islice(pictures, at_once)):
            if should_stop():
                raise KeyboardInterrupt
            latents.append(base.autoencoder.encode(several))
            done += len(several)
            on_progress(TuneProgress("encoding patches", done, total))
        return torch.cat(latents)

    with base.autoencoder.at_work():
        return Examples(
            patches=[
                Patches(
                    encoded(cut(picture, box, shape.height, shape.width) for box in part),
                    part.to(base.device),
                )
                for shape, part in shapes
            ],
            whole=base.autoencoder.encode([cut(picture, torch.tensor(WHOLE), size.height, size.width)]),
            prior=encoded(iter(prior)) if prior else None,
        )


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
        loss=settings.loss,
        stop_early=settings.stop_early,
    )


class _Words:
    """The prompts as base and tuned model read them; read anew where the text encoder learns."""

    def __init__(self, base: Base, adapter: Adapter, readings: Iterable[Reading]) -> None:
        self.base, self.readings = base, list(readings)
        self.learns = bool(adapter.text)
        self.read = embed(base, self.readings)
        if not self.learns:
            base.text.release()

    def tuned(self, prompt: str) -> Conditioning:
        """A prompt as the tuned model reads it, with gradients where it learns to."""
        if not self.learns:
            return self.read[TUNED, prompt]
        return self.base.text.encode_for_learning([prompt], TUNED)[0].to(self.base.device)

    def embeddings(self) -> dict[Reading, Conditioning]:
        """All of them as of now."""
        return embed(self.base, self.readings) if self.learns else self.read


def _distance(made: Image.Image, source: Image.Image) -> float:
    """Mean absolute distance of the pixels, in [0, 1], the source resized to the size of what was made."""
    resized = source.resize(made.size, Image.Resampling.LANCZOS)
    return float(np.abs(np.asarray(made, np.float32) - np.asarray(resized, np.float32)).mean() / 255)


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
        self.kept, self.identity = Checkpoint(project, identity), json.dumps(identity, sort_keys=True)
        self.file = self.kept.file
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
        """Put the tuning where its checkpoint left it; one of other settings is set aside, aloud."""
        if aside := self.kept.take_up():
            self.on_notice(
                f"a tuning with other settings, base or picture is not finished; {shown(aside)} "
                "keeps it for the command that began it"
            )
        if not self.file.is_file():
            return
        try:
            with safe_open(self.file, framework="pt") as file:
                about = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            self.on_notice(f"{shown(self.file)} is damaged ({error}); starting from step 0")
            return
        if changed := other_versions(versions_in(about), versions()):
            self.on_notice(f"the tuning that goes on was begun with {', '.join(changed)}")
        tuning.load_state(state)
        self.losses = json.loads(about["losses"])
        self.before = float(about["seconds"])

    def checkpoint(self, tuning: Tuning) -> None:
        """Write losses and state; at any moment the file on the disk is a whole one."""
        with storage_errors(self.file):
            make_folder(self.file.parent)
        losses, seconds = json.dumps(self.losses), str(self.seconds())
        about = {"identity": self.identity, "losses": losses, "seconds": seconds}
        write_tensors(self.file, tuning.state(), about)
        self._write_losses()

    def close(self) -> None:
        """The losses and their plot."""
        with storage_errors(self.folder):
            make_folder(self.folder)
        self._write_losses()
        write_bytes(self.folder / "loss.png", loss_plot(self.losses))

    def _write_losses(self) -> None:
        rows = [f"{step},{loss:.6f}" for step, loss in enumerate(self.losses, start=1)]
        write_text(self.folder / "loss.csv", "\n".join(["step,loss", *rows]) + "\n")
