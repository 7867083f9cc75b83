"""Private copies of libraries: what is loaded is what was read, however often its author builds it again.

A copy lies in ``CACHE/<sha256>/<its own name>``, so that debuggers, profilers and stack traces show the library's name.
Each process holds a shared lock on the copies that it uses, until it ends, and pruning leaves locked ones alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from ferrule.errors import LibraryError
from ferrule.native.image import Image

if sys.platform != "win32":
    import fcntl

__all__ = ["cache_dir", "private_copy", "prune"]

_log = logging.getLogger("ferrule.native.cache")

_HASH_NAME = re.compile(r"[0-9a-f]{64}\Z")
_LEFTOVER_SECONDS = 3600  # a half-written copy that is older belongs to no living process
_PRUNE_EVERY_SECONDS = 24 * 3600
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW |= getattr(os, "O_NONBLOCK", 0)  # never waits on a pipe that somebody put there

_held: dict[Path, int] = {}
"""The copies that this process uses, with the descriptors that hold their locks until it ends."""


def cache_dir() -> Path:
    """Where copies lie: ``FERRULE_CACHE_DIR``, else the user's cache folder. It need not exist."""
    given = os.environ.get("FERRULE_CACHE_DIR")
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_cache_dir("ferrule"))


def private_copy(image: Image) -> Path:
    """A copy of a library, made if there is none, whose hash was checked a moment ago.

    A library that looks beside itself for its own libraries ($ORIGIN) is loaded where it lies: then the answer is its
    own path, and the log says so.

    Args:
        image: The library as it was read; the copy is made of these bytes.

    Raises:
        LibraryError: The cache cannot be written, or is open to others.
    """
    if image.uses_origin:
        _log.info("%s looks for libraries beside itself ($ORIGIN): it is loaded where it lies, not copied", image.path)
        return image.path
    root = cache_dir()
    path = root / image.sha256 / image.path.name
    try:
        for _ in range(20):  # a prune, or a tampered copy, may come between any two steps
            _make_entry(root, path.parent)
            descriptor = _open_checked(path, image)
            if descriptor is not None:
                _hold(path, descriptor)
                return path
            with contextlib.suppress(FileNotFoundError):
                _write(path, image.data)
        raise LibraryError(image.path, f"its copy {path} changes while it is written", hint="Clear that folder")
    except OSError as error:
        raise LibraryError(
            image.path,
            f"cannot be copied into the cache {root}: {error.strerror or error}",
            hint="Make room there, or set FERRULE_CACHE_DIR to a folder that can be written",
        ) from error


def prune(max_age_days: float = 30, max_bytes: int = 1 << 30) -> int:
    """Removes copies that no process uses: those unused for long, then the longest unused until little enough is left.

    Args:
        max_age_days: Days since the last use.
        max_bytes: What the copies may take together.

    Returns:
        The bytes that were freed.
    """
    now = time.time()
    entries: list[tuple[float, int, Path]] = []
    freed = 0
    for path, info in _files(cache_dir()):
        if path.name.startswith("."):
            if now - info.st_mtime > _LEFTOVER_SECONDS:
                freed += _remove(path, info.st_size)
        else:
            entries.append((info.st_mtime, info.st_size, path))
    total = sum(size for _, size, _ in entries)
    for used, size, path in sorted(entries):
        if now - used > max_age_days * 86400 or total > max_bytes:
            removed = _remove(path, size)
            total -= removed
            freed += removed
    return freed


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What lies in the entries of the cache; nothing is followed that is a link."""
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if _HASH_NAME.match(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError), os.scandir(entry.path) as files:
                    for file in files:
                        with contextlib.suppress(OSError):
                            yield Path(file.path), file.stat(follow_symlinks=False)
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)  # succeeds if it is empty


def _remove(path: Path, size: int) -> int:
    """Removes a copy unless somebody uses it; the bytes that this freed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
    except OSError:
        descriptor = -1  # a link, or not ours to read: nobody's library
    try:
        if descriptor >= 0 and not _lock(descriptor, exclusive=True):
            return 0
        os.unlink(path)
    except OSError:  # Windows keeps a file that is loaded
        return 0
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    with contextlib.suppress(OSError):
        os.rmdir(path.parent)
    return size


def _make_entry(root: Path, entry: Path) -> None:
    """Makes the entry's folder, for nobody else to write; takes away what is there in its place.

    Raises:
        OSError: It cannot be made, or it belongs to somebody else.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(root.stat().st_mode) & 0o1002 == 0o0002 and sys.platform != "win32":
        raise PermissionError(1, "everybody may write there and replace what is loaded")
    with contextlib.suppress(FileExistsError):
        entry.mkdir(mode=0o700)
    info = entry.lstat()
    if not stat.S_ISDIR(info.st_mode):  # a link or a file that somebody put there
        entry.unlink()
        entry.mkdir(mode=0o700)
        info = entry.lstat()
    if sys.platform != "win32":
        if info.st_uid != os.geteuid():
            raise PermissionError(1, f"{entry} belongs to another user")
        if stat.S_IMODE(info.st_mode) & 0o022:
            entry.chmod(0o700)


def _open_checked(path: Path, image: Image) -> int | None:
    """A descriptor of the copy, locked, if there is one that holds the image's bytes; else None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
    except OSError:  # none there, or a link; whatever it is gets replaced
        return None
    good = False
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_size != image.size:
            return None
        _lock(descriptor, exclusive=False)
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != image.sha256:
                _log.warning("%s was changed since it was written; it is made anew", path)
                return None
        # Removed or replaced between open and lock?
        good = os.path.samestat(info, path.lstat())
        return descriptor if good else None
    except FileNotFoundError:
        return None
    finally:
        if not good:
            os.close(descriptor)


def _hold(path: Path, descriptor: int) -> None:
    """Keeps the copy's lock until the process ends, and marks it as used now."""
    with contextlib.suppress(OSError):
        os.utime(path)
    if sys.platform == "win32":  # an open file cannot be replaced there; a loaded one cannot be removed anyway
        os.close(descriptor)
        return
    before = _held.pop(path, None)
    _held[path] = descriptor
    if before is not None:
        os.close(before)


def _write(path: Path, data: bytes) -> None:
    """Puts a copy in its place at once, whole, over whatever is there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    temporary = path.parent / f".{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o500)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _prune_sometimes(path.parent.parent)


def _prune_sometimes(root: Path) -> None:
    """Prunes once a day at most, when a copy is made: that is when the cache grows."""
    mark = root / ".pruned"
    with contextlib.suppress(OSError):
        if not mark.exists() or time.time() - mark.stat().st_mtime > _PRUNE_EVERY_SECONDS:
            mark.touch(mode=0o600)
            prune()


def _lock(descriptor: int, *, exclusive: bool) -> bool:
    """Whether the lock was got. A file system without locks gives it to everybody."""
    if sys.platform == "win32":
        return True
    try:
        # A shared one waits only for a prune that is removing this very file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
