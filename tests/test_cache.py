"""Private copies of libraries: whole, checked, one a hash, and pruned."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ferrule.errors import LibraryError
from ferrule.native import cache
from ferrule.native.cache import cache_dir, private_copy, prune
from ferrule.native.image import Image, read_image

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights and locks")
MANIFEST = '{"name": "x", "version": "1", "plugins": []}'

Build = Callable[..., Path]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test."""
    monkeypatch.setenv("FERRULE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(compile_c: Build, plugin_source: Callable[[str], str]) -> Image:
    return read_image(compile_c(plugin_source(MANIFEST), "cached"))


def release(path: Path) -> None:
    """What the end of a process does: gives the copy's lock back."""
    os.close(cache._held.pop(path))


def in_another_process(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_copy_has_the_librarys_bytes_and_name(image: Image, root: Path) -> None:
    """The copy lies in CACHE/<sha256>/<own name>, holds the image's bytes, and is nobody else's to write."""
    path = private_copy(image)
    assert path == root / image.sha256 / image.path.name
    assert path.read_bytes() == image.data
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o500
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_a_copy_is_made_once(image: Image) -> None:
    """A second copy of the same library is the first one's file."""
    first = private_copy(image).stat()
    assert os.path.samestat(private_copy(image).stat(), first)


def test_the_copy_is_of_what_was_read(compile_c: Build, plugin_source: Callable[[str], str], tmp_path: Path) -> None:
    """When the file changes after it was read, the copy still holds what was read."""
    path = tmp_path / "libchanging.so"
    path.write_bytes(compile_c(plugin_source(MANIFEST), "cached").read_bytes())
    image = read_image(path)
    path.write_bytes(b"something else")
    assert private_copy(image).read_bytes() == image.data


def test_a_new_build_gets_a_copy_beside_the_old(compile_c: Build, plugin_source: Callable[[str], str]) -> None:
    """Two builds of one name have two copies."""
    one = private_copy(read_image(compile_c(plugin_source(MANIFEST), "same")))
    two = private_copy(read_image(compile_c(plugin_source(MANIFEST), "same", "-DABI_MINOR=9")))
    assert one != two
    assert one.name == two.name
    assert one.exists() and two.exists()


@pytest.mark.parametrize("damage", ["longer", "shorter", "flipped", "empty"])
def test_a_copy_that_was_changed_is_made_anew(image: Image, damage: str) -> None:
    """A copy whose bytes are not the image's is replaced before it is used."""
    path = private_copy(image)
    path.chmod(0o700)
    data = bytearray(image.data)
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    damaged = {"longer": bytes(data) + b"x", "shorter": bytes(data[:-1]), "flipped": bytes(data), "empty": b""}
    path.write_bytes(damaged[damage])
    assert private_copy(image).read_bytes() == image.data


@POSIX
def test_a_link_in_the_cache_is_not_followed(image: Image, tmp_path: Path) -> None:
    """A link in the copy's place, even to the same bytes, is replaced; what it points to is left alone."""
    path = private_copy(image)
    target = tmp_path / "target.so"
    path.rename(target)
    path.symlink_to(target)
    assert not private_copy(image).is_symlink()
    assert path.read_bytes() == target.read_bytes() == image.data
    assert not os.path.samestat(path.stat(), target.stat())


@POSIX
def test_a_link_in_place_of_the_folder_is_not_followed(image: Image, root: Path, tmp_path: Path) -> None:
    """A link where the hash's folder should be is taken away."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.mkdir(mode=0o700)
    (root / image.sha256).symlink_to(elsewhere)
    private_copy(image)
    assert not (root / image.sha256).is_symlink()
    assert list(elsewhere.iterdir()) == []


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_replaced(image: Image, kind: str) -> None:
    """A pipe or an empty folder in the copy's place neither blocks nor stays."""
    path = private_copy(image)
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    assert private_copy(image).read_bytes() == image.data


@POSIX
def test_a_folder_that_others_may_write_is_closed(image: Image, root: Path) -> None:
    """The rights of an entry are narrowed; a cache where everybody may write is refused."""
    private_copy(image)
    (root / image.sha256).chmod(0o777)
    private_copy(image)
    assert stat.S_IMODE((root / image.sha256).stat().st_mode) == 0o700
    root.chmod(0o777)
    with pytest.raises(LibraryError, match="everybody may write there"):
        private_copy(image)


def test_a_library_that_looks_beside_itself_is_not_copied(
    compile_c: Build, plugin_source: Callable[[str], str], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A library with $ORIGIN is loaded where it lies, and the log says so."""
    if sys.platform != "linux":
        pytest.skip("$ORIGIN is ELF's")
    image = read_image(compile_c(plugin_source(MANIFEST), "origin", "-Wl,-rpath,$ORIGIN/libs"))
    with caplog.at_level(logging.INFO, logger="ferrule"):
        assert private_copy(image) == image.path
    assert "loaded where it lies" in caplog.text
    assert not root.exists()


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_a_cache_that_cannot_be_written(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A cache that cannot be made is a LibraryError that says how to choose another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FERRULE_CACHE_DIR", str(tmp_path / ("file" if what == "a file" else "file/cache")))
    with pytest.raises(LibraryError, match="set FERRULE_CACHE_DIR") as caught:
        private_copy(image)
    assert caught.value.path == image.path


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FERRULE_CACHE_DIR is taken, relative too; without it the user's cache folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FERRULE_CACHE_DIR", "here")
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("FERRULE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir().is_absolute()
    if sys.platform == "linux":
        assert cache_dir() == tmp_path / "xdg" / "ferrule"


COPY_SCRIPT = """
import sys
from ferrule.native.cache import private_copy, prune
from ferrule.native.image import read_image
image = read_image(sys.argv[1])
for _ in range(30):
    path = private_copy(image)
    assert path.read_bytes() == image.data
    if len(sys.argv) > 2:
        prune(0, 0)
print(path)
"""


def test_processes_may_copy_and_prune_at_once(image: Image, root: Path) -> None:
    """Several processes that copy the same library, while others prune, each get a whole copy."""
    commands = [[sys.executable, "-c", COPY_SCRIPT, str(image.path), *prunes] for prunes in ([], ["prune"], [])]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
        assert Path(out.decode().strip()) == root / image.sha256 / image.path.name
    assert [path.name for path in (root / image.sha256).iterdir()] == [image.path.name]


# ---- pruning ---------------------------------------------------------------------------------------------------


def aged(path: Path, days: float) -> None:
    when = time.time() - days * 86400
    os.utime(path, (when, when))


@POSIX
def test_pruning_takes_what_is_old(image: Image) -> None:
    """A copy unused for longer than the limit goes, with its folder; a younger one stays."""
    path = private_copy(image)
    release(path)
    aged(path, 29)
    assert prune(max_age_days=30) == 0
    aged(path, 31)
    assert prune(max_age_days=30) == image.size
    assert not path.parent.exists()


@POSIX
def test_pruning_takes_the_longest_unused_until_the_rest_is_small(
    compile_c: Build, plugin_source: Callable[[str], str]
) -> None:
    """Over the limit of bytes the oldest use goes first."""
    paths = []
    for minor in (11, 12, 13):
        image = read_image(compile_c(plugin_source(MANIFEST), "sized", f"-DABI_MINOR={minor}"))
        paths.append(private_copy(image))
        release(paths[-1])
        aged(paths[-1], 20 - minor)
    assert prune(max_bytes=2 * image.size) == image.size
    assert [path.exists() for path in paths] == [False, True, True]


@POSIX
def test_pruning_leaves_what_is_in_use(image: Image) -> None:
    """A copy that this process, or another one, uses stays, however old."""
    path = private_copy(image)
    aged(path, 400)
    assert in_another_process("from ferrule.native.cache import prune; print(prune(0, 0))").strip() == "0"
    assert prune(0, 0) == 0
    assert path.exists()


def test_using_a_copy_makes_it_young(image: Image) -> None:
    """Each use counts as the last one."""
    path = private_copy(image)
    aged(path, 400)
    private_copy(image)
    assert time.time() - path.stat().st_mtime < 60


def test_pruning_takes_what_a_killed_process_left(image: Image) -> None:
    """A half-written copy goes once it is old; one that may still be in the making stays."""
    folder = private_copy(image).parent
    old, new = folder / ".0123456789abcdef", folder / ".fedcba9876543210"
    for path in (old, new):
        path.write_bytes(b"half")
    aged(old, 1)
    assert prune() == 4
    assert not old.exists()
    assert new.exists()


def test_pruning_touches_nothing_else(image: Image, root: Path, tmp_path: Path) -> None:
    """What is no copy in the cache's folder, and what links point to, stays."""
    private_copy(image)
    (root / "notes").mkdir()
    (root / "notes" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lib.so").write_bytes(b"mine")
    (root / ("0" * 64)).symlink_to(tmp_path / "elsewhere")
    prune(0, 0)
    assert (root / "notes" / "mine.txt").exists()
    assert (tmp_path / "elsewhere" / "lib.so").exists()


def test_pruning_without_a_cache(root: Path) -> None:
    """A cache that does not exist is as good as empty."""
    assert prune() == 0
    assert not root.exists()


@POSIX
def test_copies_are_pruned_by_themselves(
    image: Image, root: Path, compile_c: Build, plugin_source: Callable[[str], str]
) -> None:
    """Making a copy prunes, once a day at most."""
    path = private_copy(image)
    release(path)
    aged(path, 40)
    private_copy(read_image(compile_c(plugin_source(MANIFEST), "new", "-DABI_MINOR=21")))
    assert path.exists()
    aged(root / ".pruned", 2)
    private_copy(read_image(compile_c(plugin_source(MANIFEST), "new", "-DABI_MINOR=22")))
    assert not path.exists()
