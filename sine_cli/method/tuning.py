"""Tuning: the adapter learns to predict the noise on parts of one picture, given where each part lies.

    L = E w(t) || eps - eps^(z_t, t, c^, F(v)) ||^2,    z_0 = E(I(v)),  t ~ U{t_min .. T - 1},  eps ~ N(0, 1)

The paper has w(t) = 1, the loss of eps. By default w(t) = 1 + 1 / SNR(t), which makes it the loss of v: at
high t, where a picture is laid out, a small error of eps is a large one of the picture, and a few hundred
steps cannot wait for it.

Prior preservation adds the same loss on pictures that the base made of the class, so that the tuned model
keeps knowing it (the paper's Appendix C finds that it costs fidelity).

References:
    SINE, Eq. 1 and Sec. 3.3.  Progressive Distillation, Salimans and Ho, 2022 (v).
    DreamBooth, Ruiz et al., CVPR 2023, Eq. 2 (prior preservation).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from sine_cli.errors import SineError, ran_out
from sine_cli.method.schedule import NoiseSchedule, Prediction

Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x_t (B, C, h, w), t (B,), boxes (B, 4)) -> the tuned model's prediction, (B, C, h, w), with gradients.

The boxes are None for pictures of the class, whose prompt is the class's.
"""


NewOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""From groups of parameters, as `torch.optim` has them; each step's rates are put into the groups."""


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Without weight decay: what is tuned shall hold the picture, not shrink."""
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


@dataclass(frozen=True)
class Patches:
    """Parts of the picture, all of one shape.

    Args:
        latents: (N, C, h, w), N >= 1.  boxes: where they lie, (N, 4).
    """

    latents: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Examples:
    """What is learned from, encoded ahead.

    Args:
        patches: of each shape that they have; none at all: the whole picture alone.
        whole: latents of the whole picture in its own aspect, about p x p cells, (1, C, h, w).
        prior: latents of pictures of the class at the native size, (M, C, p, p); None for none.
    """

    patches: Sequence[Patches]
    whole: Tensor
    prior: Tensor | None = None


@dataclass(frozen=True)
class TuningPlan:
    """How to learn: counts, rates and ranges, as the manifest's `tune` has them.

    Args:
        steps: optimisation steps; with `stop_early` the most of them.  batch: examples a step.
        learning_rate, position_learning_rate: of the weights, a LoRA's mostly, and of the position, at
            their highest; with `stop_early` at twice that.
        whole: share of steps on the whole picture, in [0, 1]; the others are on patches.
        min_timestep: t_min, the lowest time that is learned.
        seed: of all that is drawn.
        loss: whose squared error is made small, eps or v.
        stop_early: whether the tuning ends where the distance to the picture stops falling; see `look`.
    """

    steps: int
    batch: int
    learning_rate: float
    position_learning_rate: float
    whole: float
    min_timestep: int
    seed: int
    loss: Prediction = "v_prediction"
    stop_early: bool = False


LOOK_EVERY = 50
"""Steps between two looks at how near the tuned model has come, where a tuning may stop early."""

FLAT = 0.85
"""Share of the distance two looks ago, from which on the distance counts as no longer falling."""

BEGUN = 0.5
"""Share of the untuned model's distance, under which the tuning has begun to show the picture."""

LEVEL = 4
"""Steps at the level learning rate for each one over which it falls at the end: a fifth of them all."""

LEVEL_RATE = 0.5
"""Share of the plan's learning rates that is level: the mean of one that falls from the first step on."""


def settled(distances: Sequence[float]) -> bool:
    """Whether the distance to the picture has come down and stopped falling.

    A single look depends on the noise of the last steps, so the mean of two is held against that of the two
    before.

    Args:
        distances: of the untuned model, then of one look after the other, each 0 or more.
    """
    if len(distances) < 5:
        return False
    before, now = mean(distances[-4:-2]), mean(distances[-2:])
    return FLAT * before < now < BEGUN * distances[0]


