"""Reads library files: platform, ABI, manifest and symbols, without running anything of them.

A plugin's library is read once, and what is learnt of it, its hash included, is learnt from those bytes: what is
loaded later is what was checked here. ELF, PE and Mach-O are read by their own headers, strictly: whatever points
past the end of the file, or says two things at once, is one :class:`~ferrule.errors.LibraryError` that names it.

The three formats differ only in where things lie, so each has one small reader that fills in the same
:class:`_Contents`, and everything after that is common.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ferrule.errors import LibraryError

__all__ = [
    "CREATE_SYMBOL",
    "DESTROY_SYMBOL",
    "HOST_ABI",
    "MANIFEST_SYMBOL",
    "MAX_LIBRARY_BYTES",
    "MAX_MANIFEST_BYTES",
    "Image",
    "abi_problem",
    "host_platform",
    "read_image",
]

HOST_ABI = (0, 1)
"""FERRULE_ABI_MAJOR and FERRULE_ABI_MINOR of ``ferrule.h``; tests/test_image.py holds the two together."""

MANIFEST_SYMBOL = "ferrule_plugin_manifest"
CREATE_SYMBOL = "ferrule_plugin_create"
DESTROY_SYMBOL = "ferrule_plugin_destroy"

MAX_LIBRARY_BYTES = 1 << 30
MAX_MANIFEST_BYTES = 16 << 20

_MAX_SYMBOLS = 1_000_000
_MAX_NAME_BYTES = 16 << 10  # C++ names are long; a table without NULs is longer
_MAX_NAMES_BYTES = 64 << 20  # all together: entries may share their names' bytes, so the file's size is no bound
_MAGIC = b"ferrule\0"
_HEADER = struct.Struct("8sIIQ")  # struct ferrule_manifest; its byte order is set for each file

_REBUILD = "Build it again for this machine"
_NO_SDK = "FERRULE_MANIFEST of ferrule_sdk.h, or export_plugins! of the Rust crate, puts a plugin's manifest there"


@dataclass(frozen=True, eq=False, repr=False)
class Image:
    """A library file as it was read: nothing of it has run, and it need not be for this machine.

    Attributes:
        path: The file, absolute, as it was given otherwise (links are not resolved).
        format: "elf", "pe" or "macho".
        platform: System and processor, such as "linux-x86_64"; compare with :func:`host_platform`.
        data: The whole file.
        abi: The ABI that the library was built for, (major, minor).
        manifest_json: The JSON of its manifest, not yet parsed.
        exports: The names of the functions and data that it exports, as C spells them.
        needed: The names of the libraries that it asks the system for.
        uses_origin: Whether it finds libraries of its own beside itself, and so has to be loaded where it lies.
    """

    path: Path
    format: Literal["elf", "pe", "macho"]
    platform: str
    data: bytes
    abi: tuple[int, int]
    manifest_json: bytes
    exports: frozenset[str]
    needed: tuple[str, ...]
    uses_origin: bool

    @cached_property
    def sha256(self) -> str:
        """The hash of :attr:`data`, 64 hexadecimal digits; computed at first use."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return len(self.data)

    def require_loadable(self) -> None:
        """Checks that the library is for this machine and this ABI.

        Raises:
            LibraryError: It is for another platform or another ABI; the message names both.
        """
        host = host_platform()
        if self.platform != host:
            raise LibraryError(self.path, f"is built for {self.platform}, and this host is {host}", hint=_REBUILD)
        problem = abi_problem(self.abi)
        if problem is not None:
            raise LibraryError(self.path, problem[0], hint=problem[1])

    def require_symbols(self, names: Iterable[str]) -> None:
        """Checks that the library exports all of `names`.

        Raises:
            LibraryError: It lacks some; the message names them.
        """
        missing = [name for name in dict.fromkeys(names) if name not in self.exports]
        if missing:
            plural = "symbols" if len(missing) > 1 else "symbol"
            raise LibraryError(
                self.path,
                f"does not export the {plural} {', '.join(missing)}",
                hint="A plugin's library exports what ferrule.h declares at its end, with FERRULE_EXPORT",
            )

    def __repr__(self) -> str:
        return f"Image({str(self.path)!r}, {self.platform}, ABI {self.abi[0]}.{self.abi[1]}, {self.size} bytes)"


