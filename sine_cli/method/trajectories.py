"""Many pictures as one tree of paths: what is the same so far is computed once.

Pictures of one noise are one path until their guidance first differs. In a grid over K and v, the cells of
one v go together down to the largest K, where its cell leaves them, and so on; v = 1 and K = T are one path.
All paths take a step together, in one call of the backbone. Where a path parts, its solver's memory goes
along with each part, so that every picture is the one that is made alone.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sine_cli.method.guidance import Branch, GuidedModel, mix
from sine_cli.method.sampling import Solver

Row = tuple[Tensor, Branch]
"""Latents x_t, (B, C, h, w), and the branch that is to predict for them."""

Predict = Callable[[list[Row], int], list[Tensor]]
"""(rows, t) -> a prediction for each row, of the shape of its latents."""


@dataclass(frozen=True)
class Path:
    """One step of pictures that are still the same.

    Args:
        members: which pictures.
        parent: the place of their path among those of the step before; at the first step, of their noise.
        weighted: the branches of the step with their weights.
    """

    members: tuple[int, ...]
    parent: int
    weighted: tuple[tuple[float, Branch], ...]


def grow(models: Sequence[GuidedModel], noises: Sequence[Hashable], times: Sequence[int]) -> list[list[Path]]:
    """The paths of each step.

    Args:
        models: one a picture.
        noises: what each picture begins with, by any name; those of the same name share their path.
        times: t of each step.
    """
    before: list[tuple[int, ...]] = _parted(range(len(models)), noises.__getitem__)
    steps: list[list[Path]] = []
    for t in times:
        weighted = [model.weighted(t) for model in models]
        paths = [
            Path(members, parent, weighted[members[0]])
            for parent, together in enumerate(before)
            for members in _parted(together, weighted.__getitem__)
        ]
        steps.append(paths)
        before = [path.members for path in paths]
    return steps


def rows_of(paths: Sequence[Path]) -> list[tuple[int, Branch]]:
    """What a step has to predict: each branch once for each path that comes into the step."""
    return list(dict.fromkeys((path.parent, branch) for path in paths for _, branch in path.weighted))


def follow_together(
    models: Sequence[GuidedModel],
    x_t: Sequence[Tensor],
    predict: Predict,
    solver: Solver,
    pairs: Sequence[tuple[int, int]],
    on_step: Callable[[int], None] = lambda _: None,
) -> list[Tensor]:
    """x_s of every picture at the end of the pairs (t, s), each (B, C, h, w).

    Args:
        models: one a picture.
        x_t: what each begins with, (B, C, h, w); pictures that share a path are given the same tensor.
        solver: a fresh one; it is copied, and itself left as it is.
        pairs: at least one.
        on_step: called after each step with the rows that it took.
    """
    tree = grow(models, [id(x) for x in x_t], [t for t, _ in pairs])
    states = [(x, solver) for x in {id(x): x for x in x_t}.values()]
    for (t, s), paths in zip(pairs, tree, strict=True):
        rows = rows_of(paths)
        eps = dict(zip(rows, predict([(states[at][0], branch) for at, branch in rows], t), strict=True))
        after: list[tuple[Tensor, Solver]] = []
        for path in paths:
            x, remembered = states[path.parent][0], copy.copy(states[path.parent][1])
            weights = [weight for weight, _ in path.weighted]
            prediction = mix(weights, [eps[path.parent, branch] for _, branch in path.weighted])
            after.append((remembered.step(x, prediction, t, s), remembered))
        states = after
        on_step(len(rows))
    ends = {i: x for path, (x, _) in zip(tree[-1], states, strict=True) for i in path.members}
    return [ends[i] for i in range(len(models))]


def _parted(members: Sequence[int], key: Callable[[int], Hashable]) -> list[tuple[int, ...]]:
    """The members in groups of one key, each in the order of its first."""
    groups: dict[Hashable, list[int]] = {}
    for i in members:
        groups.setdefault(key(i), []).append(i)
    return [tuple(group) for group in groups.values()]
