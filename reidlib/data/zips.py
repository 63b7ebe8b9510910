"""Zip files of data sets, unpacked completely or not at all."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from reidlib.data.manifest import stays_inside
from reidlib.utils.errors import refuse

MAX_SIZE = 1e10  # bytes, unpacked: more than any known data set


def unpack_zip(archive: Path, inside: Iterable[str] = ()) -> None:
    """Unpack ``<name>.zip``, if there is one, to the folder ``<name>``, or nothing of it.

    The zip holds the folder ``<name>``, or one of the folders ``inside`` that belong in there.
    Raises ValueError where it holds neither, is damaged, too large, or has paths that lead out, and
    OSError where its own folder cannot be written.
    """
    if not archive.is_file():
        return
    name, folder = archive.stem, archive.parent
    try:
        if not folder.stat().st_mode & 0o222:  # root could write here, but is not meant to
            raise PermissionError("the folder is read-only")
        with (tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".partial",
                                          dir=folder) as partial,
              zipfile.ZipFile(archive) as file):
            _check_members(archive, file)
            content = Path(partial, "content")
            file.extractall(content)
            if (content / name).is_dir():
                content = content / name
            elif not any((content / top).is_dir() for top in inside):
                raise ValueError(f"{archive} holds no folder {' or '.join([name, *inside])}; "
                                 f"unpack it by hand so that it becomes {folder / name}")
            content.rename(folder / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{archive} is a damaged zip file ({error}); download it again") from error
    except OSError as error:
        raise OSError(f"cannot unpack {archive} in its folder ({error}); put it into a folder that "
                      "can be written and has room (REIDLIB_DATA names the folder of all data "
                      "sets)") from error


def _check_members(archive: Path, file: zipfile.ZipFile) -> None:
    refuse(archive, [path for path in file.namelist() if not stays_inside(path)],
           "paths that leave the folder", "do not trust this file")
    size = sum(member.file_size for member in file.infolist())
    if size > MAX_SIZE:
        raise ValueError(f"{archive} holds {size / 1e6:.0f} MB, expected at most "
                         f"{MAX_SIZE / 1e6:.0f}; get the data set from its authors")