def read_image(path: Path | str) -> Image:
    """Reads a library and its manifest, of any platform and any ABI, and runs nothing of it.

    Args:
        path: The library. A link is followed; anything but a regular file of at most 1 GiB is refused.

    Raises:
        LibraryError: The file cannot be read, is no shared library, is damaged, or holds no manifest.
    """
    try:
        path = Path(os.path.abspath(path))
        data = _read_file(path)
    except ValueError as error:  # a NUL in the name
        raise LibraryError(path, f"is not a file name: {error}") from None
    try:
        contents = _read_contents(data)
        abi, manifest_json = _read_manifest(contents)
    except _Fault as fault:
        raise LibraryError(path, fault.problem, hint=fault.hint) from None
    uses_origin = contents.uses_origin or (
        # Windows looks beside a DLL for what it needs, without being asked.
        contents.format == "pe" and any(os.path.isfile(path.parent / name) for name in contents.needed)
    )
    return Image(
        path=path,
        format=contents.format,
        platform=contents.platform,
        data=data,
        abi=abi,
        manifest_json=manifest_json,
        exports=frozenset(contents.exports),
        needed=tuple(contents.needed),
        uses_origin=uses_origin,
    )


def host_platform() -> str:
    """System and processor of this Python, such as "linux-x86_64", in the words of :attr:`Image.platform`.

    >>> host_platform().count("-")
    1
    """
    system = {"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64", "i386": "x86", "i586": "x86", "i686": "x86"}.get(machine, machine)
    if struct.calcsize("P") == 4:  # a 32-bit Python on a 64-bit machine
        machine = {"x86_64": "x86", "aarch64": "arm"}.get(machine, machine)
    elif machine.startswith("armv"):
        machine = "arm"
    return f"{system}-{machine}"


def abi_problem(abi: tuple[int, int], host: tuple[int, int] = HOST_ABI) -> tuple[str, str] | None:
    """Why a host of ABI `host` does not take a library of ABI `abi`, and what to do; None if it does.

    Version 0 promises nothing, so it must be equal. From 1.0 on the major must be equal, and the library's minor, the
    lowest that it needs, at most the host's.
    """
    if abi[0] == host[0] and (abi[1] == host[1] or (abi[0] > 0 and abi[1] < host[1])):
        return None
    problem = f"is built for ABI {abi[0]}.{abi[1]}, and this host takes ABI {host[0]}.{host[1]}"
    if abi > host:
        return problem, "Use a newer ferrule, or build the plugin with the SDK of this one"
    return problem, "Build the plugin again with the SDK of this ferrule"


