"""The network: fetches a data set's official files into the user's cache, checks hashes, draws a bar."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

TIMEOUT_SECONDS = 30


def cache_folder(name: str) -> Path:
    """The folder that the files of data set `name` are downloaded to."""
    return Path(pooch.os_cache("tinytorch")) / name


def fetch(name: str, sha256: Mapping[str, str], mirrors: Sequence[str]) -> None:
    """Bring every file of `sha256` into the cache; one that is there with the right hash is left alone.

    Parameters
    ----------
    name : str
        The data set's name.
    sha256 : mapping of str to str
        File name to SHA-256 in hex.
    mirrors : sequence of str
        Base URLs, tried in order.

    Raises
    ------
    OSError
        If no mirror gave the file with the right hash.
    """
    for file, digest in sha256.items():
        failures = []
        for mirror in mirrors:
            try:
                _retrieve(mirror + file, file, digest, cache_folder(name))
                break
            except (OSError, ValueError) as error:  # no connection, refused, disk full; wrong hash
                reason = textwrap.shorten(str(error), 100)
                failures.append(f"{mirror}: {type(error).__name__}, {reason}")
        else:
            raise OSError(
                f"could not download {file} for {name} ({'; '.join(failures)}). Without a network, put "
                f"{', '.join(sha256)} in a folder and name it with data_dir (on the command line --data-dir)"
            )


def _retrieve(url: str, file: str, digest: str, folder: Path) -> None:
    bar = _Bar(file)
    downloader = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_SECONDS)
    try:
        pooch.retrieve(url, known_hash=f"sha256:{digest}", fname=file, path=folder, downloader=downloader)
    finally:
        bar.close()


class _Bar:
    """The four things pooch asks of a progress bar, drawn by rich on standard error if that is a terminal."""

    def __init__(self, label: str):
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(label, total=None)

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size)
        self._progress.start()

    def update(self, size: int) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop()
