"""The bytes of your own data: packed, in a folder or an archive, one file or a split in several."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from .interactions import SPLITS, DataError

Content = bytes | bytearray
_MOST, _RATIO = 1 << 26, 100  # a file may unpack to 64 MiB, and beyond that to 100 times its size
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda stream: _zstd(stream),
}
_SUFFIXES = dict(zip((".gz", ".bz2", ".xz", ".zst"), _PACKED, strict=True))
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
# What is not read, by the bytes it begins with, and the way out.
_FOREIGN = {
    b"\x89HDF": "an HDF5 file: write the table with pandas' to_csv or to_parquet",
    b"\x93NUMPY": "a NumPy array: give load() a scipy CSR matrix or a pandas frame",
    b"\x80": "perhaps Python objects, which may run code and are never read: save as CSV",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save it as .xlsx or CSV",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"\x04\x22\x4d\x18": "an LZ4 file: unpack it",
    b"ORC": "an ORC file: write it as parquet",
    b"Obj\x01": "an Avro file: write it as parquet",
    b"%PDF": "a PDF document: the table in it must be saved as CSV",
    b"RDX": "an R file: write the table with write.csv",
    b"MATLAB": "a MATLAB file: write the table with writetable",
    b"<": "a web page or XML, perhaps a failed download: fetch the file itself",
    b"version https://git-lfs": "a pointer of Git LFS: `git lfs pull` brings the file",
}
_ROLES = {
    **dict.fromkeys(("train", "training", "base"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def role_of(word: str) -> str | None:
    """The split that a word stands for: `val` is valid, `base` train; None: no split.

    >>> role_of("Validation"), role_of("movies")
    ('valid', None)
    """
    return _ROLES.get(word.strip().lower())


def contents(path: Path, member: str | None = None) -> dict[str, tuple[str, Content]]:
    """What a path holds: for each split that comes as a file its name and bytes; one file is train.

    Args:
        path: a file, perhaps packed; or a folder, a zip or tar archive that holds one or a split.
        member: which file of several, by its name.

    Raises:
        DataError: nothing there can be read, or it is not clear which file is meant.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        entries = {file.relative_to(path).as_posix(): _reader(file) for file in files}
        return _chosen(str(path), entries, member)
    raw = read_bytes(path)
    if raw.startswith(b"PK\x03\x04"):
        try:
            archive = zipfile.ZipFile(io.BytesIO(raw))
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise DataError(
                f"{path} is a zip archive: unpack it and give the table in it. "
                f"It cannot be opened here: {error}."
            ) from error
        if "xl/workbook.xml" in archive.namelist():
            return {"train": (str(path), raw)}
        packed = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        entries = {name: _member(archive, info, path) for name, info in packed.items()}
        return _chosen(str(path), entries, member)
    if raw[257:262] == b"ustar":
        return _chosen(str(path), _of_tar(raw, path), member)
    if member is not None:
        raise DataError(f"{path}: is one file and has no member {member!r}. Leave member= out.")
    return {"train": (str(path), raw)}


def read_bytes(path: Path) -> Content:
    """A file's content, unpacked."""
    try:
        raw: Content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error}. Check the path and its permissions."
        ) from error
    return unpacked(raw, str(path))


def unpacked(raw: Content, where: str) -> Content:
    """Bytes without gzip, bzip2, xz or zstd around them; what is no data is named.

    Raises:
        DataError: they are broken, unpack to far more than they are, or are of a foreign format.
    """
    name = where.lower()
    open_ = next((way for magic, way in _PACKED.items() if raw.startswith(magic)), None)
    open_ = open_ or next((_PACKED[m] for end, m in _SUFFIXES.items() if name.endswith(end)), None)
    if open_ is not None:
        raw = _expanded(open_, raw, where)
    for magic, what in _FOREIGN.items():
        if raw.startswith(magic):
            raise DataError(f"{where}: is {what}.")
    return raw


