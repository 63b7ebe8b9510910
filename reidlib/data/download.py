"""Data sets from their public homes, checked; or where to ask for them."""

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from reidlib.data.audit import check_scorable
from reidlib.data.datasets import default_root, read_dataset
from reidlib.data.manifest import Dataset
from reidlib.utils.console import log
from reidlib.utils.paths import data_root, resolved

PKU_URL = "https://github.com/aditi184/Person_Re-Identification"
PKU_COMMIT = "854c7f2"
PKU_CHECKSUM = "98a498c075aa451a50ccf9dea82dbd3eb190d753b304b2387b95632ce9d0e138"

# what it is, where to ask, what comes from there
MARKET1501 = ("Market-1501", """\
Search for the Market-1501 data set page of its authors (Zheng, Shen, Tian, Wang, Wang, Tian:
     "Scalable Person Re-identification: A Benchmark", ICCV 2015; Liang Zheng's project page).""",
              "Market-1501-v15.09.15.zip")
CUHK03_NP = ("CUHK03 in its new protocol", """\
Ask for CUHK03 at http://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html (Li, Zhao, Xiao,
     Wang: "DeepReID", CVPR 2014); its pictures in the new protocol are described at
     https://github.com/zhunzhong07/person-re-ranking, folder CUHK03-NP (Zhong, Zheng, Cao, Li:
     "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017).""",
             "cuhk03-np.zip with the folders labeled and detected")
PAIR1 = ("The part cuhk03-np-pair1 of CUHK03", """\
It has no page of its own, and its scores cannot be compared with published ones: rather ask
     for all of CUHK03, see `reidlib download cuhk03-np`.""", "cuhk03-np-pair1.zip")
ASK = {"market1501": MARKET1501, "cuhk03-np": CUHK03_NP, "cuhk03-np-detected": CUHK03_NP,
       "cuhk03-np-pair1": PAIR1}
HELP = """\
{what} cannot be downloaded without asking: its authors give it out for research.
  1. {where}
  2. Put {files}, as it is or unpacked, into
     {root}
  3. Run this again: it unpacks and checks what it finds.
"""


def download_pku_reid(root: Path | str, url: str = PKU_URL, commit: str = PKU_COMMIT,
                      checksum: str = PKU_CHECKSUM) -> Dataset:
    """Download the public copy of PKU-Reid's course split into ``root``, completely or not at all.

    A root that holds the data set already is verified and left as it is. Raises FileNotFoundError
    if there is no git, ConnectionError if the clone fails, ValueError if the commit or its folders
    do not exist, if counts or checksum differ, or if ``root`` holds something else.
    """
    root = resolved(root)
    if root.exists() and any(root.iterdir()):
        log(f"{root} exists; checking it (move it away to download it again)")
        return _verify(root, checksum)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", suffix=".partial",
                                     dir=root.parent) as partial:
        log(f"cloning {url} into {root} (this can take some minutes)")
        data = _clone_data(url, commit, Path(partial, "clone"))
        found = _verify(data, checksum)
        data.rename(root)
    return replace(found, root=root)


def _clone_data(url: str, commit: str, clone: Path) -> Path:
    """Clone into ``clone``, check out the data folders of ``commit`` only; returns their parent."""
    done = _git("clone", "--quiet", "--no-checkout", "--", url, str(clone))
    if done.returncode:
        raise ConnectionError(f"cannot clone {url}: {_last_line(done.stderr)}; check the network, "
                              "or give the address of another copy with --url (make data URL=...)")
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


def _verify(root: Path, checksum: str) -> Dataset:
    dataset = read_dataset("pku-reid", root)
    if dataset.checksum != checksum:
        raise ValueError(f"{root} has the known counts, but other names or content: checksum "
                         f"{dataset.checksum}, expected {checksum}; it is not the copy at "
                         f"{PKU_URL}, commit {PKU_COMMIT}")
    return dataset


def download_dataset(name: str, root: Path | None = None, url: str | None = None) -> Dataset:
    """A data set by name, or a user's own by the path of its CSV: downloaded or found, and checked.

    Args:
        root: its folder (default: ``REIDLIB_DATA/name``).
        url: another git copy of PKU-Reid's split; ValueError for another data set.

    Raises:
        FileNotFoundError: it is not there and cannot be downloaded; the message says where to ask.
        ValueError: it is incomplete, or not what it should be.
    """
    if url and name != "pku-reid":
        raise ValueError(f"--url is {url}, but {name} is not downloaded; leave --url out")
    if not (root or name.endswith(".csv") or data_root().is_dir()):
        raise FileNotFoundError(f"the data folder {data_root()} does not exist: make it, or set "
                                "REIDLIB_DATA to one that does")
    if name == "pku-reid":
        return download_pku_reid(root or default_root(name), url or PKU_URL)
    path = Path(name)
    try:
        dataset = read_dataset(str(path.resolve()) if path.is_file() else name, root)
    except FileNotFoundError as error:
        if name not in ASK:
            raise
        what, where, files = ASK[name]
        steps = HELP.format(what=what, where=where, files=files, root=root or default_root(name))
        raise FileNotFoundError(f"{error}\n\n{steps}") from error
    check_scorable(dataset.manifest)
    return dataset
