"""What is said of a library file, before anything of it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferrule.errors import LibraryError
from ferrule.native.image import HOST_ABI, Image, abi_problem, host_platform, read_image

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = json.dumps(
    {
        "name": "probe",
        "version": "0.1.0",
        "description": "größer als ASCII",
        "plugins": [{"name": "probe", "kind": "function", "methods": [{"name": "process", "mode": "unary"}]}],
    },
    ensure_ascii=False,
)
ELF_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="takes an ELF file apart")

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def build(compile_c: Callable[..., Path], plugin_source: Callable[[str], str]) -> Build:
    """``build(*flags)``: a library with MANIFEST, changed by flags."""
    return lambda *flags: compile_c(plugin_source(MANIFEST), "probe", *flags)


@pytest.fixture(scope="session")
def good(build: Build) -> bytes:
    return build().read_bytes()


@pytest.fixture
def problem(tmp_path: Path) -> Callable[[bytes | Path], str]:
    """What is wrong with a file, or with a file of these bytes; said in well under a second of processor time."""

    def problem(what: bytes | Path) -> str:
        path = what
        if isinstance(what, bytes):
            path = tmp_path / "libbroken.so"
            path.write_bytes(what)
        assert isinstance(path, Path)
        begin = time.thread_time()
        with pytest.raises(LibraryError) as caught:
            read_image(path)
        assert time.thread_time() - begin < 0.5
        assert caught.value.path == path.absolute()
        assert "\n" not in str(caught.value)
        return caught.value.problem

    return problem


# ---- good files ------------------------------------------------------------------------------------------------


def test_reads_a_library_of_this_machine(build: Build) -> None:
    """A library's platform, ABI, manifest, symbols, size and hash are read from the file."""
    path = build()
    image = read_image(path)
    assert image.path == path
    assert image.platform == host_platform()
    assert image.abi == HOST_ABI
    assert image.manifest_json == MANIFEST.encode()
    assert {"ferrule_plugin_manifest", "ferrule_plugin_create", "ferrule_plugin_destroy"} <= image.exports
    assert image.size == path.stat().st_size
    assert len(image.sha256) == 64
    assert not image.uses_origin
    image.require_loadable()
    image.require_symbols(["ferrule_plugin_create", "ferrule_plugin_destroy"])


def test_the_hosts_abi_is_the_headers() -> None:
    """HOST_ABI is what ferrule.h says."""
    header = (ROOT / "native_sdk" / "include" / "ferrule.h").read_text(encoding="utf-8")
    numbers = {name: int(value) for name, value in re.findall(r"#define FERRULE_ABI_(\w+) (\d+)", header)}
    assert (numbers["MAJOR"], numbers["MINOR"]) == HOST_ABI


def test_a_link_is_followed_and_keeps_its_name(build: Build, tmp_path: Path) -> None:
    """A link to a library is read, under the link's own path."""
    link = tmp_path / "libother.so"
    link.symlink_to(build())
    assert read_image(link).path == link


