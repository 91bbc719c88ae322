"""Sources for tests, and what they list in a form that is short to compare."""

import io
import tarfile
from pathlib import Path

from nova.preparation.items import Item, Reason, Refusal
from nova.preparation.sources import SourceOptions, list_items


def put(folder: Path, **files: bytes | str) -> Path:
    """Write files, `__` in a name standing for a dot."""
    for name, data in files.items():
        write(folder / name.replace("__", "."), data)
    return folder


def write(path: Path, data: bytes | str = b"media") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def listed(source: Path | str, **options) -> list[Item | Refusal]:
    return list(list_items(source, SourceOptions(**options)))


def fates(source: Path | str, **options) -> dict[str, tuple[str, ...] | Reason]:
    """Captions or the reason of refusal of each thing listed, by id."""
    return {one.id: one.captions if isinstance(one, Item) else one.reason for one in listed(source, **options)}


def details(source: Path | str, **options) -> list[str]:
    return [one.detail for one in listed(source, **options) if isinstance(one, Refusal)]


def tar(path: Path, *members: tuple[str, bytes | str] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of files, given by name and content, and of other members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
