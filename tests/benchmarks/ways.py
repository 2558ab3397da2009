"""Single ways of doing the work, each in a process of its own, so that its peak of memory is its own.

    python -m tests.benchmarks.ways prepare [--work DIR] [--base mini|sd15|sdxl] [--steps N]
    python -m tests.benchmarks.ways WAY [--work DIR] [--dtype float32|bfloat16] [--count N] [--steps N]
                                        [--warm] [--flops]

`prepare` makes, once, what all others read: a project on the base, tuned (N steps; the base's own number
where none is given), and the same merged into a whole base, as the authors keep a picture. Every other way
prints one JSON object:

    seconds       an edit from its prompts to the saved PNG; a step's median; a command from start to end
    loading       seconds before that, classes imported and models read from disk
    rows, calls   of the U-Nets, counted where they are called
    peak_memory   bytes: the accelerator's where there is one, else the process's
    artifact      bytes that the picture takes on the disk beside the base
    flops         with `--flops`: floating-point operations counted by torch; its seconds are worth nothing

With `--warm` an edit of `pipeline` or `sine-edit` is made once before, untimed: accelerators load much at
their first call.

The ways:

    authors-edit     the authors': two U-Nets in memory, base and tuned; DDIM, 100 steps (`--steps`), a batch
                     of null and prompt on each, of which one row is thrown away; the base's batch alone once
                     t <= K. It makes the picture of `sine edit --solver ddim --steps 100`
    authors-step     a step of theirs, without the text encoder that they tune too: every weight of the
                     U-Net, float32, batch 1, AdamW, 1e-6
    pipeline         diffusers' pipeline of the base, `--steps` steps of two rows, `--count` pictures
    pipeline-lora    the same with the project's LoRA, as `sine export` wrote it and diffusers loads it
    dreambooth-step  diffusers' DreamBooth-LoRA step: a LoRA by `add_adapter` on the layers, and of the rank,
                     that the project's has; batch, type and autocast alike; AdamW as their script has it
    sine-edit        the project's own, with its defaults, `--count` pictures (seeds) at once
    sine-step        a step of `sine tune` with its defaults
    sine-grid        six K by six v, as Fig. 7 and 9 have them: `sine grid` without its scores and sheet;
                     `whole_seconds` has these and the loading too
    sine-edits       the same 36 pictures one after another, opened once
    sine-tune        a tuning of `--picture` by `--settings`: the default's, the earlier default's,
                     paper-patches; `distance` is that of the tuned model alone to the picture, as `fidelity`
                     has it; `curve` has [step, seconds, distance] of its previews, one each `--every` steps
    sine-edit-command, authors-edit-command    the whole process, from the command line to its end
    matmul           the rate of one large product of matrices, `flops` a second

For the two steps of others latents and prompts are at hand, which spares them the encoding that their scripts
do at each step.
"""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
PICTURE, NOUN = HERE.parent / "pictures" / "cat.jpg", "cat"
PROMPT = "a pencil sketch of a cat"
SEED = 0
GRID_K = [0, 200, 400, 600, 800, 1000]
GRID_V = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
UNTIMED_STEPS = 2
"""The first steps of a tuning, which make room for what the others find there."""


@dataclass(frozen=True)
class Task:
    """What every way is to do; `task.json`, so that no way imports what another one needs.

    Args:
        base, tuned: diffusers folders, the second with the adapter merged into its weights.
        project: the folder of the tuned project.  position: a file of what its position adds, (1, C, h, w).
        height, width: pixels of the picture.  factor: pixels a latent cell.
        dtype: what `sine` computes in here.
    """

    base: str
    tuned: str
    project: str
    position: str
    source_prompt: str
    height: int
    width: int
    factor: int
    switch_step: int
    base_weight: float
    guidance_scale: float
    rank: int
    layers: list[str]
    batch: int
    learning_rate: float
    device: str
    dtype: str


@dataclass(frozen=True)
class Options:
    """Of the command line."""

    work: Path
    base: str
    dtype: str | None
    count: int
    steps: int | None
    warm: bool = False
    flops: bool = False
    settings: str = "default"
    picture: str = NOUN
    every: int | None = None