def test_a_relative_path_becomes_absolute(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is given relative is absolute in the image."""
    path = build()
    monkeypatch.chdir(path.parent)
    assert read_image(path.name).path == path


@ELF_ONLY
@pytest.mark.parametrize(
    "flag", ["-Wl,-rpath,$ORIGIN/libs", "-Wl,-rpath,${ORIGIN}", "-Wl,-rpath,$ORIGIN,--disable-new-dtags"]
)
def test_a_library_that_looks_beside_itself_is_told(build: Build, flag: str) -> None:
    """RUNPATH and RPATH with $ORIGIN are seen."""
    assert read_image(build(flag)).uses_origin


@ELF_ONLY
def test_what_a_library_needs_is_told(build: Build) -> None:
    """The libraries that a library asks for are listed, in order."""
    assert "libm.so.6" in read_image(build("-Wl,--no-as-needed", "-lm")).needed


@ELF_ONLY
@pytest.mark.parametrize("options", [["--strip-all"], ["--strip-unneeded"], ["--strip-debug"]])
def test_strip_leaves_the_manifest(build: Build, tmp_path: Path, options: list[str]) -> None:
    """`strip` takes neither the manifest nor the exports."""
    stripped = tmp_path / "libstripped.so"
    subprocess.run(["strip", *options, "-o", str(stripped), str(build("-g"))], check=True)
    image = read_image(stripped)
    assert image.manifest_json == MANIFEST.encode()
    image.require_symbols(["ferrule_plugin_create"])


@ELF_ONLY
def test_hidden_and_missing_symbols_are_no_exports(compile_c: Build, plugin_source: Callable[[str], str]) -> None:
    """A function that is hidden, or only used, is not among the exports."""
    more = """
        int puts(const char *);
        __attribute__((visibility("hidden"))) int hidden_one(void) { return puts("x"); }
        int shown_one(void) { return hidden_one(); }
    """
    exports = read_image(compile_c(plugin_source(MANIFEST) + more, "probe")).exports
    assert "shown_one" in exports
    assert not {"hidden_one", "puts", "__cxa_finalize"} & exports


@ELF_ONLY
def test_agrees_with_another_reader_on_the_systems_libraries() -> None:
    """Exports and needed libraries are those that pyelftools sees, on every shared library that Python has loaded."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    paths = sorted({line.split()[-1] for line in maps.splitlines() if ".so" in line.split()[-1]})
    from ferrule.native import image as module

    compared = 0
    for path in paths:
        data = Path(path).read_bytes()
        if not data.startswith(b"\x7fELF") or len(data) > 8 << 20:
            continue
        contents = module._read_contents(data)
        with open(path, "rb") as file:
            elf = elffile.ELFFile(file)
            symbols = elf.get_section_by_name(".dynsym")
            dynamic = elf.get_section_by_name(".dynamic")
            exports = {
                symbol.name
                for symbol in symbols.iter_symbols()
                if symbol["st_shndx"] != "SHN_UNDEF"
                and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK", "STB_LOOS")
                and symbol["st_other"]["visibility"] in ("STV_DEFAULT", "STV_PROTECTED")
            }
            needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
        assert contents.exports == exports, path
        assert contents.needed == needed, path
        compared += 1
    assert compared > 3


# ---- what is no library -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello world\n", "is not a library: it seems to be text, beginning with 'hello world'"),
        ("größe".encode(), "is not a library: it seems to be text, beginning with 'größe'"),
        (b" \n\n", "is not a library: it seems to be text, beginning with ''"),
        (b"#!/bin/sh\nexit 1\n", "is not a library: it seems to be a script"),
        (b"<!DOCTYPE html><html>404</html>", "is not a library: it seems to be a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a library: it seems to be a pointer of git LFS"),
        (b"!<arch>\nlibx.o/", "is not a library: it seems to be a static library"),
        (b"PK\x03\x04....", "is not a library: it seems to be a zip archive"),
        (b"\0asm\x01\0\0\0", "is not a library: it seems to be WebAssembly"),
        (b"\0" * 4096, "is not a library: it begins with zeros"),
        (b"\xde\xad\xbe\xef\0\0\0\0", "is not a library: it begins with the bytes de ad be ef"),
        (b"\xca\xfe\xba\xbe\0\0\0\x41" + b"\0" * 40, "is not a library: it seems to be a Java class"),
        (b"\x7fELF", "is cut short or damaged: its ELF header makes no sense"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 20, "is cut short or damaged: its ELF header ends at byte 64"),
        (b"MZ", "is cut short or damaged: its DOS header ends at byte 64"),
        (b"MZ" + b"\0" * 200, "is a DOS program or damaged"),
        (b"\xcf\xfa\xed\xfe", "is cut short or damaged: its Mach-O header ends at byte 28"),
    ],
)
def test_a_file_that_is_no_library(problem: Callable[[bytes], str], data: bytes, said: str) -> None:
    """Each thing that is no library is called what it seems to be."""
    assert problem(data).startswith(said)


