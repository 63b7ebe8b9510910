"""The drawn data set: layout, queries, determinism, and what the pictures show."""

import re
import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from reidlib.data.synthetic import dataset
from reidlib.data.synthetic.dataset import choose_queries, write_dataset
from reidlib.data.synthetic.person import OUTFITS, Cloth, make_appearance
from reidlib.data.synthetic.scene import draw_person
from reidlib.data.synthetic.spec import N_OUTFITS, SyntheticSpec, make_spec

SMALL = SyntheticSpec(train_ids=3, test_ids=2, orientations=4, n_query=6, n_query_copies=4)
CLEAN = SyntheticSpec(noise=0.0, blur=0.0, occlusion=0.0, shift=0.0, brightness=0.0)
FRONT, BACK = 7, 3


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("drawn") / "set", SMALL)


def read_all(root):
    return {path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*") if path.is_file()}


def keys_below(folder):
    return {(path.parent.name, path.stem.split("_")[0], path.stem.split("_")[1])
            for path in folder.glob("*/*.png")}


def changed(one, other, camera, orientation):
    """Where the pictures of two appearances differ, all else (the chance too) being the same."""
    first, second = (np.asarray(draw_person(who, camera, orientation, np.random.default_rng(5),
                                            CLEAN)).astype(int) for who in (one, other))
    return np.abs(first - second).max(axis=2) > 4


@pytest.fixture
def plain():
    """Somebody without a bag, in plain clothes."""
    return replace(make_appearance(1, CLEAN), upper=Cloth((42, 50, 84)), coat=False,
                   long_sleeves=True, lower=Cloth((34, 34, 38)), lower_kind="trousers", bag="none",
                   bag_colour=(176, 162, 134), hair_style="short", width=1.0)


def test_layout_is_that_of_pku_reid(small):
    assert sorted(path.name for path in small.iterdir()) == ["SHA256SUMS", "spec.json", "train",
                                                             "val"]
    assert sorted(path.name for path in (small / "val").iterdir()) == ["gallery", "query"]
    want = {(f"{person:03d}", camera, str(orientation)) for person in (1, 2, 3)
            for camera in ("01", "02") for orientation in (1, 2, 3, 4)}
    assert keys_below(small / "train") == want
    query, gallery = keys_below(small / "val/query"), keys_below(small / "val/gallery")
    assert len(query) == 6 and len(gallery) == 2 * 2 * 4 - (6 - 4)
    assert {person for person, _, _ in query | gallery} == {"004", "005"}


def test_pictures_are_48x128_rgb_png(small):
    paths = sorted(small.rglob("*.png"))
    assert len(paths) == 24 + 6 + 14
    for path in paths:
        with Image.open(path) as picture:
            assert (picture.size, picture.mode, picture.format) == ((48, 128), "RGB", "PNG")


def test_copies_are_byte_identical_and_nothing_else_is(small):
    gallery = {sha256(path.read_bytes()).digest(): path.relative_to(small / "val/gallery")
               for path in small.glob("val/gallery/*/*.png")}
    assert len(gallery) == 14  # no two gallery pictures are the same
    queries = {path.relative_to(small / "val/query"): sha256(path.read_bytes()).digest()
               for path in small.glob("val/query/*/*.png")}
    copies = {name for name, digest in queries.items() if digest in gallery}
    assert len(copies) == SMALL.n_query_copies
    assert all(gallery[queries[name]] == name for name in copies)
    assert not any((small / "val/gallery" / name).exists() for name in set(queries) - copies)


def test_default_counts_are_those_of_pku_reid():
    queries, absent = choose_queries(SyntheticSpec())
    assert len(set(queries)) == 28 and len(absent) == 28 - 17 and absent <= set(queries)
    assert 12 * 2 * 8 - len(absent) == 181
    assert {person for person, _, _ in queries} == set(range(63, 75))


@pytest.mark.parametrize("seed", range(20))
def test_every_query_has_a_match_from_the_other_camera(seed):
    spec = replace(SMALL, orientations=2, n_query=7, n_query_copies=3, seed=seed)
    queries, absent = choose_queries(spec)
    assert len(absent) == 4  # one of two for each person and camera: as many as possible
    for person, camera, _ in queries:
        assert any((person, 3 - camera, orientation) not in absent for orientation in (1, 2))


def test_same_seed_same_bytes_other_seed_other_pictures(small, tmp_path):
    assert read_all(write_dataset(tmp_path / "again", SMALL)) == read_all(small)
    other = read_all(write_dataset(tmp_path / "other", replace(SMALL, seed=1)))
    assert not set(other.values()) & set(read_all(small).values())


def test_same_spec_is_not_drawn_again_and_another_one_replaces_it(tmp_path):
    tiny = replace(SMALL, train_ids=1, test_ids=1, orientations=2, n_query=1, n_query_copies=1)
    root = write_dataset(tmp_path / "set", tiny)
    before = (root / "spec.json").stat()
    assert write_dataset(root, tiny) == root
    assert (root / "spec.json").stat() == before
    write_dataset(root, replace(tiny, train_ids=2))
    assert len(list(root.glob("train/*/*.png"))) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("files", [{"photo.png": "mine"}, {"spec.json": "{}"},
                                   {"spec.json": '{"drawn_by": "reidlib.synthetic"}', "x": ""}])
def test_foreign_folder_is_refused_and_untouched(tmp_path, files):
    root = tmp_path / "theirs"
    root.mkdir()
    for name, text in files.items():
        (root / name).write_text(text)
    before = read_all(root)
    with pytest.raises(ValueError, match=re.escape(str(root))):
        write_dataset(root, SMALL)
    assert read_all(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


@pytest.mark.parametrize("harm", [
    lambda root: (root / "train/001/01_1.png").unlink(),
    lambda root: shutil.copy(root / "train/002/01_1.png", root / "train/001/01_1.png")])
def test_a_picture_that_is_gone_or_another_is_drawn_again(small, tmp_path, harm, capsys):
    root = shutil.copytree(small, tmp_path / "set")
    harm(root)
    write_dataset(root, SMALL)
    assert read_all(root) == read_all(small)
    assert "not as drawn, or without a checksum (1): train/001/01_1" in capsys.readouterr().out


def test_a_drawn_folder_without_its_specification_may_be_deleted(small, tmp_path):
    root = shutil.copytree(small, tmp_path / "set")
    (root / "spec.json").unlink()
    with pytest.raises(ValueError, match=f"{root} .*delete it and it is drawn again"):
        write_dataset(root, SMALL)


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def stop_at_the_fifth(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw_person(*args)

    monkeypatch.setattr(dataset, "draw_person", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", SMALL)
    assert len(calls) == 5 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("key", "value", "expected"), [
    ("train_ids", 0, "1 or more"), ("train_ids", "six", "a whole number"),
    ("outfits", 9, "8 or less"), ("contrast", 1.5, "1 or less"), ("noise", "loud", "a number"),
    ("seed", -1, "0 or more"), ("test_ids", 990, "999 people"), ("n_query_copies", 29, "28")])
def test_impossible_spec_is_refused(key, value, expected):
    with pytest.raises(ValueError, match=rf"{key} (is )?'?{value}'?; expected .*{expected}"):
        make_spec({key: value})


def test_too_many_queries_are_refused():
    with pytest.raises(ValueError, match="16 test pictures are too few for 17 queries"):
        choose_queries(replace(SMALL, n_query=17, n_query_copies=17))
    with pytest.raises(ValueError, match="16 test pictures are too few for 13 queries"):
        choose_queries(replace(SMALL, n_query=13, n_query_copies=0))


@pytest.mark.parametrize("camera", [1, 2])
def test_logo_is_seen_from_the_front_only(plain, camera):
    logo = replace(plain, upper=Cloth((42, 50, 84), (208, 206, 200), "logo"))
    assert changed(plain, logo, camera, FRONT).sum() > 20
    assert changed(plain, logo, camera, BACK).sum() == 0


@pytest.mark.parametrize("camera", [1, 2])
def test_backpack_is_seen_from_the_back_its_straps_from_the_front(plain, camera):
    backpack = replace(plain, bag="backpack")
    front, back = (changed(plain, backpack, camera, view).sum() for view in (FRONT, BACK))
    assert back > 250 and 20 < front < back / 2


@pytest.mark.parametrize("bag", ["shoulder", "hand"])
def test_bag_is_on_its_side_from_the_front_and_the_back(plain, bag):
    left, right = (replace(plain, bag=bag, bag_side=side) for side in (1, -1))

    def mean_x(who, view):
        return np.nonzero(changed(plain, who, 1, view)[64:])[1].mean()  # below the straps

    assert mean_x(left, FRONT) > 28 and mean_x(right, FRONT) < 20
    assert mean_x(left, BACK) < 20 and mean_x(right, BACK) > 28


def test_people_are_narrower_in_profile(plain):
    stout = replace(plain, shoulders=1.1, bag="none")
    slim = replace(stout, width=0.86)
    rows = slice(30, 42)  # the chest
    front, side = (changed(stout, slim, 2, view)[rows].any(axis=0) for view in (FRONT, 1))
    assert np.ptp(np.flatnonzero(front)) > np.ptp(np.flatnonzero(side))


def test_cameras_have_their_own_colour_which_the_knob_removes(plain):
    def red_minus_blue(camera, spec):
        picture = np.asarray(draw_person(plain, camera, 1, np.random.default_rng(0), spec))
        return picture[..., 0].mean() - picture[..., 2].mean()

    cast, none = (red_minus_blue(1, spec) - red_minus_blue(2, spec)
                  for spec in (CLEAN, replace(CLEAN, colour_cast=0.0)))
    assert cast > 60 and none < cast / 2


def test_people_share_outfits_and_differ_otherwise():
    people = [make_appearance(person, SyntheticSpec()) for person in range(1, 75)]
    assert len(set(people)) == 74
    assert len({(who.upper.first, who.lower.first) for who in people}) == SyntheticSpec().outfits


@pytest.mark.parametrize(("camera", "orientation"), [(0, 1), (3, 1), (1, 0), (1, 9)])
def test_unknown_camera_or_orientation_is_refused(plain, camera, orientation):
    with pytest.raises(ValueError, match=f"camera {camera} or orientation {orientation}"):
        draw_person(plain, camera, orientation, np.random.default_rng(0), SyntheticSpec())


def test_the_specification_allows_as_many_outfits_as_there_are():
    assert len(OUTFITS) == N_OUTFITS
