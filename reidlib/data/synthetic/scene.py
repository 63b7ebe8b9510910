"""One picture of a person: the camera's ground, the person, what the sensor makes of them."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reidlib.data.synthetic import person
from reidlib.data.synthetic.person import RGB, Appearance, View
from reidlib.data.synthetic.spec import SyntheticSpec

WIDTH, HEIGHT, SUPERSAMPLE = 48, 128, 2  # pixels; drawn larger by SUPERSAMPLE for smooth edges


class Camera(NamedTuple):
    gain: tuple[float, float, float]  # of red, green, blue
    gamma: float
    light: float  # where it comes from, radians; 0 = from the camera, > 0 = from its right
    softness: float  # of the lens, relative
    grain: float  # of the ground, grey levels
    joints: int  # distance of the paving's joints, pixels
    ground: RGB
    beside: RGB  # the ground on the other side of a slanting edge
    behind: RGB  # wall or hedge at the top


CAMERAS = {1: Camera((1.18, 1.06, 0.74), 1.25, -0.7, 0.7, 15, 999, (104, 118, 66),
                     (134, 112, 82), (84, 80, 76)),
           2: Camera((0.80, 0.92, 1.22), 0.72, 0.6, 1.3, 5, 13, (134, 132, 132),
                     (104, 104, 108), (54, 66, 50))}


def draw_scene(camera: Camera, rng: np.random.Generator) -> Image.Image:
    """The camera's ground with its edge, joints and wall, each time in another place."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), camera.ground)
    draw, edge = ImageDraw.Draw(picture), rng.uniform(-20, 80)
    lean = 40 if camera.light > 0 else -40
    draw.polygon([(edge, 0), (edge + lean, HEIGHT), (200, HEIGHT), (200, 0)], fill=camera.beside)
    joint = tuple(level - 20 for level in camera.ground)
    for at in range(int(rng.integers(camera.joints)) - 4 * lean, 4 * HEIGHT, camera.joints):
        draw.line((0, at, WIDTH, at + lean / 5), fill=joint)
        draw.line((at, 0, at + lean, HEIGHT), fill=joint)
    wall, slope = rng.uniform(-20, 40), rng.uniform(-20, 20)
    draw.polygon([(0, -99), (0, wall), (WIDTH, wall + slope), (WIDTH, -99)], fill=camera.behind)
    grain = camera.grain * rng.normal(0, 1, (HEIGHT // 2, WIDTH // 2, 1)).repeat(2, 0).repeat(2, 1)
    picture = Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
    return picture.resize((WIDTH * SUPERSAMPLE, HEIGHT * SUPERSAMPLE), Image.Resampling.NEAREST)


def draw_occluder(scene: Image.Image, rng: np.random.Generator) -> None:
    """A post or a bin in front of the person."""
    (wide, high), grey = scene.size, int(rng.integers(40, 150))
    half, top = (0.06, 0) if rng.random() < 0.5 else (0.28, rng.uniform(0.6, 0.8))
    x = rng.uniform(0.1, 0.9)
    ImageDraw.Draw(scene).rectangle(((x - half) * wide, top * high, (x + half) * wide, high),
                                    fill=(grey, grey + 10, grey), outline=(grey // 2,) * 3)


def expose(picture: Image.Image, camera: Camera, rng: np.random.Generator,
           spec: SyntheticSpec) -> Image.Image:
    """What the camera makes of the scene: blur, gamma, white balance, exposure, noise."""
    radius = spec.blur * camera.softness * rng.uniform(0.5, 1.5)
    light = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius))) / 255
    gain = np.array(camera.gain) ** spec.colour_cast * (1 + spec.brightness * rng.normal())
    gain = gain * (1 + 0.3 * spec.brightness * rng.normal(0, 1, 3))
    levels = 255 * gain * light ** (camera.gamma ** spec.colour_cast)
    levels = levels + spec.noise * rng.normal(0, 1, levels.shape)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def draw_person(appearance: Appearance, camera: int, orientation: int, rng: np.random.Generator,
                spec: SyntheticSpec) -> Image.Image:
    """One 48x128 RGB picture.

    camera: 1 or 2. orientation: from 1 (faces the right edge) in equal steps by way of the back
    (3 of 8), left (5) and front (7), as in PKU-Reid. rng: this picture's pose, place and sensor.
    """
    if camera not in CAMERAS or not 1 <= orientation <= spec.orientations:
        raise ValueError(f"no camera {camera} or orientation {orientation} of {spec.orientations}")
    look = CAMERAS[camera]
    scene = draw_scene(look, rng)
    turn = np.pi * (0.5 + 2 * (orientation - 1) / spec.orientations) + rng.normal(0, 0.15)
    x, foot = np.array([WIDTH / 2, HEIGHT - 5]) + spec.shift * rng.normal(0, (1, 0.6))
    scale = 114 * appearance.height * (1 + 0.01 * spec.shift * rng.normal())
    view = View(turn, *(SUPERSAMPLE * np.array([x, foot, scale])), look.light)
    swing = np.sin(rng.uniform(0, 2 * np.pi))
    parts = person.torso_parts(appearance, view) + person.head_parts(appearance, view)
    for side in (1, -1):
        parts += person.leg_parts(appearance, view, side, side * swing)
        parts += person.arm_parts(appearance, view, side, -side * swing)
    for part in sorted(parts, key=lambda part: part.near):
        person.paint(scene, part, view)
    if rng.random() < spec.occlusion:
        draw_occluder(scene, rng)
    return expose(scene.reduce(SUPERSAMPLE), look, rng, spec)