def test_a_folder(problem: Callable[[Path], str], tmp_path: Path) -> None:
    """A folder is called a folder."""
    assert problem(tmp_path) == "is a folder, not a library file"


def test_a_missing_file(problem: Callable[[Path], str], tmp_path: Path) -> None:
    """A path to nothing, and one through a file, say so."""
    assert problem(tmp_path / "no.so") == "does not exist"
    (tmp_path / "file").touch()
    assert problem(tmp_path / "file" / "no.so").startswith("does not exist")
    assert problem(tmp_path / ("x" * 300)) == "is not a file: its name is too long"


def test_a_path_with_a_nul() -> None:
    """A path that no file can have is a LibraryError too."""
    with pytest.raises(LibraryError, match="is not a file name"):
        read_image("lib\0.so")


def test_a_loop_of_links(problem: Callable[[Path], str], tmp_path: Path) -> None:
    """Links that lead to each other end in an error."""
    (tmp_path / "a.so").symlink_to(tmp_path / "b.so")
    (tmp_path / "b.so").symlink_to(tmp_path / "a.so")
    assert problem(tmp_path / "a.so") == "is a loop of links"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_a_socket_and_a_device(problem: Callable[[Path], str], tmp_path: Path) -> None:
    """Nothing waits on a pipe without a writer, and a device is not opened."""
    os.mkfifo(tmp_path / "pipe.so")
    assert problem(tmp_path / "pipe.so") == "is a pipe, not a library file"
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path may have 107 bytes
        server.bind("socket.so")
        os.chdir(here)
        assert problem(tmp_path / "socket.so") == "is a socket, not a library file"
    assert problem(Path("/dev/zero")) == "is a device, not a library file"


def test_a_file_of_five_gigabytes(problem: Callable[[Path], str], tmp_path: Path) -> None:
    """A file too large to be a library is refused by its size, unread."""
    path = tmp_path / "huge.so"
    with path.open("wb") as file:
        file.write(b"\x7fELF")
        file.truncate(5 << 30)
    assert problem(path) == "has 5,368,709,120 bytes; a library may have 1 GiB at most"


def test_a_large_file_that_is_no_library_is_not_read(problem: Callable[[Path], str], tmp_path: Path) -> None:
    """What is no library by its first bytes is not read to its end."""
    path = tmp_path / "large.so"
    with path.open("wb") as file:
        file.write(b"once upon a time")
        file.truncate(1 << 30)
    assert problem(path).startswith("is not a library")


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="files have no owner here")
def test_a_file_that_may_not_be_read() -> None:
    """A file without the right to read it says so."""
    script = """
        import os, sys
        from ferrule.native.image import read_image
        if os.geteuid() == 0:  # who may read everything
            os.setgid(65534)
            os.setuid(65534)
        try:
            read_image(sys.argv[1])
        except Exception as error:
            print(type(error).__name__, error.problem)
    """
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "locked.so")
        path.write_bytes(b"\x7fELF")
        path.chmod(0)
        command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "LibraryError cannot be read: permission denied"


@ELF_ONLY
def test_other_elf_files(problem: Callable[[Path], str], build: Build, tmp_path: Path) -> None:
    """An executable, an object file and a static library are called that."""
    assert problem(Path(sys.executable).resolve()).startswith(("is an executable", "holds no plugin"))
    source = build().with_suffix(".c").parent / "probe.c"
    object_file = tmp_path / "probe.o"
    include = f"-I{ROOT / 'native_sdk' / 'include'}"
    subprocess.run(["cc", "-c", "-fPIC", include, str(source), "-o", str(object_file)], check=True)
    assert problem(object_file) == "is an object file, not a shared library"
    main = tmp_path / "main.c"
    main.write_text("int main(void) { return 0; }", encoding="utf-8")
    for flag in ("-pie", "-no-pie"):
        subprocess.run(["cc", flag, "-fPIE", str(main), "-o", str(tmp_path / "main")], check=True)
        assert problem(tmp_path / "main") == "is an executable, not a shared library"
    subprocess.run(["ar", "rcs", str(tmp_path / "libprobe.a"), str(object_file)], check=True)
    assert problem(tmp_path / "libprobe.a").startswith("is not a library: it seems to be a static library")


