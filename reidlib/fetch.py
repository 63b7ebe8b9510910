"""Get a data set, or say where to ask for it: ``python -m reidlib.fetch NAME``."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reidlib.audit import check_scorable
from reidlib.manifest import Dataset
from reidlib.paths import data_root
from reidlib.progress import say
from reidlib.readers import KNOWN, check_counts, read_dataset, read_pku_reid
from reidlib.studies import PARAMS, load_study

PKU_URL = "https://github.com/aditi184/Person_Re-Identification"
PKU_COMMIT = "854c7f2"
PKU_CHECKSUM = "98a498c075aa451a50ccf9dea82dbd3eb190d753b304b2387b95632ce9d0e138"

MARKET1501_HELP = """\
Market-1501 cannot be fetched without asking: its authors give it out for research.
  1. Search for the Market-1501 data set page of its authors (Zheng, Shen, Tian, Wang, Wang, Tian:
     "Scalable Person Re-identification: A Benchmark", ICCV 2015; Liang Zheng's project page).
  2. Put Market-1501-v15.09.15.zip, as it is or unpacked, into
     {root}
  3. Run this again: it unpacks and checks what it finds.
"""


def fetch_pku_reid(root: Path | str, url: str = PKU_URL, commit: str = PKU_COMMIT,
                   checksum: str = PKU_CHECKSUM,
                   counts: dict[str, tuple[int, int]] = KNOWN["pku-reid"]) -> Dataset:
    """Fetch the public copy of PKU-Reid's course split into ``root``, whole or not at all.

    A root that holds the data set already is verified and left as it is. Raises FileNotFoundError
    if there is no git, ConnectionError if the clone fails, ValueError if the commit or its folders
    do not exist, if counts or checksum differ, or if ``root`` holds something else.
    """
    root = Path(root).resolve()
    if root.is_dir() and any(root.iterdir()):
        say(f"{root} exists; checking it (move it away to fetch it anew)")
        return _verify(root, checksum, counts)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", suffix=".partial",
                                     dir=root.parent) as partial:
        say(f"cloning {url} (this can take some minutes)")
        data = _clone_data(url, commit, Path(partial, "clone"))
        fetched = _verify(data, checksum, counts)
        data.rename(root)
    return replace(fetched, root=root)


def _clone_data(url: str, commit: str, clone: Path) -> Path:
    """Clone into ``clone``, check out the data folders of ``commit`` only; returns their parent."""
    done = _git("clone", "--quiet", "--no-checkout", "--", url, str(clone))
    if done.returncode:
        raise ConnectionError(f"cannot clone {url}: {_last_line(done.stderr)}; check the network, "
                              "or give the address of another copy with --url")
    done = _git("-C", str(clone), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if done.returncode:
        raise ValueError(f"{url} has no commit {commit}; is it a copy of {PKU_URL}?")
    done = _git("-C", str(clone), "checkout", "--quiet", done.stdout.strip(), "--",
                "data/train", "data/val")
    if done.returncode:
        raise ValueError(f"commit {commit} of {url} has no data/train and data/val: "
                         f"{_last_line(done.stderr)}")
    return clone / "data"


def _git(*args: str) -> subprocess.CompletedProcess[str]:
    # inside a git hook these name another repository
    env = {key: value for key, value in os.environ.items()
           if key not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}}
    try:
        return subprocess.run(["git", *args], capture_output=True, text=True, check=False,
                              env=env | {"GIT_TERMINAL_PROMPT": "0"})
    except FileNotFoundError as error:
        raise FileNotFoundError("git was not found; install it and run this again") from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _verify(root: Path, checksum: str, counts: dict[str, tuple[int, int]]) -> Dataset:
    dataset = Dataset("pku-reid", root, read_pku_reid(root))
    check_counts(dataset, counts)
    if dataset.checksum != checksum:
        raise ValueError(f"{root} has the known counts, but other names or content: checksum "
                         f"{dataset.checksum}, expected {checksum}; it is not the copy at "
                         f"{PKU_URL}, commit {PKU_COMMIT}")
    return dataset


def _market1501(root: Path) -> Dataset:
    try:
        return read_dataset("market1501", root)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}\n\n{MARKET1501_HELP.format(root=root)}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0 if the data set is there, complete and readable, else 1."""
    parser = argparse.ArgumentParser(prog="python -m reidlib.fetch", description=__doc__)
    parser.add_argument("name", help="pku-reid (fetched with git), market1501 (says where to ask; "
                        "checks what is there), synthetic (drawn, nothing to fetch), the path "
                        "of a CSV of your own data below REIDLIB_DATA (checked), or a study of "
                        "notebooks/params")
    parser.add_argument("--url", default=PKU_URL, help="another git copy of PKU-Reid's split, an "
                        "address or a folder (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="folder of the data set "
                        "(default: REIDLIB_DATA/NAME, else data/NAME)")
    args = parser.parse_args(argv)
    try:
        if (PARAMS / f"{args.name}.yaml").is_file():  # a study: what it runs on
            args.name = load_study(args.name).dataset
        if args.name == "synthetic":
            say("synthetic is drawn when it is needed; there is nothing to fetch")
            return 0
        root = args.root or data_root() / args.name
        if args.name == "pku-reid":
            dataset = fetch_pku_reid(root, args.url)
        elif args.name == "market1501":
            dataset = _market1501(root)
        else:
            path = Path(args.name)
            dataset = read_dataset(str(path.resolve()) if path.is_file() else args.name, args.root)
            check_scorable(dataset.manifest)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    say(f"{dataset.name} in {dataset.root} is complete and readable\n{dataset.counts()}\n"
         f"checksum {dataset.checksum}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