@dataclass(frozen=True)
class _Drawn:
    """Latents (B, C, h, w) with what was drawn for them: noise, times (B,), boxes (B, 4) or None."""

    z_0: Tensor
    eps: Tensor
    t: Tensor
    boxes: Tensor | None

    def parts(self, size: int) -> Iterator["_Drawn"]:
        """The same in order, `size` examples each, the last perhaps fewer."""
        for start in range(0, len(self.t), size):
            rows = slice(start, start + size)
            boxes = None if self.boxes is None else self.boxes[rows]
            yield _Drawn(self.z_0[rows], self.eps[rows], self.t[rows], boxes)


class Tuning:
    """A tuning under way: `step()` until `done`. Its whole state can be saved and put back exactly.

    Attributes:
        taken: steps so far.
        at_once: examples in one call of the model; the batch, until memory ran out on it.
        distances: what `look` was told.
        falls_from: the step from which the learning rate falls to the end; None: not known yet.
    """

    WARM_UP = 20
    """Steps over which the learning rate rises, before it is level or falls to zero."""

    def __init__(
        self,
        plan: TuningPlan,
        schedule: NoiseSchedule,
        examples: Examples,
        predict: Predict,
        weights: list[nn.Parameter],
        position: list[nn.Parameter],
        new_optimizer: NewOptimizer = adamw,
    ) -> None:
        self.plan, self.schedule, self.examples, self.predict = plan, schedule, examples, predict
        self.parameters = [*weights, *position]
        self.optimizer = new_optimizer(
            [
                {"params": weights, "peak": plan.learning_rate},
                {"params": position, "peak": plan.position_learning_rate},
            ]
        )
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.taken = 0
        self.at_once = plan.batch
        self.distances: list[float] = []
        self.falls_from = None if plan.stop_early else 0

    @property
    def steps(self) -> int | None:
        """How many they will have been; None: not known yet."""
        if not self.plan.stop_early:
            return self.plan.steps
        return None if self.falls_from is None else min(self.plan.steps, _with_fall(self.falls_from))

    @property
    def done(self) -> bool:
        return self.steps is not None and self.taken >= self.steps

    @property
    def wants_look(self) -> bool:
        """Whether `look` is to be told the distance now, before the next step."""
        return self.falls_from is None and self.taken % LOOK_EVERY == 0

    @property
    def last_distance(self) -> float | None:
        """What `look` was told last."""
        return self.distances[-1] if self.distances else None

    def look(self, distance: float) -> None:
        """Told how far from the picture the tuned model is, 0 or more, decide whether it goes on as before.

        Until then the learning rate is level, since nobody knows yet to where it would have to fall; it falls
        over a last stretch, in which the tuned model comes nearer once more.
        """
        self.distances.append(distance)
        if settled(self.distances):
            self.falls_from = self.taken

    def step(self) -> float:
        """One optimisation step; the loss before it.

        Where memory runs out, the same gradient is computed of fewer examples at once, from then on.

        Raises:
            SineError: memory ran out on a single example.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate()
        drawn = [self._drawn(*self._draw_examples())]
        if self.examples.prior is not None:
            (pictures,) = self._drawn_from(self.examples.prior)
            drawn.append(self._drawn(pictures, None))
        loss = self._learn(drawn)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.taken += 1
        if self.falls_from is None and _with_fall(self.taken) >= self.plan.steps:
            self.falls_from = self.taken
        return loss

    def state(self) -> dict[str, Tensor]:
        """Parameters, optimiser, random state and step count, on the CPU; `load_state` puts them back."""
        state = {
            "taken": torch.tensor(self.taken),
            "at_once": torch.tensor(self.at_once),
            "generator": self.generator.get_state(),
            "distances": torch.tensor(self.distances, dtype=torch.float64),
            "falls_from": torch.tensor(-1 if self.falls_from is None else self.falls_from),
        }
        for i, parameter in enumerate(self.parameters):
            state[f"parameter.{i}"] = parameter.detach().to("cpu", copy=True)
            for name, value in self.optimizer.state.get(parameter, {}).items():
                # One in 8 bits counts its steps with an int
                tensor = value.to("cpu", copy=True) if isinstance(value, Tensor) else torch.tensor(value)
                state[f"optimizer.{i}.{name}"] = tensor
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state()` of a tuning of the same plan and shapes."""
        self.taken, self.at_once = int(state["taken"]), int(state["at_once"])
        self.generator.set_state(state["generator"])
        self.distances = state["distances"].tolist()
        falls_from = int(state["falls_from"])
        self.falls_from = None if falls_from < 0 else falls_from
        for i, parameter in enumerate(self.parameters):
            parameter.data.copy_(state[f"parameter.{i}"])
            prefix = f"optimizer.{i}."
            self.optimizer.state[parameter] = {
                # AdamW's fused step wants its count on the device too
                name.removeprefix(prefix): int(value) if _is_count(value) else value.to(parameter.device)
                for name, value in state.items()
                if name.startswith(prefix)
            }

    def _learn(self, drawn: list[_Drawn]) -> float:
        """The sum of the mean losses of each batch; its gradient into the parameters, part by part."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros(())
            try:
                for batch in drawn:
                    for part in batch.parts(self.at_once):
                        share = self._loss(part) * (len(part.t) / len(batch.t))
                        share.backward()
                        loss = loss.to(share.device) + share.detach()
                return loss.item()
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                if self.at_once == 1:
                    raise SineError(
                        "memory ran out while tuning, on a single example",
                        "take less with `sine tune --memory low`, or a smaller base",
                    ) from error
            self.at_once = (self.at_once + 1) // 2  # here, where what failed has left memory

    def _drawn(self, z_0: Tensor, boxes: Tensor | None) -> _Drawn:
        """The examples, each with noise and a time of its own."""
        eps = torch.randn(z_0.shape, generator=self.generator).to(z_0.device)
        t = torch.randint(self.plan.min_timestep, self.schedule.T, (len(z_0),), generator=self.generator)
        return _Drawn(z_0, eps, t.to(z_0.device), boxes)

    def _loss(self, drawn: _Drawn) -> Tensor:
        z_0, eps, t = drawn.z_0, drawn.eps, drawn.t
        prediction = self.predict(self.schedule.add_noise(z_0, eps, t), t, drawn.boxes)
        return self._error(prediction, self.schedule.target(z_0, eps, t), t)

    def _error(self, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """The squared error of what the plan says, whichever the model predicts."""
        error = (prediction - target).square().mean(dim=(1, 2, 3))
        if self.schedule.prediction != self.plan.loss:
            ratio = 1 + 1 / self.schedule.signal_to_noise(t)  # squared error of v to that of eps
            error = error * ratio if self.plan.loss == "v_prediction" else error / ratio
        return error.mean()

    def _draw_examples(self) -> tuple[Tensor, Tensor]:
        whole = torch.rand((), generator=self.generator).item() < self.plan.whole
        if whole or not self.examples.patches:
            z_0 = self.examples.whole.expand(self.plan.batch, -1, -1, -1)
            return z_0, torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=z_0.device).expand(self.plan.batch, -1)
        patches = self._draw_shape()
        latents, boxes = self._drawn_from(patches.latents, patches.boxes)
        return latents, boxes

    def _draw_shape(self) -> Patches:
        """Those that a step is on: each shape as often as it has patches."""
        if len(self.examples.patches) == 1:
            return self.examples.patches[0]
        counts = torch.tensor([float(len(patches.boxes)) for patches in self.examples.patches])
        return self.examples.patches[int(torch.multinomial(counts, 1, generator=self.generator))]

    def _drawn_from(self, *together: Tensor) -> tuple[Tensor, ...]:
        """A batch of each tensor, of the same places."""
        chosen = torch.randint(len(together[0]), (self.plan.batch,), generator=self.generator)
        return tuple(tensor[chosen.to(tensor.device)] for tensor in together)

    def _rate(self) -> float:
        """Share of the highest learning rate: up over `WARM_UP` steps, then straight down to zero.

        Where the tuning may stop early it is level, at `LEVEL_RATE`, until it is known where it ends.
        """
        highest = LEVEL_RATE if self.plan.stop_early else 1.0
        up = min(1.0, (self.taken + 1) / self.WARM_UP)
        if self.steps is None or self.falls_from is None:
            return highest * up
        return highest * min(up, 1 - (self.taken - self.falls_from) / (self.steps - self.falls_from))


def _with_fall(level: int) -> int:
    """All the steps of a tuning with so many at a level learning rate."""
    return level + -(-level // LEVEL)


def _is_count(value: Tensor) -> bool:
    return value.ndim == 0 and value.dtype == torch.int64
