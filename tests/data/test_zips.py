"""A zip becomes one complete folder next to it, or nothing."""

import zipfile

import pytest

from reidlib.data import zips
from tests.data.made_up import draw, zipped


def write_zip(path, member, content=b"x"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, content)


@pytest.mark.parametrize("top", ["query", "a"])
def test_folder_is_as_it_was(tmp_path, top):
    draw(tmp_path / "query/a/1.png")
    content = (tmp_path / "query/a/1.png").read_bytes()
    archive = zipped(tmp_path / "query", tmp_path / "query" if top == "a" else None)
    zips.unpack_zip(archive, ["a", "b"])
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["query", "a", "1.png", "query.zip"]
    assert (tmp_path / "query/a/1.png").read_bytes() == content
    outer, inner = ((tmp_path / path).stat().st_mode for path in ("query", "query/a"))
    assert outer & 0o055 == inner & 0o055  # others may read both


def test_no_zip_is_no_error(tmp_path):
    zips.unpack_zip(tmp_path / "query.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fill, message", [
    (lambda path: path.write_bytes(b"no zip"), "damaged zip"),
    (lambda path: write_zip(path, "query/../../evil.jpg"), "leave the folder.*evil"),
    (lambda path: write_zip(path, "other/1.jpg"), "no folder query or labeled; unpack it by hand"),
    (lambda path: write_zip(path, "query/a.jpg", bytes(2000)), "holds 0 MB, expected at most 0; "
                                                               "get the data set"),
])
def test_bad_zip_leaves_nothing(tmp_path, fill, message, monkeypatch):
    monkeypatch.setattr(zips, "MAX_SIZE", 1000)
    fill(tmp_path / "query.zip")
    with pytest.raises(ValueError, match=message):
        zips.unpack_zip(tmp_path / "query.zip", ["labeled"])
    assert [p.name for p in tmp_path.rglob("*")] == ["query.zip"]


def test_read_only_folder_is_not_written_to(tmp_path):
    write_zip(tmp_path / "query.zip", "query/a.jpg")
    tmp_path.chmod(0o555)
    with pytest.raises(OSError, match="cannot unpack .*query.zip.*read-only.*REIDLIB_DATA"):
        zips.unpack_zip(tmp_path / "query.zip")
    tmp_path.chmod(0o755)
    assert not (tmp_path / "query").exists()