def _expanded(open_: Callable[[IO[bytes]], Any], raw: Content, where: str) -> bytearray:
    out = bytearray()
    try:
        with open_(io.BytesIO(raw)) as stream:
            while part := stream.read1(1 << 20):
                out += part
                if len(out) > max(_MOST, _RATIO * len(raw)):
                    raise DataError(
                        f"{where}: {len(raw):,} bytes unpack to more than {_RATIO} times as many, "
                        "as no table does. If it is right, unpack it first and give the file."
                    )
    except (OSError, *_BROKEN) as error:
        raise DataError(
            f"{where}, line {out.count(10) + 1}: cannot be read: {error}. "
            "Copy or download a damaged file again."
        ) from error
    return out


def _zstd(stream: IO[bytes]) -> Any:
    import pyarrow as pa

    return pa.input_stream(stream, compression="zstd")


def _reader(path: Path) -> Callable[[], Content]:
    return lambda: read_bytes(path)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Callable[[], Content]:
    def read() -> Content:
        where = f"{path}/{info.filename}"
        if info.file_size > max(_MOST, _RATIO * info.compress_size):
            raise DataError(f"{where}: unpacks to {info.file_size:,} bytes. Unpack it first.")
        try:
            return unpacked(archive.read(info), where)
        except (zipfile.BadZipFile, RuntimeError, OSError, *_BROKEN) as error:
            raise DataError(
                f"{where}: broken: {error}. Copy or download the archive again, or unpack it."
            ) from error

    return read


def _of_tar(raw: Content, path: Path) -> dict[str, Callable[[], Content]]:
    entries: dict[str, Callable[[], Content]] = {}
    with contextlib.suppress(tarfile.TarError):
        archive = tarfile.open(fileobj=io.BytesIO(raw))  # noqa: SIM115
        for info in archive:
            if info.isfile() and (stream := archive.extractfile(info)) is not None:
                where = f"{path}/{info.name}"
                entries[info.name] = lambda s=stream, w=where: unpacked(s.read(), w)  # type: ignore[misc]
    return entries


def _chosen(
    where: str, entries: Mapping[str, Callable[[], Content]], member: str | None
) -> dict[str, tuple[str, Content]]:
    """The file meant, or the files of the split meant, of a folder or an archive."""
    names = [name for name in entries if not re.search(r"(^|/)[._]", name)]
    if member is not None and member not in names:
        raise DataError(f"{where}: no file {member!r} in it. There are {_few(names)}.")
    groups: dict[str, dict[str, list[str]]] = {}
    for name in names:
        folder, _, base = name.rpartition("/")
        words = re.split(r"([._-])", base)
        at = next((k for k, word in enumerate(words) if role_of(word)), None)
        if at is not None:
            rest = "".join([*words[:at], "*", *words[at + 1 :]])
            for key in (folder, f"{folder}/{rest}"):  # all of a folder; names that differ by role
                groups.setdefault(key, {}).setdefault(role_of(words[at]) or "", []).append(name)
    some = [{role: files[0] for role, files in found.items()} for found in groups.values()]
    clear = [max(map(len, found.values())) == 1 and len(found) > 1 for found in groups.values()]
    whole = [split for split, fine in zip(some, clear, strict=True) if fine and "train" in split]
    whole = [one for one in whole if not any(one.items() < other.items() for other in whole)]
    whole = [one for k, one in enumerate(whole) if one not in whole[:k]]
    if member is not None:
        whole = [split for split in whole if member == split["train"]] or [{"train": member}]
    elif not whole and len(names) == 1:
        whole = [{"train": names[0]}]
    if len(whole) != 1:
        found = f"{len(whole)} splits are" if whole else "no train and test file is"
        raise DataError(
            f"{where}: {found} in it: {_few([s['train'] for s in whole] or names)}. "
            "Say member= with the name of one, and test= if it has another."
        )
    return {
        role: (f"{where}/{whole[0][role]}", entries[whole[0][role]]())
        for role in SPLITS
        if role in whole[0]
    }


def _few(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:8]))}{', ...' * (len(names) > 8)}" or "none"