# ---- damaged libraries and manifests ------------------------------------------------------------------------------


@ELF_ONLY
def test_a_library_that_is_cut_short(problem: Callable[[bytes], str], good: bytes) -> None:
    """A file that ends too early says what is missing, wherever it was cut."""
    assert problem(good[:-100]).startswith("is cut short or damaged: its section table ends at byte")
    for size in (10, 63, 100, 1000, len(good) // 2):
        assert problem(good[:size]).startswith("is cut short or damaged"), size


@ELF_ONLY
def test_a_library_without_section_headers(problem: Callable[[bytes], str], good: bytes) -> None:
    """Wiped section headers are named: the library would load, but its manifest is gone."""
    wiped = bytearray(good)
    wiped[40:48] = bytes(8)  # e_shoff
    wiped[58:64] = bytes(6)  # e_shentsize, e_shnum, e_shstrndx
    assert problem(bytes(wiped)).startswith("is stripped of its section headers")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-DNO_SECTION"], "holds no plugin: it has no section"),
        (["-DTWO_MANIFESTS"], "holds two manifests; one is allowed"),
        (["-DTRAILING"], "has a damaged manifest: section .ferrule holds bytes other than NUL behind it, at byte "),
        (["-DJSON_LEN=100000"], "has a damaged manifest: it claims 100,000 bytes, and section .ferrule has room for "),
        (["-DJSON_LEN=104857600"], "claims a manifest of 104,857,600 bytes; 16,777,216 is the most"),
        (["-DJSON_LEN=0xffffffffffffffff"], "claims a manifest of 18,446,744,073,709,551,615 bytes"),
        (["-DJSON_LEN=10"], "has a damaged manifest: section .ferrule holds bytes other than NUL behind it"),
        (
            ['-DMAGIC="ferrous"'],
            "has a damaged manifest: section .ferrule begins with b'ferrous\\x00', expected b'ferrule",
        ),
    ],
)
def test_a_wrong_manifest_section(problem: Callable[[Path], str], build: Build, flags: list[str], said: str) -> None:
    """Everything that the section's header can say wrongly has its own message."""
    assert problem(build(*flags)).startswith(said)


@ELF_ONLY
def test_a_section_shorter_than_its_header(problem: Callable[[Path], str], compile_c: Build) -> None:
    """A section that cannot even hold the header says how long it is."""
    source = '__attribute__((section(".ferrule"), used)) static const char word[] = "ferrule";'
    assert problem(compile_c(source, "short")).startswith("has a damaged manifest: section .ferrule has 8 bytes")


def test_a_real_manifest_of_a_hundred_megabytes(problem: Callable[[Path], str], compile_c: Build) -> None:
    """A library that really carries a manifest of 100 MB is refused by its claim, and quickly."""
    source = f"""
        __attribute__((section({'"__DATA,__ferrule"' if sys.platform == "darwin" else '".ferrule"'}), used))
        static struct {{ char magic[8]; unsigned major, minor; unsigned long long length; char text[100 << 20]; }}
        all = {{"ferrule", 0, 1, 100 << 20, "{{"}};
    """
    assert problem(compile_c(source, "hundred")) == "claims a manifest of 104,857,600 bytes; 16,777,216 is the most"


# ---- for another host ------------------------------------------------------------------------------------------


