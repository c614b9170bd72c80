"""From the one dial of an agent to the integer sizes of its layers.

The aspect of a family is fixed: every size is a function of the width alone. Rounding these would
move the parameter count in jumps (one more embedding dimension is one more input for each of the
crop's cells, one more block of a transformer a tenth of it), so one size takes up the difference:
the encoder's hidden layer, or the feed-forward layers of a transformer. The count is that of the
unrounded sizes to within half a step of this size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from training_backend import encoders
from training_backend.families import Family, find_family
from training_backend.heads import ReturnHead
from training_backend.tasks.fields import Field
from training_backend.transformer import count_transformer

ALIGNED: Final = 256
"""Width from which all sizes are multiples of 8, as a GPU's matrix units like them."""
LARGEST: Final = 8192.0
_SMALLEST: Final = 2.0
_SMALLEST_TRANSFORMER: Final = 4.0
_HEADS: Final = ((4, 8), (8, 16), (16, 64), (32, 512))
"""Numbers of an attention head, below which width; 64 from there on."""


N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions(Generic[N]):
    """Sizes of an agent's layers, integers, or real numbers before rounding.

    Those that its family does not have are 0.
    """

    embedding: N
    """E, numbers a category is embedded in."""
    hidden: N
    """H, units of the encoder's layer."""
    core: N
    """W, units that the core yields."""
    channels: N
    """C, channels of the screen's patches."""
    letters: N
    """K, numbers that are read off a few letters of a line."""
    depth: N
    """L, blocks of the transformer."""
    heads: N
    """h, attention heads of a block."""
    head: int
    """S, numbers of an attention head."""
    feedforward: N
    """Units of a block's feed-forward layer."""


def dial_range(name: str) -> tuple[float, float]:
    """Smallest and largest width of a family."""
    transformer = find_family(name).core == "transformer"
    return (_SMALLEST_TRANSFORMER if transformer else _SMALLEST), LARGEST


def unrounded(width: float, family: Family) -> Dimensions[float]:
    """Sizes at a width, before rounding.

    A transformer has 1 + width / 64 blocks: 9 at width 512 (30M parameters), 17 at 1,024.
    """
    screen, transformer = family.observation == "screen", family.core == "transformer"
    thin = 4 + width / 64
    head = next((size for size, below in _HEADS if width < below), 64)
    return Dimensions(
        embedding=thin if screen else 1 + width / 16,
        hidden=width,
        core=width,
        channels=thin if screen else 0,
        letters=2 * thin if screen else 0,
        depth=1 + width / 64 if transformer else 0,
        heads=width / head if transformer else 0,
        head=head if transformer else 0,
        feedforward=4 * width if transformer else 0,
    )


def dimensions(fields: Sequence[Field], actions: int, width: float, name: str) -> Dimensions[int]:
    """Integer sizes for a real-valued width.

    Raises:
        ValueError: the width is below the dial's smallest.
        PlanError: no such family.
    """
    family = find_family(name)
    if not width >= 1:
        raise ValueError(f"width={width}: the dial starts at 1")
    wanted = unrounded(width, family)
    step = 8 if width >= ALIGNED else 1
    core, depth, heads = wanted.core, 0, 0
    if family.core == "transformer":
        # as many parameters in the rounded number of blocks as in the unrounded one
        depth = max(1, round(wanted.depth))
        core = wanted.core * (wanted.depth / depth) ** 0.5
        heads = max(1, round(core / wanted.head))
    size: Dimensions[int] = Dimensions(
        embedding=_round(wanted.embedding, step if wanted.embedding >= step else 1),
        hidden=_round(wanted.hidden, step),
        core=_round(core, step),
        channels=_round(wanted.channels, step),
        letters=_round(wanted.letters, 4 if step > 1 else 1),
        depth=depth,
        heads=heads,
        head=wanted.head,
        feedforward=_round(wanted.feedforward, step),
    )
    free = "feedforward" if family.core == "transformer" else "hidden"
    smooth = smooth_count(fields, actions, width, name)
    none, one = (
        count_params(fields, actions, replace(size, **{free: units}), family) for units in (0, 1)
    )
    units = max(step, _round((smooth - none) / (one - none), step))
    return replace(size, **{free: units})


def _round(x: float, step: int) -> int:
    return step * round(x / step)


def smooth_count(fields: Sequence[Field], actions: int, width: float, name: str) -> float:
    """Parameters of the unrounded sizes at `width`: increasing, and what the dial aims at."""
    family = find_family(name)
    return count_params(fields, actions, unrounded(width, family), family)


def count_params(
    fields: Sequence[Field], actions: int, size: Dimensions[int] | Dimensions[float], family: Family
) -> float:
    """Trainable parameters in closed form, for sizes that need not be integers."""
    return sum(count_components(fields, actions, size, family).values())


def count_components(
    fields: Sequence[Field], actions: int, size: Dimensions[int] | Dimensions[float], family: Family
) -> Mapping[str, float]:
    """Trainable parameters of embedding, encoder, core and head, likewise."""
    e, h, w = size.embedding, size.hidden, size.core
    rows, ids, numbers = count_inputs(fields, family)
    screen = extra = 0.0
    if family.observation == "screen":
        shape = encoders.screen_shape(fields)
        screen = encoders.count_params(e, size.channels, size.letters)
        extra = encoders.count_outputs(shape, e, size.channels, size.letters)
    if family.core == "transformer":
        core = count_transformer(h, w, size.depth, size.heads * size.head, size.feedforward)
    else:
        core = 4 * w * (h + w) + (8 * w if family.core == "lstm" else 5 * w)
    plain = family.objective != "returns"
    return {
        "embedding": rows * e,
        "encoder": screen + (ids * e + numbers + extra + 2) * h,
        "core": core,
        "head": actions * (h + w + 1) if plain else ReturnHead.count_params(h + w, actions),
    }


def count_inputs(fields: Sequence[Field], family: Family) -> tuple[int, int, int]:
    """Rows of the joint embedding table, and P ids and M numbers that enter the hidden layer."""
    plain = plain_fields(fields, family)
    rows = sum(f.vocabulary for f in plain if f.vocabulary is not None)
    if family.observation == "screen":
        rows += encoders.table_rows(fields)
    ids = sum(f.size for f in plain if f.vocabulary is not None)
    return rows, ids, sum(f.size for f in plain if f.vocabulary is None)


def plain_fields(fields: Sequence[Field], family: Family) -> list[Field]:
    """The fields that enter the hidden layer as they are: all but the screen itself."""
    screen = ("characters", "colours") if family.observation == "screen" else ()
    return [f for f in fields if f.name not in screen]
