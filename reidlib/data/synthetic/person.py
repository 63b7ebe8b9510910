"""Draws one picture of a person: dressed, seen by a camera from a direction.

A person is a set of solids in body coordinates (left, forward, up; 1 = stature). They are turned,
projected and painted back to front, so a logo hides from behind and a bag changes sides by itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from reidlib.data.synthetic.spec import SyntheticSpec

RGB = tuple[int, int, int]

BLACK, NAVY, GREY, BROWN = (34, 34, 38), (42, 50, 84), (112, 112, 114), (98, 76, 58)
GREEN, WINE, BEIGE, DENIM = (62, 82, 64), (104, 46, 54), (176, 162, 134), (72, 92, 122)
WHITE = (208, 206, 200)
OUTFITS = ((NAVY, BLACK), (GREY, DENIM), (BLACK, GREY), (BEIGE, NAVY), (GREEN, BLACK),
           (WHITE, DENIM), (WINE, NAVY), (BROWN, BLACK))  # colours of the upper, lower garment
SKIN = ((226, 186, 158), (204, 158, 126), (158, 112, 82), (112, 78, 58))
HAIR = ((26, 22, 22), (64, 44, 32), (132, 98, 60))


class Cloth(NamedTuple):
    first: RGB | None  # None leaves what was painted before, so that only the pattern is added
    second: RGB = BLACK
    pattern: str = "plain"


@dataclass(frozen=True)
class Appearance:
    """What stays the same in all pictures of a person; lengths are relative to the average."""

    height: float
    width: float
    shoulders: float
    skin: RGB
    hair: RGB
    hair_style: str  # short, bald, bob, long, ponytail, cap
    upper: Cloth
    long_sleeves: bool
    coat: bool  # the upper garment reaches the thighs
    lower: Cloth
    lower_kind: str  # trousers, shorts, skirt
    shoes: RGB
    bag: str  # none, backpack, shoulder, hand
    bag_colour: RGB  # also the cap's
    bag_side: int  # 1 = the person's left, -1 = right


# Where a cloth has its second colour. u: angle round the body, 0 = front, pi/2 = left; v: height.
PATTERNS = {
    "plain": lambda u, v: 0,
    "horizontal": lambda u, v: v * 15 % 1 < 0.45,
    "vertical": lambda u, v: u * 1.9 % 1 < 0.35,
    "checks": lambda u, v: 0.5 * (u * 1.3 % 1 < 0.5) + 0.5 * (v * 13 % 1 < 0.5),
    "block": lambda u, v: v > 0.71,
    "logo": lambda u, v: (abs(u) < 0.55) & (abs(v - 0.73) < 0.035),
    "open": lambda u, v: abs(u) < 0.5 + 0.5 * (v - 0.6),
    "seam": lambda u, v: abs(abs(u) - np.pi / 2) < 0.25,
    "face": lambda u, v: (abs(u) < 1.15 - 4 * np.maximum(v - 0.93, 0)) & (v < 0.966),
    "bald": lambda u, v: (abs(u) < 1.3) | (v > 0.945),
    "eyes": lambda u, v: (abs(abs(u) - 0.42) < 0.16) & (abs(v - 0.937) < 0.006),
    "straps": lambda u, v: (abs(abs(u) - 0.65) < 0.14) & (v > 0.62),
    "left strap": lambda u, v: abs(v - 0.68 + 0.14 * np.sin(u)) < 0.014,
    "right strap": lambda u, v: abs(v - 0.68 - 0.14 * np.sin(u)) < 0.014,
}


def make_appearance(person: int, spec: SyntheticSpec) -> Appearance:
    """The person with this number (from 1). Every outfit is worn equally often."""
    rng = np.random.default_rng((spec.seed, person))

    def pick(*options):
        return options[rng.integers(len(options))]

    def weave(first: RGB, *patterns: str) -> Cloth:
        second = pick(*(c for c in (WHITE, BEIGE, GREY, BLACK) if abs(sum(c) - sum(first)) > 150))
        mixed = np.array(first) + spec.contrast * (np.array(second) - first)
        return Cloth(first, tuple(mixed.astype(int).tolist()), pick("plain", "plain", *patterns))

    upper, lower = OUTFITS[person % spec.outfits]
    return Appearance(
        height=rng.uniform(0.91, 1.04), width=rng.uniform(0.86, 1.2),
        shoulders=rng.uniform(0.9, 1.1), skin=pick(*SKIN), hair=pick(*HAIR),
        hair_style=pick("short", "short", "bald", "bob", "long", "ponytail", "cap"),
        upper=weave(upper, "horizontal", "vertical", "checks", "block", "logo", "open"),
        long_sleeves=rng.random() < 0.6, coat=rng.random() < 0.25,
        lower=weave(lower, "plain", "plain", "seam", "checks"),
        lower_kind=pick("trousers", "trousers", "trousers", "shorts", "skirt"),
        shoes=pick(BLACK, WHITE, BROWN, WINE),
        bag=pick("none", "none", "backpack", "backpack", "shoulder", "hand"),
        bag_colour=pick(BLACK, BROWN, WINE, BEIGE), bag_side=pick(1, -1))


@dataclass(frozen=True)
class View:
    """How the person is turned, and where on the supersampled picture they stand."""

    turn: float  # radians; 0 = faces the camera, pi/2 = faces the right edge
    x: float  # pixels
    foot: float
    scale: float  # pixels per stature
    light: float

    def near(self, left: float, forward: float) -> float:
        """How much nearer to the camera than the body's axis."""
        return forward * np.cos(self.turn) - left * np.sin(self.turn)

    def at(self, left: float, forward: float, up: float) -> np.ndarray:
        """Pixel (x, y). The camera looks down a little, so near things are lower."""
        across = left * np.cos(self.turn) + forward * np.sin(self.turn)
        down = 0.2 * self.near(left, forward) - up
        return np.array([self.x + self.scale * across, self.foot + self.scale * down])