def test_another_abi_is_read_and_refused(build: Build) -> None:
    """A library of another ABI can be inspected; loading names both ABIs and what to do."""
    for major, minor, advice in ((0, 9, "newer ferrule"), (1, 0, "newer ferrule"), (0, 0, "with the SDK of this")):
        image = read_image(build(f"-DABI_MAJOR={major}", f"-DABI_MINOR={minor}"))
        assert image.abi == (major, minor)
        assert image.manifest_json == MANIFEST.encode()
        with pytest.raises(LibraryError) as caught:
            image.require_loadable()
        host = f"{HOST_ABI[0]}.{HOST_ABI[1]}"
        assert caught.value.problem == f"is built for ABI {major}.{minor}, and this host takes ABI {host}"
        assert advice in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("abi", "host", "taken"),
    [
        ((0, 1), (0, 1), True),
        ((0, 1), (0, 2), False),
        ((0, 2), (0, 1), False),
        ((1, 0), (1, 3), True),
        ((1, 3), (1, 3), True),
        ((1, 4), (1, 3), False),
        ((0, 1), (1, 0), False),
        ((2, 0), (1, 9), False),
    ],
)
def test_which_abis_a_host_takes(abi: tuple[int, int], host: tuple[int, int], taken: bool) -> None:
    """Version 0 is taken exactly; from 1.0 on, a minor that is at most the host's."""
    assert (abi_problem(abi, host) is None) is taken


@ELF_ONLY
def test_missing_symbols_are_named(build: Build) -> None:
    """Loading needs the create symbol that the manifest names, whichever that is."""
    image = read_image(build("-DNO_CREATE"))
    with pytest.raises(LibraryError, match="does not export the symbol ferrule_plugin_create"):
        image.require_symbols(["ferrule_plugin_manifest", "ferrule_plugin_create", "ferrule_plugin_destroy"])
    image = read_image(build("-DCREATE=make_probe"))
    image.require_symbols(["make_probe", "ferrule_plugin_destroy"])
    with pytest.raises(LibraryError, match="symbols ferrule_plugin_create, other"):
        image.require_symbols(["ferrule_plugin_create", "make_probe", "other"])


CROSS = {
    "aarch64-linux-gnu": ("elf", "linux-aarch64"),
    "x86_64-windows-gnu": ("pe", "windows-x86_64"),
    "aarch64-macos": ("macho", "macos-aarch64"),
    "x86_64-macos": ("macho", "macos-x86_64"),
    "x86-linux-gnu": ("elf", "linux-x86"),
    "s390x-linux-musl": ("elf", "linux-s390x"),
}


@pytest.fixture(scope="session")
def cross(tmp_path_factory: pytest.TempPathFactory, plugin_source: Callable[[str], str]) -> Callable[[str], Path]:
    """``cross(target)``: the same library for another platform."""
    pytest.importorskip("ziglang", reason="ziglang cross-compiles the files that this test reads")
    folder = tmp_path_factory.mktemp("cross")
    built: dict[str, Path] = {}

    def cross(target: str) -> Path:
        if target not in built:
            suffix = ".dll" if "windows" in target else ".dylib" if "macos" in target else ".so"
            (folder / target).mkdir()
            source, library = folder / target / "probe.c", folder / target / f"libprobe{suffix}"
            source.write_text(plugin_source(MANIFEST), encoding="utf-8")
            command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-fPIC", "-nostdlib"]
            command += [f"-I{ROOT / 'native_sdk' / 'include'}", str(source), "-o", str(library)]
            if "windows" in target:
                command += ["-Wl,--entry=ferrule_plugin_destroy"]  # no C library, so no DllMain of it
            subprocess.run(command, check=True, capture_output=True, text=True)
            built[target] = library
        return built[target]

    return cross


@pytest.mark.parametrize("target", CROSS)
def test_a_library_for_another_platform(cross: Callable[[str], Path], target: str) -> None:
    """ELF, PE and Mach-O of other platforms can be inspected here; loading names both platforms."""
    form, platform = CROSS[target]
    image = read_image(cross(target))
    assert (image.format, image.platform, image.abi) == (form, platform, HOST_ABI)
    assert image.manifest_json == MANIFEST.encode()
    image.require_symbols(["ferrule_plugin_manifest", "ferrule_plugin_create", "ferrule_plugin_destroy"])
    if platform != host_platform():
        with pytest.raises(LibraryError) as caught:
            image.require_loadable()
        assert caught.value.problem == f"is built for {platform}, and this host is {host_platform()}"


