"""Archives of data sets: fetched, held against their digest, and looked through before anything is extracted."""

import tarfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from torchvision.datasets.utils import download_url

from segfaith.errors import SettingsError


def fetch(url: str, root: Path, name: str, md5: str) -> None:
    """Downloads a tar archive into `root`, unless it is there, and refuses one that would write outside.

    Who extracts it afterwards may trust its members.

    Raises:
        SettingsError: see `refuse_members`.
        OSError, RuntimeError: it cannot be fetched, or its content does not match the digest.
    """
    root.mkdir(parents=True, exist_ok=True)
    download_url(url, str(root), name, md5)
    refuse_members(root / name)


def refuse_members(archive: Path) -> None:
    """Lets a tar archive pass whose members are plain files and folders below the folder where it is extracted.

    Raises:
        SettingsError: a member has an absolute path or "..", or is a link, a device or a pipe; or it is no archive.
    """
    try:
        with tarfile.open(archive) as members:
            bad = next(((member.name, why) for member in members if (why := _refusal(member))), None)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SettingsError(
            f"{archive} cannot be read as an archive ({error}); remove it and fetch it again"
        ) from error
    if bad is not None:
        raise SettingsError(
            f"{archive} has the member {bad[0]!r}: {bad[1]}; nothing was extracted. It is not the data set's archive: "
            "remove it and fetch it again from the official address"
        )


def _refusal(member: tarfile.TarInfo) -> str:
    """Why a member may not be extracted, or ""."""
    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive:
        return "its path is absolute"
    if ".." in windows.parts:
        return "its path leads out of the folder"
    if member.issym() or member.islnk():
        return "it is a link"
    return "" if member.isfile() or member.isdir() else "it is a device or a pipe"