# ---- the file --------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> bytes:
    """All bytes of a regular file whose first ones may be a library's; never waits on a pipe or a device."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode):  # before open, which may act on a device
            raise LibraryError(path, f"is {_file_type(mode)}, not a library file")
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb", buffering=0) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):  # swapped since
                raise LibraryError(path, f"is {_file_type(info.st_mode)}, not a library file")
            if info.st_size > MAX_LIBRARY_BYTES:
                limit = MAX_LIBRARY_BYTES >> 30
                raise LibraryError(path, f"has {info.st_size:,} bytes; a library may have {limit} GiB at most")
            head = file.read(512)
            problem = _not_a_library(head)
            if problem is not None:
                raise LibraryError(path, problem[0], hint=problem[1])
            pieces, size = [head], len(head)
            while size <= MAX_LIBRARY_BYTES and (piece := file.read(MAX_LIBRARY_BYTES + 1 - size)):
                pieces.append(piece)
                size += len(piece)
    except OSError as error:
        raise LibraryError(path, *_os_problem(error)) from None
    if size != info.st_size:
        raise LibraryError(
            path, f"changed while it was read: {info.st_size:,} bytes at first, {size:,} read", hint="Try again"
        )
    return b"".join(pieces)


def _os_problem(error: OSError) -> tuple[str]:
    """One sentence on why a file could not be opened."""
    words = {
        errno.ENOENT: "does not exist",
        errno.ENOTDIR: "does not exist: a part of its path is a file, not a folder",
        errno.EACCES: "cannot be read: permission denied",
        errno.EPERM: "cannot be read: permission denied",
        errno.ELOOP: "is a loop of links",
        errno.ENAMETOOLONG: "is not a file: its name is too long",
    }
    return (words.get(error.errno or 0, f"cannot be read: {error.strerror or error}"),)


def _file_type(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return "a device"
    return "no regular file"


_OTHER_FILES = (
    (b"!<arch>\n", "a static library", "Link a shared one: crate-type cdylib in Rust, -shared in C"),
    (b"!<thin>\n", "a static library", "Link a shared one: crate-type cdylib in Rust, -shared in C"),
    (b"/* GNU ld script", "a linker's script", None),
    (b"version https://git-lfs", "a pointer of git LFS, not the file itself", "Run git lfs pull"),
    (b"#!", "a script", None),
    (b"\0asm", "WebAssembly", None),
    (b"BC\xc0\xde", "LLVM bitcode", None),
    (b"PK\x03\x04", "a zip archive or a wheel", "Unpack it, or install it with pip"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it"),
    (b"\xfd7zXZ\0", "an xz archive", "Unpack it"),
)


def _not_a_library(head: bytes) -> tuple[str, str | None] | None:
    """What a file seems to be whose first bytes are no library's, and what to do; None for a library."""
    if head.startswith((b"\x7fELF", b"MZ", *_MACHO_MAGICS)):
        return None
    if not head:
        return "is empty", None
    for magic, name, hint in _OTHER_FILES:
        if head.startswith(magic):
            return f"is not a library: it seems to be {name}", hint
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is not a library: it seems to be a web page or XML", None
    text = head.decode("utf-8", "ignore") if b"\0" not in head else ""
    if len(text.encode()) > len(head) - 4 and all(sign.isprintable() or sign.isspace() for sign in text):
        line = text.strip().splitlines()[0].strip()[:40] if text.strip() else ""
        return f"is not a library: it seems to be text, beginning with {line!r}", None
    if not any(head):
        return "is not a library: it begins with zeros", None
    return f"is not a library: it begins with the bytes {head[:8].hex(' ')}, which are none of ELF, PE and Mach-O", None


# ---- what the three formats have in common ------------------------------------------------------------------------


class _Fault(Exception):
    """What is wrong with the bytes; read_image adds the path."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


@dataclass
class _Contents:
    """What a format's reader found."""

    format: Literal["elf", "pe", "macho"]
    platform: str
    order: Literal["<", ">"]
    sections: list[bytes] = field(default_factory=list)  # those that hold a manifest
    exports: set[str] = field(default_factory=set)
    needed: list[str] = field(default_factory=list)
    uses_origin: bool = False
    section_name: str = ".ferrule"


class _Bytes:
    """A file's bytes, read by offset; whatever lies past the end is a fault that says what was looked for."""

    def __init__(self, data: bytes, order: Literal["<", ">"] = "<") -> None:
        self.data = data
        self.order = order
        self.names_size = 0

    def take(self, offset: int, size: int, what: str) -> bytes:
        self.check(offset, size, what)
        return self.data[offset : offset + size]

    def check(self, offset: int, size: int, what: str) -> None:
        if offset + size > len(self.data):
            raise _Fault(
                f"is cut short or damaged: its {what} ends at byte {offset + size:,}, the file at {len(self.data):,}",
                "Copy or build it again",
            )

    def unpack(self, form: str, offset: int, what: str) -> tuple[Any, ...]:
        shape = struct.Struct(self.order + form)
        self.check(offset, shape.size, what)
        return shape.unpack_from(self.data, offset)

    def rows(self, form: str, offset: int, count: int, what: str) -> Iterator[tuple[Any, ...]]:
        """`count` records that lie one behind the other."""
        if count > _MAX_SYMBOLS:
            raise _Fault(f"is damaged: its {what} claims {count:,} entries; {_MAX_SYMBOLS:,} is the most")
        shape = struct.Struct(self.order + form)
        return shape.iter_unpack(self.take(offset, shape.size * count, what))

    def text(self, offset: int, what: str) -> str:
        """The text at `offset`, up to its NUL."""
        end = self.data.find(b"\0", offset, offset + _MAX_NAME_BYTES)
        if end < 0:
            raise _Fault(f"is damaged: its {what} at byte {offset:,} have no end")
        self.count_name(end - offset)
        return self.data[offset:end].decode("utf-8", "replace")

    def count_name(self, size: int) -> None:
        self.names_size += size
        if self.names_size > _MAX_NAMES_BYTES:
            raise _Fault(f"is damaged: its names take more than {_MAX_NAMES_BYTES:,} bytes")