class Part(NamedTuple):
    near: float  # parts are painted in this order
    outline: np.ndarray  # (points, 2) pixels
    cloth: Cloth


def limb(view: View, start, end, radii: tuple[float, float], cloth: Cloth, lift=0.0) -> Part:
    """A tapered capsule between two body points; ``lift`` brings it nearer than it is."""
    p, q = view.at(*start), view.at(*end)
    angle = np.arctan2(*(q - p)[::-1]) + np.linspace(np.pi / 2, 3 * np.pi / 2, 9)
    arc = np.stack([np.cos(angle), np.sin(angle)], 1) * view.scale
    near = (view.near(*start[:2]) + view.near(*end[:2])) / 2
    return Part(near + lift, np.concatenate([p + arc * radii[0], q - arc * radii[1]]), cloth)


def trunk(view: View, rings, cloth: Cloth, lift=0.0) -> Part:
    """A solid round the body's axis; rings: (height, half width, half depth) from the top down."""
    up, left, forward = np.array(rings).T
    half = np.hypot(left * np.cos(view.turn), forward * np.sin(view.turn))
    sides = [np.stack([view.x + s * view.scale * half, view.foot - view.scale * up], 1)
             for s in (1, -1)]
    return Part(lift, np.concatenate([sides[0], sides[1][::-1]]), cloth)


def box(view: View, centre, half, cloth: Cloth, lift=0.0) -> Part:
    """A box with bevelled corners; ``half``: half its size to the left, forward and up."""
    across = abs(half[0] * np.cos(view.turn)) + abs(half[1] * np.sin(view.turn))
    bevel = [(1, .7), (.75, 1), (-.75, 1), (-1, .7), (-1, -.8), (-.85, -1), (.85, -1), (1, -.8)]
    size = np.array([across, -half[2]]) * view.scale
    return Part(view.near(*centre[:2]) + lift, view.at(*centre) + np.array(bevel) * size, cloth)


def leg_parts(who: Appearance, view: View, side: int, swing: float) -> list[Part]:
    """Thigh, shin, shoe. side: 1 = left; swing: how far forward the foot is, in [-1, 1]."""
    bare, wide = Cloth(who.skin), who.width
    thigh = bare if who.lower_kind == "skirt" else who.lower
    shin, loose = (who.lower, 1.2) if who.lower_kind == "trousers" else (bare, 1.0)
    hip = (side * 0.045 * wide, 0.0, 0.49)
    knee = (side * 0.045 * wide, 0.085 * swing + 0.025, 0.275)
    x, forward, up = ankle = (side * 0.04, 0.17 * swing - 0.015, 0.045 + 0.05 * max(-swing, 0))
    return [limb(view, hip, knee, (0.056 * wide, 0.042 * wide), thigh, -0.12),
            limb(view, knee, ankle, (0.036 * wide * loose, 0.024 * loose), shin, -0.121),
            limb(view, (x, forward - 0.01, up - 0.02), (x * 1.3, forward + 0.075, up - 0.028),
                 (0.023, 0.018), Cloth(who.shoes), -0.121)]


def arm_parts(who: Appearance, view: View, side: int, swing: float) -> list[Part]:
    """Upper arm, forearm, hand, and the bag that hangs from it."""
    sleeve = Cloth(who.upper.first) if who.upper.pattern in ("logo", "open") else who.upper
    bare, reach = Cloth(who.skin), side * 0.112 * who.width * who.shoulders
    shoulder, elbow = (reach * 0.8, 0.0, 0.785), (reach * 1.07, 0.05 * swing - 0.02, 0.635)
    hand = (reach * 1.05, 0.14 * swing + 0.02, 0.49)
    lower = sleeve if who.long_sleeves else bare
    parts = [limb(view, elbow, hand, (0.028 * who.width, 0.02), lower, 0.02),
             limb(view, shoulder, elbow, (0.036 * who.width, 0.031 * who.width), sleeve, 0.021),
             limb(view, hand, (*hand[:2], 0.47), (0.02, 0.017), bare, 0.022)]
    if who.bag == "hand" and side == who.bag_side:
        below = (hand[0] + side * 0.01, hand[1], 0.37)
        parts += [box(view, below, (0.03, 0.08, 0.07), Cloth(who.bag_colour), 0.03)]
    return parts


