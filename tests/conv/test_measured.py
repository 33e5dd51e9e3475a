"""Taking time, by a clock that does as it is told; and remembering it, in files that may be anything."""

import os
from pathlib import Path
from types import SimpleNamespace

import pooch
import pytest

from tinytorch.conv import measured


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYTORCH_CACHE_DIR", str(tmp_path))
    return tmp_path / "measured"


class Work:
    """Takes the given seconds, call by call, and the last of them from then on; its own clock shows that."""

    def __init__(self, *seconds):
        self.left, self.now, self.calls = list(seconds), 0.0, 0

    def __call__(self):
        self.calls += 1
        self.now += self.left.pop(0) if len(self.left) > 1 else self.left[0]

    def perf_counter(self):
        return self.now


def time(work, monkeypatch):
    monkeypatch.setattr(measured, "time", SimpleNamespace(perf_counter=work.perf_counter))
    return measured.seconds(work)


def test_seconds_are_the_median_without_the_first_call(monkeypatch):
    work = Work(50.0, 1.0, 4.0, 1.0, 90.0, 2.0, 3.0)
    assert time(work, monkeypatch) == 3.0
    assert work.calls == 7  # the first, one to see how long it takes, and five rounds


def test_short_calls_are_repeated(monkeypatch):
    work = Work(2.0**-16)
    assert time(work, monkeypatch) == 2.0**-16
    repeat = round(2e-3 * 2**16)
    assert work.calls == 2 + 5 * repeat


def test_times_come_back(folder):
    assert measured.load("AVX2", 2) == {}
    measured.remember("AVX2", 2, "this", {"direct": 0.1, "fft": 2e-7})
    measured.remember("AVX2", 2, "that", {"direct": 0.3})
    assert measured.load("AVX2", 2) == {"this": {"direct": 0.1, "fft": 2e-7}, "that": {"direct": 0.3}}
    measured.remember("AVX2", 2, "this", {"im2col": 0.2})
    assert measured.load("AVX2", 2) == {"this": {"im2col": 0.2}, "that": {"direct": 0.3}}
    assert len(list(folder.iterdir())) == 1


def test_every_cpu_and_number_of_threads_has_a_file(folder, monkeypatch):
    kinds = [
        (cpu, isa, workers) for cpu in ("A/B (R) 9", "..") for isa in ("AVX2", "generic 128-bit") for workers in (1, 12)
    ]
    for k, (cpu, isa, workers) in enumerate(kinds):
        monkeypatch.setattr(measured, "cpu_name", lambda cpu=cpu: cpu)
        measured.remember(isa, workers, "this", {"direct": float(k)})
    for k, (cpu, isa, workers) in enumerate(kinds):
        monkeypatch.setattr(measured, "cpu_name", lambda cpu=cpu: cpu)
        assert measured.load(isa, workers) == {"this": {"direct": float(k)}}
    names = {path.name for path in folder.iterdir()}
    assert len(names) == len(kinds) and {"A-B-R-9-AVX2-1-threads.json", "-generic-128-bit-12-threads.json"} < names


def test_folder_is_the_users_unless_told(folder, monkeypatch):
    assert measured.folder() == folder
    for unset in (
        lambda: monkeypatch.setenv("TINYTORCH_CACHE_DIR", ""),
        lambda: monkeypatch.delenv("TINYTORCH_CACHE_DIR"),
    ):
        unset()
        assert measured.folder() == Path(pooch.os_cache("tinytorch")) / "measured"


@pytest.mark.parametrize("content", [b"", b"no JSON", b"\xff\xfe", b'{"this": {"direct"', b'{"this": 3}'])
def test_a_file_that_is_not_ours_holds_nothing_and_is_replaced(content, folder):
    measured.remember("AVX2", 2, "this", {"direct": 0.1})
    (path,) = folder.iterdir()
    path.write_bytes(content)
    assert measured.load("AVX2", 2) == {}
    measured.remember("AVX2", 2, "that", {"direct": 0.2})
    assert measured.load("AVX2", 2) == {"that": {"direct": 0.2}}


def test_a_folder_that_can_not_be_written_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYTORCH_CACHE_DIR", str(tmp_path / "file"))
    measured.remember("AVX2", 2, "this", {"direct": 0.1})
    assert measured.load("AVX2", 2) == {}


def test_a_file_is_replaced_whole_or_not_at_all(folder, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    measured.remember("AVX2", 2, "this", {"direct": 0.1})
    monkeypatch.setattr(os, "replace", full)
    measured.remember("AVX2", 2, "this", {"direct": 0.2})
    assert measured.load("AVX2", 2) == {"this": {"direct": 0.1}}
