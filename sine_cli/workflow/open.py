"""A project opened for sampling: what `edit` and `grid` both need before the first step."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from PIL import Image

from sine_cli.errors import UserError
from sine_cli.models.adapter import tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.base import Base, load_base
from sine_cli.models.device import best_device, best_dtype, peak_memory
from sine_cli.models.locate import Location
from sine_cli.models.lora_files import USER_LORA, attach_user_lora
from sine_cli.models.rows import BASE
from sine_cli.project.files import sha256, shown
from sine_cli.project.folder import Project
from sine_cli.project.manifest import Manifest
from sine_cli.project.plain_yaml import shortened
from sine_cli.project.source import read_picture
from sine_cli.workflow.adapter_record import (
    AdapterRecord,
    check_base,
    check_record,
    guide_record,
    read_record,
)
from sine_cli.workflow.adapters import load_adapter
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.fit import check_picture_fits
from sine_cli.workflow.guides import GuideRecipe, guides_in_use
from sine_cli.workflow.kept_adapters import home_of
from sine_cli.workflow.record import versions
from sine_cli.workflow.render import Reading, Recipe, Renderer, embed, guide_name
from sine_cli.workflow.size import WHOLE, Box, Size, default_size
from sine_cli.workflow.user_lora import UserLora


@dataclass
class Studio:
    """A project with its base, its adapter and those of its guides in memory.

    Attributes:
        record: of the adapter; None where no picture asked for needs one.
        guides: the record of each guide's adapter; None likewise.
        lora: the user's own LoRA on the base side, if any.
        low_memory: whether large pictures are decoded in tiles, which moves their pixels a little.
    """

    project: Project
    manifest: Manifest
    location: Location
    base: Base
    record: AdapterRecord | None
    guides: list[AdapterRecord | None]
    backbone: UNetBackbone
    lora: UserLora | None = None
    low_memory: bool = False

    def default_size(self, crop: Box = WHOLE) -> Size:
        """The aspect of the source's crop at about the base's native area."""
        source = self.source_picture()
        factor = self.base.autoencoder.factor
        native = self.base.native_latent_size * factor
        return default_size(Size(source.height, source.width), native, factor, crop)

    def size_for(self, asked: Size | None, crop: Box = WHOLE) -> Size:
        """The size asked for, or the default. Raises UserError where no memory is left for such a picture."""
        size = asked or self.default_size(crop)
        self.check_fits(size, asked=asked is not None)
        return size

    def check_fits(self, size: Size, *, asked: bool) -> None:
        """Raises UserError where no memory is left for a picture of that size."""
        check_picture_fits(self.base, self.manifest.base, size, asked=asked)

    def source_picture(self) -> Image.Image:
        """The project's picture, RGB. Raises UserError as `stored_picture`."""
        return stored_picture(self.project, self.manifest)

    def renderer(
        self,
        recipes: list[Recipe],
        on_notice: Callable[[str], None],
        others: Iterable[Reading] = (),
        *,
        last: bool = True,
    ) -> Renderer:
        """Ready for these recipes, and other readings: all is encoded. Where no recipes follow (`last`), the
        text encoder leaves memory.

        `on_notice` is told the words that the base does not read, and of sizes beyond it, or far below.
        """
        readings = [*(reading for recipe in recipes for reading in recipe.readings), *others]
        for text in dict.fromkeys(text for _, text in readings):
            unread = self.base.text.cut(text)
            if unread:
                on_notice(f'"{text[:40]}..." is longer than this base reads; unread: "{shortened(unread)}"')
        native = self.base.native_latent_size * self.base.autoencoder.factor
        for size in dict.fromkeys(recipe.size for recipe in recipes):
            if max(size.height, size.width) > 2 * native:
                on_notice(
                    f"{size} is more than twice the {native}x{native} of `{self.manifest.base}`: "
                    "the layout will hold, fine things will not"
                )
            elif min(size.height, size.width) < native // 4:
                on_notice(
                    f"{size} is less than a quarter of the {native}x{native} of `{self.manifest.base}` on a "
                    "side: little will be seen in it; make it larger, then scale it down"
                )
        embeddings = embed(self.base, readings)
        if last:
            self.base.text.release()
        return Renderer(self.base, self.backbone, embeddings)

    def adapter_files(self) -> dict[str, str] | None:
        """SHA-256 of the adapter's files; None where no adapter is loaded."""
        return self.record.files if self.record else None

    def guide_adapters(self) -> list[dict[str, str] | None]:
        """The same of each guide's adapter."""
        return [guide.files if guide else None for guide in self.guides]

    def peak_memory(self) -> int:
        """The most bytes held at once so far."""
        return peak_memory(self.base.device)

    def provenance(self) -> dict[str, Any]:
        """What a picture was made with, besides its recipe."""
        return {
            "source": self.manifest.source.sha256,
            "base": self.manifest.base,
            "base_revision": self.location.revision,
            "adapter": self.adapter_files(),
            "guide_adapters": self.guide_adapters(),
            **({"lora": self.lora.as_dict()} if self.lora else {}),
            **({"low_memory": True} if self.low_memory else {}),
            "device": self.base.device.type,
            "dtype": str(self.base.dtype).removeprefix("torch."),
            "versions": versions(),
        }