def head_parts(who: Appearance, view: View) -> list[Part]:
    """Neck, head with a face on its front, hair, cap."""
    hair, cap, style = Cloth(who.hair), Cloth(who.bag_colour), who.hair_style
    oval = [(0.932 + 0.068 * np.cos(a), 0.046 * np.sin(a), 0.055 * np.sin(a))
            for a in np.linspace(0, np.pi, 13)]
    face = Cloth(who.hair, who.skin, "bald" if style == "bald" else "face")
    bare, nape, throat = Cloth(who.skin), (0.0, -0.01, 0.9), (0.0, -0.01, 0.83)
    parts = [limb(view, nape, throat, (0.028, 0.034), bare, -0.02),
             trunk(view, oval, face, 0.005), trunk(view, oval, Cloth(None, BLACK, "eyes"), 0.006)]
    if style in ("bob", "long"):
        end = 0.89 if style == "bob" else 0.79
        parts += [limb(view, (0.0, -0.016, 0.945), (0.0, -0.04, end), (0.056, 0.055), hair)]
    if style == "ponytail":
        parts += [limb(view, (0.0, -0.06, 0.95), (0.0, -0.085, 0.83), (0.022, 0.014), hair)]
    if style == "cap":
        crown = [(up + 0.002, left * 1.1, forward * 1.1) for up, left, forward in oval[:7]]
        brim = limb(view, (0.0, 0.035, 0.95), (0.0, 0.09, 0.955), (0.022, 0.014), cap, 0.006)
        parts += [trunk(view, crown, cap, 0.007), brim]
    return parts


def torso_parts(who: Appearance, view: View) -> list[Part]:
    """Skirt, upper garment, and a bag worn on the body with its straps."""
    wide, deep, bag = who.width, 0.5 + 0.5 * who.width, Cloth(who.bag_colour)
    chest, hem = 0.112 * wide * who.shoulders, 0.36 if who.coat else 0.475
    rings = [(0.855, 0.036, 0.036), (0.832, chest * 0.72, 0.055 * deep), (0.8, chest, 0.068 * deep),
             (0.72, chest * 0.96, 0.078 * deep), (0.61, 0.088 * wide, 0.068 * deep),
             (0.51, 0.102 * wide, 0.078 * deep), (hem, 0.106 * wide, 0.08 * deep)]
    skirt = [(0.6, 0.08 * wide, 0.06), (0.5, 0.105 * wide, 0.08), (0.31, 0.135 * wide, 0.11)]
    parts = [trunk(view, skirt, who.lower)] if who.lower_kind == "skirt" else []
    parts += [trunk(view, rings, who.upper)]
    if who.bag == "backpack":
        parts += [trunk(view, rings, Cloth(None, who.bag_colour, "straps")),
                  box(view, (0.0, -0.1, 0.695), (0.075, 0.045, 0.11), bag)]
    if who.bag == "shoulder":
        strap = "left strap" if who.bag_side > 0 else "right strap"
        centre = (who.bag_side * (0.1 * wide + 0.025), 0.01, 0.49)
        parts += [trunk(view, rings, Cloth(None, who.bag_colour, strap)),
                  box(view, centre, (0.03, 0.08, 0.06), bag, 0.04)]
    return parts


def paint(picture: Image.Image, part: Part, view: View) -> None:
    """Fill the outline with the cloth, wrapped round it and shaded like a cylinder."""
    low = np.maximum(np.floor(part.outline.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(part.outline.max(0)).astype(int) + 1, picture.size)
    if (high <= low).any():
        return
    mask = Image.new("L", tuple((high - low).tolist()))
    ImageDraw.Draw(mask).polygon([tuple(p) for p in (part.outline - low).tolist()], fill=255)
    inside = np.asarray(mask) > 0
    left = inside.argmax(1)[:, None]  # first and last pixel of each row
    right = inside.shape[1] - 1 - inside[:, ::-1].argmax(1)[:, None]
    across = (2 * np.arange(inside.shape[1]) - left - right) / (right - left + 1)
    angle = np.arcsin(np.clip(across, -1, 1), dtype=np.float32)
    u = (angle - view.turn + np.pi) % (2 * np.pi) - np.pi
    v = (view.foot - np.arange(low[1], high[1])[:, None]) / view.scale
    where = np.broadcast_to(PATTERNS[part.cloth.pattern](u, v), u.shape)[..., None]
    if part.cloth.first is None:
        mask = Image.fromarray(np.asarray(mask) * where[..., 0].astype(np.uint8))
    first, second = np.float32([part.cloth.first or part.cloth.second, part.cloth.second])
    shade = 0.68 + 0.4 * np.cos(angle - view.light)[..., None]
    texture = np.clip((first + where * (second - first)) * shade, 0, 255).astype(np.uint8)
    picture.paste(Image.fromarray(texture), tuple(low.tolist()), mask)