def _read_contents(data: bytes) -> _Contents:
    if data.startswith(b"\x7fELF"):
        return _read_elf(data)
    if data.startswith(b"MZ"):
        return _read_pe(_Bytes(data))
    return _read_macho(data)


def _read_manifest(contents: _Contents) -> tuple[tuple[int, int], bytes]:
    """ABI and JSON out of the manifest's section, which must hold one manifest and nothing else."""
    where = f"section {contents.section_name}"
    if not contents.sections:
        raise _Fault(f"holds no plugin: it has no {where}", _NO_SDK)
    if len(contents.sections) > 1:
        raise _Fault(f"holds {len(contents.sections)} manifests; one is allowed", "Link one plugin library at a time")
    section = contents.sections[0]
    if len(section) < _HEADER.size:
        raise _Fault(f"has a damaged manifest: {where} has {len(section)} bytes, its header alone takes {_HEADER.size}")
    magic, major, minor, length = struct.unpack_from(contents.order + "8sIIQ", section)
    if magic != _MAGIC:
        raise _Fault(f"has a damaged manifest: {where} begins with {magic!r}, expected {_MAGIC!r}")
    if length > MAX_MANIFEST_BYTES:
        raise _Fault(f"claims a manifest of {length:,} bytes; {MAX_MANIFEST_BYTES:,} is the most")
    room = len(section) - _HEADER.size
    if length > room:
        raise _Fault(f"has a damaged manifest: it claims {length:,} bytes, and {where} has room for {room:,}")
    end = _HEADER.size + length
    rest = section[end:].lstrip(b"\0")
    if rest:
        if rest.startswith(_MAGIC):
            raise _Fault("holds two manifests; one is allowed", "Link one plugin library at a time")
        at = len(section) - len(rest)
        raise _Fault(f"has a damaged manifest: {where} holds bytes other than NUL behind it, at byte {at}")
    return (major, minor), section[_HEADER.size : end]


# ---- ELF -------------------------------------------------------------------------------------------------------

_ELF_TYPES = {1: "an object file", 2: "an executable", 4: "a core dump"}
_ELF_MACHINES = {2: "sparc", 3: "x86", 8: "mips", 20: "ppc", 22: "s390x", 40: "arm", 43: "sparc64", 62: "x86_64"}
_ELF_MACHINES |= {183: "aarch64", 243: "riscv", 258: "loongarch64"}
_ELF_SYSTEMS = {0: "linux", 2: "netbsd", 3: "linux", 6: "solaris", 9: "freebsd", 12: "openbsd"}
_PT_LOAD, _SHT_DYNAMIC, _SHT_NOBITS, _SHT_DYNSYM = 1, 6, 8, 11
_DT_NEEDED, _DT_FLAGS_1, _DF_1_PIE = 1, 0x6FFFFFFB, 0x08000000
_DT_PATHS = {_DT_NEEDED, 15, 29, 0x7FFFFFFD, 0x7FFFFFFF}  # RPATH, RUNPATH, AUXILIARY, FILTER: all may say $ORIGIN


def _elf_platform(machine: int, system: int, wide: bool, order: str) -> str:
    arch = {21: "ppc64le" if order == "<" else "ppc64"}.get(machine, _ELF_MACHINES.get(machine, f"machine{machine}"))
    if arch == "riscv":
        arch += "64" if wide else "32"
    elif arch == "x86_64" and not wide:
        arch = "x32"
    return f"{_ELF_SYSTEMS.get(system, f'system{system}')}-{arch}"


