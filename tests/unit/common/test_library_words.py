"""What the operating system says of a library, in words. Some of it (a stale NFS handle) no test can bring about here."""

import errno
import os
from pathlib import Path

import pytest

from litho.errors import LibraryError
from litho.library import files

ROOT = Path("/srv/images")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (
            errno.ESTALE,
            "library-gone",
            "the library /srv/images is gone (stale file handle): bring the file server back",
        ),
        (
            errno.ETIMEDOUT,
            "library-gone",
            "does not answer (its file server was away for too long): bring the file server",
        ),
        (errno.EIO, "library-gone", "does not answer (I/O error): check the file server and its disk"),
        (errno.ENOSPC, "library-full", "the library /srv/images is full: free some space or prune old versions"),
        (errno.EDQUOT, "library-full", "the quota of the library /srv/images is used up: raise the quota"),
        (errno.EFBIG, "library-full", "would grow beyond what its file system allows"),
        (errno.EROFS, "library-read-only", "is mounted read-only: export and mount it writable"),
        (errno.EACCES, "library-denied", "may not be written: check its owner, or no_root_squash of the export"),
        (errno.ENOTDIR, "library-missing", "is not a directory: check the name of the export"),
        (errno.ENXIO, "library", "the library /srv/images failed (No such device or address)"),
    ],
)
def test_each_error_of_the_system_is_a_sentence_with_a_way_out(number: int, code: str, words: str) -> None:
    with pytest.raises(LibraryError) as told, files.telling(ROOT):
        raise OSError(number, os.strerror(number))
    assert told.value.code == code
    assert words in str(told.value)
    assert "\n" not in str(told.value)