@dataclass
class Rows:
    """What went through the U-Nets."""

    rows: int = 0
    calls: int = 0


@contextmanager
def counted_rows() -> Iterator[Rows]:
    """Counts every call of every U-Net at its own door."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unets: Any = UNet2DConditionModel
    counted, forward = Rows(), unets.forward

    def counting(self: Any, sample: Any, *arguments: Any, **named: Any) -> Any:
        counted.rows += len(sample)
        counted.calls += 1
        return forward(self, sample, *arguments, **named)

    unets.forward = counting
    try:
        yield counted
    finally:
        unets.forward = forward


# ------------------------------------------------------------------------------------------------ preparation


def prepare(options: Options) -> dict[str, Any]:
    """The project, tuned; the merged base; `task.json`."""
    import torch

    from sine_cli.method.position import WHOLE
    from sine_cli.models.adapter import TARGETS
    from sine_cli.project.folder import Project
    from sine_cli.project.manifest import load_manifest, write_manifest
    from sine_cli.project.presets import load_preset
    from sine_cli.workflow.asked import MERGED
    from sine_cli.workflow.export import export
    from sine_cli.workflow.init import InitRequest, init
    from sine_cli.workflow.open import open_studio
    from sine_cli.workflow.tune import tune

    options.work.mkdir(parents=True, exist_ok=True)
    base = options.base
    if base in ("sd15", "sdxl"):
        from tests.benchmarks.memory import write_base

        base = str(options.work / "base")
        if not (options.work / "base" / "model_index.json").exists():
            write_base(options.work / "base", options.base)
    project = Project(options.work / "project")
    if not project.manifest_path.exists():
        made = init(InitRequest(PICTURE, NOUN, base=base, folder=project.root))
        if options.base in ("sd15", "sdxl"):  # a folder of random weights has not its preset's values
            preset = load_preset(options.base)
            settings = {"tune": preset.tune, "edit": preset.edit}
            write_manifest(project.manifest_path, made.manifest.model_copy(update=settings))
    manifest = load_manifest(project.manifest_path)
    short = {"steps": options.steps, "pool": 4} if options.steps else {}
    made = tune(project, manifest, manifest.tune.model_copy(update={**short, "preview_every": 0}))
    tuned = options.work / "tuned"
    if not made.already_there:  # what was exported is of another adapter
        shutil.rmtree(tuned, ignore_errors=True)
        _lora(options).unlink(missing_ok=True)
    if not tuned.exists():
        export(project, manifest, MERGED, tuned)
    if not _lora(options).exists():
        export(project, manifest, "diffusers", _lora(options))
    studio = open_studio(project, manifest, needs_adapter=True)
    size, factor = studio.default_size(), studio.base.autoencoder.factor
    (model,) = studio.backbone.tuned_models.values()
    with torch.no_grad():
        whole = torch.tensor([WHOLE], device=studio.base.device)
        features = model.position(whole, size.height // factor, size.width // factor)
    torch.save(features.cpu(), options.work / "position.pt")
    task = Task(
        base=str(studio.location.path),
        tuned=str(tuned),
        project=str(project.root),
        position=str(options.work / "position.pt"),
        source_prompt=manifest.prompts.source,
        height=size.height,
        width=size.width,
        factor=factor,
        switch_step=manifest.edit.switch_step,
        base_weight=manifest.edit.base_weight,
        guidance_scale=manifest.edit.guidance_scale,
        rank=manifest.tune.rank,
        layers=TARGETS[manifest.tune.targets],
        batch=manifest.tune.batch,
        learning_rate=manifest.tune.learning_rate,
        device=str(studio.base.device),
        dtype=str(studio.base.dtype).removeprefix("torch."),
    )
    (options.work / "task.json").write_text(json.dumps(asdict(task), indent=1), "utf-8")
    return asdict(task)


# ------------------------------------------------------------------------------------ the authors', diffusers


def authors_edit(task: Task, options: Options) -> dict[str, Any]:
    """`sks` pictures as they make them, plainly written anew."""
    started = time.perf_counter()
    import torch
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from PIL import Image

    if _is_sdxl(task):
        raise SystemExit("the authors' code has no way for SDXL")
    dtype, K = getattr(torch, options.dtype or "float32"), task.switch_step
    base, tuned = (_part(folder, "unet", dtype).to(task.device) for folder in (task.base, task.tuned))
    readers = [_text_reader(Path(folder), dtype, task.device) for folder in (task.base, task.tuned)]
    autoencoder = _part(task.base, "vae", dtype).to(task.device)
    position = torch.load(task.position).to(task.device, dtype)
    tuned.conv_in.register_forward_hook(lambda module, inputs, features: features + position)
    scheduler: Any = DDIMScheduler.from_pretrained(task.base, subfolder="scheduler")
    loading = time.perf_counter() - started

    started = time.perf_counter()
    with torch.no_grad(), counted_rows() as counted, _flops(options) as flops:
        told_base = readers[0](["", PROMPT])
        told_tuned = readers[1](["", task.source_prompt])
        cells = task.height // task.factor, task.width // task.factor
        shape = (1, base.config.in_channels, *cells)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(task.device, dtype)
        scheduler.set_timesteps(options.steps or 100)
        for t in scheduler.timesteps:
            null, mixed = base(torch.cat([x, x]), t, told_base).sample.chunk(2)
            if t > K:
                _thrown_away, its = tuned(torch.cat([x, x]), t, told_tuned).sample.chunk(2)
                mixed = task.base_weight * mixed + (1 - task.base_weight) * its
            x = scheduler.step(null + task.guidance_scale * (mixed - null), t, x).prev_sample
        pixels = autoencoder.decode(x / autoencoder.config.scaling_factor).sample
        pixels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        file = Path(task.project).parent / f"authors-{options.dtype or 'float32'}.png"
        Image.fromarray(pixels[0].permute(1, 2, 0).cpu().numpy()).save(file)
    seconds = time.perf_counter() - started
    parts = [Path(task.tuned) / name for name in ("unet", "text_encoder")]
    return _figures(
        seconds, counted, task, flops, loading=loading, artifact=sum(map(weights_in, parts)), file=str(file)
    )


def authors_step(task: Task, options: Options) -> dict[str, Any]:
    import torch

    unet = _part(task.base, "unet", torch.float32).to(task.device).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-6)
    figures = _steps_of_others(task, options, unet, list(unet.parameters()), optimizer, 1, torch.float32)
    return {**figures, "artifact": 4 * sum(p.numel() for p in unet.parameters())}


def dreambooth_step(task: Task, options: Options) -> dict[str, Any]:
    import torch
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    dtype = getattr(torch, options.dtype or task.dtype)
    unet = _part(task.base, "unet", dtype).to(task.device).requires_grad_(False)
    config = LoraConfig(
        r=task.rank, lora_alpha=task.rank, init_lora_weights="gaussian", target_modules=task.layers
    )
    unet.add_adapter(config)
    cast_training_params(unet, dtype=torch.float32)
    unet.train()
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=task.learning_rate, weight_decay=1e-2, eps=1e-8)
    figures = _steps_of_others(
        task, options, unet, parameters, optimizer, options.count if options.count > 1 else task.batch, dtype
    )
    return {**figures, "artifact": 4 * sum(p.numel() for p in parameters)}


def _steps_of_others(
    task: Task, options: Options, unet: Any, parameters: list[Any], optimizer: Any, batch: int, dtype: Any
) -> dict[str, Any]:
    """Steps of the loss of noise at random times, as diffusers' scripts take them."""
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from torch.nn import functional as F

    scheduler: Any = DDPMScheduler.from_pretrained(task.base, subfolder="scheduler")
    side, device = unet.config.sample_size, task.device
    latents = torch.randn(batch, unet.config.in_channels, side, side, device=device, dtype=dtype)
    words = 77 if unet.config.cross_attention_dim >= 768 else 24
    told = torch.randn(batch, words, unet.config.cross_attention_dim, device=device, dtype=dtype)
    added = None
    if _is_sdxl(task):
        ids = torch.tensor([[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]] * batch, device=device)
        added = {"text_embeds": torch.randn(batch, 1280, device=device, dtype=dtype), "time_ids": ids}

    def step() -> None:
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32):
            noise = torch.randn_like(latents)
            t = torch.randint(0, scheduler.config.num_train_timesteps, (batch,), device=device)
            noisy = scheduler.add_noise(latents, noise, t)
            predicted = unet(noisy, t, told, added_cond_kwargs=added).sample
            loss = F.mse_loss(predicted.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.detach().item()  # their progress bar shows it

    def timed() -> float:
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    for _ in range(UNTIMED_STEPS):
        step()
    with counted_rows() as counted, _flops(options) as flops:
        seconds = [timed() for _ in range(_count_of_steps(options))]
    return _per_step(_figures(median(seconds), counted, task, flops), len(seconds))


def pipeline(task: Task, options: Options, lora: Path | None = None) -> dict[str, Any]:
    started = time.perf_counter()
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    dtype = getattr(torch, options.dtype or task.dtype)
    # Stable Diffusion's pipeline cannot read the sizes of mini's kind of autoencoder (AutoencoderDC): without
    # one it makes latents, for a factor of 8, and they are decoded as it would.
    own = "AutoencoderDC" in (Path(task.base) / "vae" / "config.json").read_text("utf-8")
    without: dict[str, Any] = {"vae": None} if own else {}
    pipe: Any = DiffusionPipeline.from_pretrained(
        task.base, torch_dtype=dtype, local_files_only=True, **without
    )
    if lora:
        pipe.load_lora_weights(lora)
    pipe.to(task.device).set_progress_bar_config(disable=True)
    autoencoder = _part(task.base, "vae", dtype).to(task.device) if own else None
    loading = time.perf_counter() - started

    scale = 8 / task.factor if own else 1

    @torch.no_grad()
    def make() -> None:
        made = pipe(
            PROMPT,
            height=round(task.height * scale),
            width=round(task.width * scale),
            num_inference_steps=options.steps or 33,
            guidance_scale=task.guidance_scale,
            num_images_per_prompt=options.count,
            generator=[torch.Generator().manual_seed(SEED + i) for i in range(options.count)],
            output_type="latent" if own else "pil",
        ).images
        if autoencoder is not None:
            pixels = autoencoder.decode(made / autoencoder.config.scaling_factor).sample
            made = pipe.image_processor.postprocess(pixels, output_type="pil")
        for number, picture in enumerate(made):
            assert picture.size == (task.width, task.height)
            picture.save(Path(task.project).parent / f"pipeline-{number}.png")

    if options.warm:
        make()
    started = time.perf_counter()
    with counted_rows() as counted, _flops(options) as flops:
        make()
    return _figures(time.perf_counter() - started, counted, task, flops, loading=loading)


def pipeline_lora(task: Task, options: Options) -> dict[str, Any]:
    return pipeline(task, options, _lora(options))


def _lora(options: Options) -> Path:
    """The project's, for diffusers; `prepare` writes it."""
    return options.work / "lora.safetensors"


# ----------------------------------------------------------------------------------------------------- sine's


def sine_edit(task: Task, options: Options) -> dict[str, Any]:
    """With the manifest's defaults; pictures of several seeds together, as `sine edit -n` makes them."""
    return _sine_pictures(task, options, _recipes(task, range(SEED, SEED + options.count)), together=True)


def sine_edits(task: Task, options: Options) -> dict[str, Any]:
    """The cells of the grid, one after another."""
    cells = [{"switch_step": K, "base_weight": v} for v in GRID_V for K in GRID_K]
    return _sine_pictures(
        task, options, lambda studio: [_recipe(studio, SEED, **cell) for cell in cells], together=False
    )


def _recipes(task: Task, seeds: range) -> Callable[[Any], list[Any]]:
    return lambda studio: [_recipe(studio, seed) for seed in seeds]


def _recipe(studio: Any, seed: int, **changes: float) -> Any:
    from sine_cli.workflow.render import recipe_of

    settings = studio.manifest.edit.model_copy(update=changes)
    return recipe_of(studio.manifest, settings, prompt=PROMPT, size=studio.default_size(), seed=seed)


def _sine_pictures(
    task: Task, options: Options, recipes_for: Callable[[Any], list[Any]], *, together: bool
) -> dict[str, Any]:
    started = time.perf_counter()
    from sine_cli.project.folder import Project
    from sine_cli.project.manifest import load_manifest
    from sine_cli.workflow.open import open_studio

    project = Project(Path(task.project))
    studio = open_studio(project, load_manifest(project.manifest_path), needs_adapter=True)
    loading = time.perf_counter() - started

    recipes = recipes_for(studio)
    with tempfile.TemporaryDirectory() as folder:

        def save(pictures: Iterable[Any]) -> None:
            for number, picture in enumerate(pictures):
                picture.save(Path(folder) / f"{number}.png")

        started = time.perf_counter()
        renderer = studio.renderer(recipes, lambda _: None)
        reading = time.perf_counter() - started
        if options.warm:
            save(renderer.pictures(recipes))
        started = time.perf_counter()
        with counted_rows() as counted, _flops(options) as flops:
            save(renderer.pictures(recipes) if together else map(renderer.picture, recipes))
        seconds = reading + time.perf_counter() - started
    return _figures(seconds, counted, task, flops, loading=loading, artifact=adapter_of(task))


def sine_grid(task: Task, options: Options) -> dict[str, Any]:
    started = time.perf_counter()
    from sine_cli.project.folder import Project
    from sine_cli.project.manifest import load_manifest
    from sine_cli.workflow.grid import GridRequest, grid

    project = Project(Path(task.project))
    manifest = load_manifest(project.manifest_path)
    request = GridRequest(PROMPT, GRID_K, GRID_V, manifest.edit, seed=SEED)
    with counted_rows() as counted, _flops(options) as flops:
        result = grid(project, manifest, request)
    whole = time.perf_counter() - started
    shutil.rmtree(result.folder)
    return {
        **_figures(result.seconds, counted, task, flops, artifact=adapter_of(task)),
        "whole_seconds": round(whole, 3),
    }


EARLIER: dict[str, Any] = {
    "steps": 500,
    "stop_early": False,
    "batch": 8,
    "learning_rate": 0.003,
    "position_learning_rate": 0.02,
    "rank": 16,
    "targets": "attention+resnet",
    "patches": True,
    "min_patch": 0.1,
    "whole": 0.3,
    "pool": 256,
    "min_timestep": 0,
    "loss": "v_prediction",
    "preview_every": 100,
    "checkpoint_every": 100,
}
"""The default of `mini` in sine 0.1, whose distance a tuning has to reach."""


def sine_tune(task: Task, options: Options) -> dict[str, Any]:
    """A whole tuning on `mini`, as the command does it, and how near it comes."""
    from PIL import Image

    from sine_cli.project.manifest import load_manifest
    from sine_cli.project.presets import load_tuning_preset
    from sine_cli.workflow.tune import tune
    from tests.benchmarks.fidelity import PICTURES, Bench, distance, project_of

    file = next(file for file, noun in PICTURES if noun == options.picture)
    folder = options.work / "tunings" / options.settings
    folder.mkdir(parents=True, exist_ok=True)
    project = project_of(file, options.picture, folder)
    for made_before in (project.adapter_dir, project.tuning_dir):
        shutil.rmtree(made_before, ignore_errors=True)
    manifest = load_manifest(project.manifest_path)
    chosen = {"default": {}, "earlier": EARLIER, "paper-patches": load_tuning_preset("paper-patches").tune}
    changes = {
        **chosen[options.settings],
        **({"preview_every": options.every} if options.every else {}),
        **({"steps": options.steps} if options.steps else {}),
    }
    ends: list[float] = []
    started = time.perf_counter()
    with counted_rows() as counted:
        tune(
            project,
            manifest,
            manifest.tune.model_copy(update=changes),
            lambda p: ends.append(time.perf_counter()) if p.what == "tuning" else None,
        )
    seconds = time.perf_counter() - started
    figures = _figures(seconds, counted, task, None, artifact=weights_in(project.adapter_dir))
    step = median(after - before for before, after in pairwise(ends))
    first = ends[0] - started - step
    bench = Bench(project)
    curve: list[tuple[int, float, float]] = []
    for preview in sorted((project.tuning_dir / "previews").glob("step-*.png")):
        taken = int(preview.stem.removeprefix("step-"))
        off = distance(Image.open(preview).convert("RGB"), bench.source)
        curve.append((taken, round(first + taken * step, 2), round(off, 4)))
    return {**figures, "steps": len(ends), "distance": bench.distances(bench.alone()), "curve": curve}


def sine_step(task: Task, options: Options) -> dict[str, Any]:
    from sine_cli.project.folder import Project
    from sine_cli.project.manifest import load_manifest
    from sine_cli.workflow.tune import tune

    batch = {"batch": options.count} if options.count > 1 else {}
    with fresh_project(task) as project:
        manifest = load_manifest(project / "sine.yaml")
        wanted = {"steps": UNTIMED_STEPS + _count_of_steps(options), "pool": 4, "preview_every": 0, **batch}
        ends: list[float] = []
        with counted_rows() as counted, _flops(options) as flops:
            tune(
                Project(project),
                manifest,
                manifest.tune.model_copy(update=wanted),
                lambda p: ends.append(time.perf_counter()) if p.what == "tuning" else None,
            )
        artifact = weights_in(project / "adapter")
    seconds = [after - before for before, after in pairwise(ends)][UNTIMED_STEPS - 1 :]
    figures = _figures(median(seconds), counted, task, flops, artifact=artifact)
    if flops:  # what encodes patches and prompts is no part of a step
        roots = {name: counts for name, counts in flops.get_flop_counts().items() if "." not in name}
        others = [c for name, c in roots.items() if name not in ("Global", "UNet2DConditionModel")]
        figures["flops"] -= sum(sum(counts.values()) for counts in others)
    return _per_step(figures, len(ends))


@contextmanager
def fresh_project(task: Task) -> Iterator[Path]:
    """A copy of the project that is not tuned yet."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sine.yaml", "source.png"):
            shutil.copy(Path(task.project) / name, folder)
        yield Path(folder)


# --------------------------------------------------------------------------------------------- whole commands


def sine_edit_command(task: Task, options: Options) -> dict[str, Any]:
    command = ["-m", "sine_cli", "edit", PROMPT, "--project", task.project, "--json"]
    seconds, told = _command(command)
    run = told["runs"][0]
    shutil.rmtree(run["folder"])
    return {"seconds": seconds, "peak_memory": run["peak_memory"], "artifact": adapter_of(task)}


def authors_edit_command(task: Task, options: Options) -> dict[str, Any]:
    dtype = options.dtype or "float32"
    command = ["-m", "tests.benchmarks.ways", "authors-edit", "--work", str(options.work), "--dtype", dtype]
    seconds, told = _command([*command, *(["--steps", str(options.steps)] if options.steps else [])])
    return {**told, "seconds": seconds}


def _command(arguments: list[str]) -> tuple[float, dict[str, Any]]:
    """Seconds of a process of its own, and the JSON that it prints."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return round(time.perf_counter() - started, 3), json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------------- figures


def matmul(task: Task, options: Options) -> dict[str, Any]:
    import torch

    side = 8192 if task.device.startswith("cuda") else 2048
    dtype = getattr(torch, options.dtype or task.dtype)
    a, b = (torch.randn(side, side, device=task.device).to(dtype) for _ in range(2))
    seconds: list[float] = []
    for _ in range(12):
        _wait(task)
        started = time.perf_counter()
        torch.mm(a, b)
        _wait(task)
        seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds[2:]), "flops": 2 * side**3 / median(seconds[2:])}