def _read_elf(data: bytes) -> _Contents:
    if len(data) < 20 or data[4] not in (1, 2) or data[5] not in (1, 2):
        raise _Fault("is cut short or damaged: its ELF header makes no sense", "Copy or build it again")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    file = _Bytes(data, order)  # type: ignore[arg-type]
    kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = file.unpack(
        "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH", 16, "ELF header"
    )
    contents = _Contents("elf", _elf_platform(machine, data[7], wide, order), order)  # type: ignore[arg-type]
    if kind != 3:  # ET_DYN
        raise _Fault(f"is {_ELF_TYPES.get(kind, f'an ELF file of type {kind}')}, not a shared library")

    if phentsize != (56 if wide else 32):
        raise _Fault(f"is damaged: its program headers have {phentsize} bytes each")
    for header in file.rows("IIQQQQQQ" if wide else "IIIIIIII", phoff, phnum, "program headers"):
        if header[0] == _PT_LOAD:
            offset, size = (header[2], header[5]) if wide else (header[1], header[4])
            file.check(offset, size, "loaded part")

    if shoff == 0:
        raise _Fault(
            "is stripped of its section headers, and its manifest went with them",
            "Strip it with `strip`, which keeps them, not with sstrip or llvm-strip --strip-sections",
        )
    if shentsize != (64 if wide else 40):
        raise _Fault(f"is damaged: its section headers have {shentsize} bytes each")
    form = "IIQQQQIIQQ" if wide else "IIIIIIIIII"
    first = file.unpack(form, shoff, "section table")
    shnum, shstrndx = shnum or first[5], first[6] if shstrndx == 0xFFFF else shstrndx
    sections = list(file.rows(form, shoff, shnum, "section table"))
    if shstrndx >= len(sections):
        raise _Fault(f"is damaged: the names of its sections are in section {shstrndx} of {len(sections)}")
    names = sections[shstrndx][4]

    for name, type_, _, _, offset, size, link, _, _, _ in sections:
        if type_ == _SHT_NOBITS:
            continue
        if file.text(names + name, "section names") == contents.section_name:
            contents.sections.append(file.take(offset, size, f"section {contents.section_name}"))
        if type_ in (_SHT_DYNSYM, _SHT_DYNAMIC):
            if link >= len(sections):
                raise _Fault(f"is damaged: the names of its symbols are in section {link} of {len(sections)}")
            strings = sections[link][4]
            if type_ == _SHT_DYNSYM:
                _read_elf_symbols(file, contents, offset, size, strings, wide)
            else:
                _read_elf_dynamic(file, contents, offset, size, strings, wide)
    return contents