def test_a_file_for_several_processors(cross: Callable[[str], Path], tmp_path: Path) -> None:
    """Of a Mach-O file for several processors the host's part is read, or else the first."""
    parts = [(cross("aarch64-macos").read_bytes(), 0x0100000C), (cross("x86_64-macos").read_bytes(), 0x01000007)]
    table, body, offset = b"", b"", 4096
    for data, machine in parts:
        table += b"".join(number.to_bytes(4, "big") for number in (machine, 0, offset, len(data), 12))
        body += data.ljust(-len(data) % 4096 + len(data), b"\0")
        offset = 4096 + len(body)
    fat = tmp_path / "libfat.dylib"
    fat.write_bytes((b"\xca\xfe\xba\xbe" + len(parts).to_bytes(4, "big") + table).ljust(4096, b"\0") + body)
    arch = host_platform().rpartition("-")[2]
    assert read_image(fat).platform == ("macos-x86_64" if arch == "x86_64" else "macos-aarch64")


# ---- mutations -------------------------------------------------------------------------------------------------

Mutation = tuple[int, int, int]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[float, list[tuple[float, int, int]]]:
    """Where to cut (a share of the size) and which bytes to overwrite, mostly where the headers and tables are."""
    cut = draw(st.one_of(st.just(1.0), st.floats(0, 1)))
    place = st.one_of(st.floats(0, 1), st.floats(0, 0.06), st.floats(0.7, 1))
    spots = st.tuples(
        place, st.sampled_from([1, 2, 4, 8]), st.one_of(st.integers(0, 255), st.sampled_from([0, 127, 255]))
    )
    return cut, draw(st.lists(spots, max_size=12))


def mutated(data: bytes, cut: float, spots: list[tuple[float, int, int]]) -> bytes:
    result = bytearray(data)
    for share, width, value in spots:
        at = int(share * (len(result) - width))
        result[at : at + width] = bytes([value]) * width
    return bytes(result[: int(len(result) * cut)])


def read_or_refuse(path: Path, data: bytes) -> Image | None:
    path.write_bytes(data)
    begin = time.thread_time()
    try:
        image = read_image(path)
        image.require_loadable()
    except LibraryError as error:
        assert str(error).startswith(str(path))
        return None
    finally:
        assert time.thread_time() - begin < 1
    return image


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mutated")
    yield folder
    shutil.rmtree(folder)


SETTINGS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(change=mutations())
def test_a_mutated_library_is_read_or_refused(
    scratch: Path, good: bytes, change: tuple[float, list[tuple[float, int, int]]]
) -> None:
    """Whatever is done to a library's bytes: it is read, or it is one LibraryError, within a second."""
    read_or_refuse(scratch / "libmutated.so", mutated(good, *change))


@pytest.mark.parametrize("target", ["x86_64-windows-gnu", "aarch64-macos", "s390x-linux-musl"])
def test_a_mutated_library_of_another_platform(cross: Callable[[str], Path], scratch: Path, target: str) -> None:
    """The same for PE, Mach-O and big-endian ELF."""
    data = cross(target).read_bytes()

    @SETTINGS
    @given(change=mutations())
    def check(change: tuple[float, list[tuple[float, int, int]]]) -> None:
        read_or_refuse(scratch / "libmutated.bin", mutated(data, *change))

    check()


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(
        [b"", b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x02", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"]
    ),
    rest=st.binary(max_size=400),
)
def test_any_bytes_are_refused(scratch: Path, head: bytes, rest: bytes) -> None:
    """Bytes that are no library are never read as one, whatever they begin with."""
    assert read_or_refuse(scratch / "libnoise.so", head + rest) is None