def _wait(task: Task) -> None:
    import torch

    if task.device.startswith("cuda"):
        torch.cuda.synchronize()


@contextmanager
def _flops(options: Options) -> Iterator[Any]:
    """torch's counter, which knows the CPU's fused attention only if it is told."""
    if not options.flops:
        with nullcontext():
            yield None
        return
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def fused(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    def fused_backward(gradient: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, q, k, v)

    known = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: fused_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        yield counter


def _figures(
    seconds: float,
    counted: Rows,
    task: Task,
    flops: Any,
    *,
    loading: float | None = None,
    artifact: int | None = None,
    **others: str,
) -> dict[str, Any]:
    import torch

    from sine_cli.models.device import peak_memory

    return {
        "seconds": round(seconds, 4),
        **({"loading": round(loading, 3)} if loading is not None else {}),
        **asdict(counted),
        "peak_memory": peak_memory(torch.device(task.device)),
        **({"artifact": artifact} if artifact is not None else {}),
        **({"flops": flops.get_total_flops()} if flops else {}),
        **others,
    }


def _per_step(figures: dict[str, Any], steps: int) -> dict[str, Any]:
    """Of one step, what was counted over several alike."""
    shared = {name: figures[name] // steps for name in ("rows", "calls", "flops") if name in figures}
    return {**figures, **shared}


def _count_of_steps(options: Options) -> int:
    return options.steps or 12


def _is_sdxl(task: Task) -> bool:
    return (Path(task.base) / "text_encoder_2").exists()


def _part(folder: str, name: str, dtype: Any) -> Any:
    """A part of a diffusers folder, by the class that its index names."""
    library, kind = json.loads((Path(folder) / "model_index.json").read_text("utf-8"))[name]
    load = getattr(importlib.import_module(library), kind).from_pretrained
    return load(Path(folder) / name, torch_dtype=dtype, local_files_only=True)


def _text_reader(folder: Path, dtype: Any, device: str) -> Callable[[list[str]], Any]:
    library, kind = json.loads((folder / "model_index.json").read_text("utf-8"))["tokenizer"]
    tokenizer = getattr(importlib.import_module(library), kind).from_pretrained(folder / "tokenizer")
    model = _part(str(folder), "text_encoder", dtype).to(device)
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)

    def read(prompts: list[str]) -> Any:
        tokens = tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
        return model(tokens.input_ids.to(device)).last_hidden_state

    return read


def weights_in(folder: Path) -> int:
    """Bytes of the weights below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def adapter_of(task: Task) -> int:
    """Bytes that a picture takes beside the base."""
    return weights_in(Path(task.project) / "adapter")


WAYS: dict[str, Callable[[Task, Options], dict[str, Any]]] = {
    "authors-edit": authors_edit,
    "authors-step": authors_step,
    "pipeline": pipeline,
    "pipeline-lora": pipeline_lora,
    "dreambooth-step": dreambooth_step,
    "sine-edit": sine_edit,
    "sine-step": sine_step,
    "sine-grid": sine_grid,
    "sine-edits": sine_edits,
    "sine-tune": sine_tune,
    "sine-edit-command": sine_edit_command,
    "authors-edit-command": authors_edit_command,
    "matmul": matmul,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=["prepare", *WAYS], metavar="WAY")
    parser.add_argument("--work", type=Path, default=Path("bench-speed", "mini"))
    parser.add_argument("--base", default="mini", help="of `prepare`; sd15 and sdxl have random weights")
    parser.add_argument("--dtype")
    parser.add_argument("--count", type=int, default=1, help="pictures of an edit; of a step the batch")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--flops", action="store_true")
    parser.add_argument("--settings", default="default", choices=["default", "earlier", "paper-patches"])
    parser.add_argument("--picture", default=NOUN, choices=["castle", "cat", "coffee"])
    parser.add_argument("--every", type=int)
    given = vars(parser.parse_args())
    way, options = given.pop("way"), Options(**given)
    if way == "prepare":
        figures = prepare(options)
    else:
        task = Task(**json.loads((options.work / "task.json").read_text("utf-8")))
        figures = WAYS[way](task, options)
    print(json.dumps({"way": way, **figures}))


if __name__ == "__main__":
    main()