def _read_elf_symbols(file: _Bytes, contents: _Contents, offset: int, size: int, strings: int, wide: bool) -> None:
    form, width = ("IBBHQQ", 24) if wide else ("IIIBBH", 16)
    for row in file.rows(form, offset, size // width, "table of symbols"):
        name, info, other, section = (row[0], row[1], row[2], row[3]) if wide else (row[0], row[3], row[4], row[5])
        # Defined; global, weak or unique; visible from outside.
        if section != 0 and info >> 4 in (1, 2, 10) and other & 3 in (0, 3):
            contents.exports.add(file.text(strings + name, "symbol names"))


def _read_elf_dynamic(file: _Bytes, contents: _Contents, offset: int, size: int, strings: int, wide: bool) -> None:
    form, width = ("QQ", 16) if wide else ("II", 8)
    for tag, value in file.rows(form, offset, size // width, "dynamic section"):
        if tag == 0:
            break
        if tag in _DT_PATHS:
            text = file.text(strings + value, "dynamic strings")
            contents.uses_origin = contents.uses_origin or "$ORIGIN" in text or "${ORIGIN}" in text
            if tag == _DT_NEEDED:
                contents.needed.append(text)
        elif tag == _DT_FLAGS_1 and value & _DF_1_PIE:
            raise _Fault("is an executable, not a shared library")


# ---- PE --------------------------------------------------------------------------------------------------------

_PE_MACHINES = {0x14C: "x86", 0x1C4: "arm", 0x8664: "x86_64", 0xAA64: "aarch64", 0xA641: "aarch64"}


def _read_pe(file: _Bytes) -> _Contents:
    (start,) = file.unpack("I", 0x3C, "DOS header")
    if file.take(start, 4, "PE header") != b"PE\0\0":
        raise _Fault("is a DOS program or damaged: no PE header where its first bytes say")
    machine, count, _, _, _, optional_size, flags = file.unpack("HHIIIHH", start + 4, "PE header")
    contents = _Contents("pe", f"windows-{_PE_MACHINES.get(machine, f'machine{machine:#x}')}", "<")
    if not flags & 0x2000:  # IMAGE_FILE_DLL
        raise _Fault("is an executable, not a shared library (DLL)")
    optional = start + 24
    (magic,) = file.unpack("H", optional, "optional header")
    if magic not in (0x10B, 0x20B):
        raise _Fault(f"is damaged: its optional header begins with {magic:#x}")
    directories = optional + (112 if magic == 0x20B else 96)
    (directory_count,) = file.unpack("I", directories - 4, "optional header")

    sections = list(file.rows("8sIIIIIIHHI", optional + optional_size, count, "section table"))
    for name, virtual, _, raw, offset, *_ in sections:
        file.check(offset, raw, f"section {name.rstrip(bytes(1)).decode('ascii', 'replace')}")
        if name == b".ferrule":
            contents.sections.append(file.take(offset, min(raw, virtual) if virtual else raw, "section .ferrule"))

    def place(address: int, what: str) -> int:
        """Where in the file the byte lies that is loaded at `address`."""
        for _, virtual, begin, raw, offset, *_ in sections:
            if begin <= address < begin + max(virtual, raw):
                return int(offset + address - begin)
        raise _Fault(f"is damaged: its {what} lies at {address:#x}, in none of its sections")

    def directory(index: int) -> int:
        """The address of one of the data directories; 0 if it has none."""
        if index >= directory_count:
            return 0
        return int(file.unpack("II", directories + 8 * index, "data directories")[0])

    if address := directory(0):
        table = file.unpack("IIHHIIIIIII", place(address, "export table"), "export table")
        name_count, names = table[7], table[9]
        if name_count:
            for (name,) in file.rows("I", place(names, "export names"), name_count, "export names"):
                contents.exports.add(file.text(place(name, "export names"), "export names"))
    if address := directory(1):
        at = place(address, "import table")
        while (name := file.unpack("IIIII", at, "import table")[3]) and len(contents.needed) < 10_000:
            contents.needed.append(file.text(place(name, "import names"), "import names"))
            at += 20
    return contents


# ---- Mach-O ----------------------------------------------------------------------------------------------------

_FAT_MAGICS = (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")  # code for several processors in one file
_MACHO_MAGICS = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xfe\xed\xfa\xce", *_FAT_MAGICS)
_MACHO_MACHINES = {7: "x86", 0x01000007: "x86_64", 12: "arm", 0x0100000C: "aarch64", 18: "ppc", 0x01000012: "ppc64"}
_MACHO_TYPES = {1: "an object file", 2: "an executable", 4: "a core dump", 10: "a file of debug symbols"}
_MACHO_SYSTEMS = {1: "macos", 2: "ios", 3: "tvos", 4: "watchos", 6: "maccatalyst"}


def _read_macho(data: bytes) -> _Contents:
    """One processor's part of the file: this host's where there is a choice, else the first."""
    if data[:4] not in _FAT_MAGICS:
        return _read_macho_slice(data)
    file = _Bytes(data, ">")
    (count,) = file.unpack("I", 4, "Mach-O header")
    if count > 40:  # a Java class begins with the same four bytes, and its version stands here
        raise _Fault("is not a library: it seems to be a Java class")
    if count == 0:
        raise _Fault("is damaged: it holds code for no processor")
    wide = data[3] == 0xBF
    parts = list(file.rows("IIQQII" if wide else "IIIII", 8, count, "table of processors"))
    host = host_platform().rpartition("-")[2]
    part = next((part for part in parts if _MACHO_MACHINES.get(part[0]) == host), parts[0])
    return _read_macho_slice(file.take(part[2], part[3], "part for one processor"))


def _read_macho_slice(data: bytes) -> _Contents:
    order: Literal["<", ">"] = "<" if data[:1] in (b"\xcf", b"\xce") else ">"
    file = _Bytes(data, order)
    magic, machine, _, kind, command_count, commands_size, _ = file.unpack("IIIIIII", 0, "Mach-O header")
    if magic not in (0xFEEDFACE, 0xFEEDFACF):
        raise _Fault("is damaged: its part for this processor is no Mach-O file")
    wide = magic == 0xFEEDFACF
    arch = _MACHO_MACHINES.get(machine, f"machine{machine}")
    contents = _Contents("macho", f"macos-{arch}", order, section_name="__DATA,__ferrule")
    if kind not in (6, 8):  # MH_DYLIB, MH_BUNDLE
        raise _Fault(f"is {_MACHO_TYPES.get(kind, f'a Mach-O file of type {kind}')}, not a shared library")

    at = 32 if wide else 28
    end = at + commands_size
    file.check(at, commands_size, "load commands")
    paths: list[str] = []
    for _ in range(command_count):
        command, size = file.unpack("II", at, "load commands")
        if size < 8 or at + size > end:
            raise _Fault("is damaged: a load command ends outside their table")
        if command == (0x19 if wide else 0x1):  # LC_SEGMENT_64, LC_SEGMENT
            _read_macho_segment(file, contents, at, wide)
        elif command == 0x2:  # LC_SYMTAB
            symbols, count, strings, _ = file.unpack("IIII", at + 8, "load commands")
            for name, type_, *_ in file.rows("IBBHQ" if wide else "IBBHI", symbols, count, "table of symbols"):
                if type_ & 0x01 and not type_ & 0xF0 and type_ & 0x0E:  # external, not private, not debug, defined
                    contents.exports.add(file.text(strings + name, "symbol names").removeprefix("_"))
        elif command in (0x22, 0x80000022):  # LC_DYLD_INFO, LC_DYLD_INFO_ONLY
            _read_macho_trie(file, contents, *file.unpack("II", at + 40, "load commands"))
        elif command == 0x80000033:  # LC_DYLD_EXPORTS_TRIE
            _read_macho_trie(file, contents, *file.unpack("II", at + 8, "load commands"))
        elif command in (0xC, 0x80000018, 0x8000001F):  # LC_LOAD_DYLIB, …_WEAK_DYLIB, LC_REEXPORT_DYLIB
            contents.needed.append(file.text(at + file.unpack("I", at + 8, "load commands")[0], "library names"))
            paths.append(contents.needed[-1])
        elif command == 0x8000001C:  # LC_RPATH
            paths.append(file.text(at + file.unpack("I", at + 8, "load commands")[0], "search paths"))
        elif command == 0x32:  # LC_BUILD_VERSION
            (system,) = file.unpack("I", at + 8, "load commands")
            contents.platform = f"{_MACHO_SYSTEMS.get(system, f'apple{system}')}-{arch}"
        at += size
    contents.uses_origin = any(path.startswith("@loader_path") for path in paths)
    return contents


def _read_macho_segment(file: _Bytes, contents: _Contents, at: int, wide: bool) -> None:
    if wide:
        offset, size, _, _, count, _ = file.unpack("QQIIII", at + 40, "load commands")
    else:
        offset, size, _, _, count, _ = file.unpack("IIIIII", at + 32, "load commands")
    file.check(offset, size, "loaded part")
    form = "16s16sQQI28x" if wide else "16s16sIII24x"
    for name, segment, _, size, offset in file.rows(form, at + (72 if wide else 56), count, "section table"):
        if name.rstrip(b"\0") == b"__ferrule" and segment.rstrip(b"\0") == b"__DATA":
            contents.sections.append(file.take(offset, size, f"section {contents.section_name}"))


def _read_macho_trie(file: _Bytes, contents: _Contents, offset: int, size: int) -> None:
    """The exported names, which lie as a tree whose edges are pieces of names."""
    trie = file.take(offset, size, "table of exports")

    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while at < len(trie) and shift < 64:
            value |= (trie[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if trie[at - 1] < 0x80:
                return value, at
        raise _Fault("is damaged: its table of exports holds a number without an end")

    seen: set[int] = set()
    waiting = [(0, b"")] if size else []
    while waiting:
        at, name = waiting.pop()
        if at in seen or at >= len(trie) or len(name) > _MAX_NAME_BYTES:
            raise _Fault("is damaged: its table of exports is no tree")
        seen.add(at)
        terminal, at = number(at)
        if terminal:
            contents.exports.add(name.decode("utf-8", "replace").removeprefix("_"))
        at += terminal
        count = trie[at] if at < len(trie) else 0
        at += 1
        for _ in range(count):
            end = trie.find(b"\0", at)
            if end < 0:
                raise _Fault("is damaged: its table of exports holds a name without an end")
            child, after = number(end + 1)
            waiting.append((child, name + trie[at:end]))
            file.count_name(len(waiting[-1][1]))
            at = after