def stored_picture(project: Project, manifest: Manifest) -> Image.Image:
    """The picture that a project keeps, RGB.

    Raises:
        UserError: it is gone, damaged, or not of the size that the manifest says.
    """
    path, said = project.source(manifest), manifest.source
    picture = read_picture(path).image
    size = Size(picture.height, picture.width)
    if size != Size(said.height, said.width):
        raise UserError(
            f"{shown(path)} is {size.described()}, and {shown(project.manifest_path)} says "
            f"{Size(said.height, said.width).described()}",
            "bring the picture back, or make a new project: `sine init PICTURE --class NOUN`"
            if said.stored_sha256 != sha256(path)
            else f"set `height: {size.height}` and `width: {size.width}` there, under `source`",
        )
    return picture


def open_studio(
    project: Project,
    manifest: Manifest,
    *,
    needs_adapter: bool,
    guides: Sequence[tuple[GuideRecipe, ...]] = ((),),
    lora: UserLora | None = None,
    low_memory: bool = False,
    adapter: dict[str, str] | None = None,
    guide_adapters: Sequence[dict[str, str] | None] = (),
    on_notice: Callable[[str], None] = lambda _: None,
) -> Studio:
    """Load base and adapters.

    Args:
        needs_adapter: whether any picture gives the project's own tuned model weight; else it need not be
            tuned.
        guides: those of each picture; what holds for the adapter holds for theirs.
        lora: the user's own LoRA, for the base side; `on_notice` is told what of it is left out.
        low_memory: as `load_base` has it.
        adapter, guide_adapters: the files, SHA-256 by name, of those that pictures were made with: taken from
            where they are kept, if others are in their place now. None takes what is there.

    Raises:
        UserError, SineError: the base cannot be had; not tuned; an adapter is damaged or of another base;
            the LoRA does not fit.
    """
    record, home = None, home_of(project, adapter)
    if needs_adapter:
        record = read_record(home)
        if home == project:
            check_record(project, manifest, record)
        else:
            project.check_picture(manifest)
            on_notice(f"with the adapter that is kept in {shown(home.root)}, as then")
    location = find_base(manifest)
    if record:
        check_base(project, manifest, record, location.revision)
    others = guides_in_use(project, guides)
    homes = [
        home_of(guide.project, files) if guide else project
        for guide, files in zip_longest(others, guide_adapters[: len(others)])
    ]
    records = [
        guide_record(guide, manifest, location.revision, its_home) if guide else None
        for guide, its_home in zip(others, homes, strict=True)
    ]
    device = best_device()
    base = load_base(location.path, location.variant, device, best_dtype(device), low_memory=low_memory)
    if lora:
        left_out = attach_user_lora(base.unet, lora.file, lora.scale)
        if left_out:
            on_notice(f"of {shown(lora.file)} the U-Net's layers are used; left out: {', '.join(left_out)}")
    adapters = [load_adapter(home, record, base.unet, base.text)] if record else []
    for place, (its_home, its_record) in enumerate(zip(homes, records, strict=True)):
        if its_record:
            adapters.append(load_adapter(its_home, its_record, base.unet, base.text, guide_name(place)))
    backbone = UNetBackbone(
        base.unet,
        tuned_models(*adapters),
        factor=base.autoencoder.factor,
        base_rows=USER_LORA if lora else BASE,
    )
    return Studio(project, manifest, location, base, record, records, backbone, lora, low_memory)
