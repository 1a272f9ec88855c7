"""`SHA256SUMS`: a hash of every other file of a bundle, and the signature over it.

The form is that of coreutils, so that `sha256sum -c SHA256SUMS` checks an unpacked bundle by hand. Comment lines above say
which format this is and how many bytes the files have together, so that a reader can look for space before it unpacks:

    # lithograph bundle 1
    # bytes 7340032
    9f86d0...  manifest.cfg
    60303a...  kernel

Because it lists all of them, a signature of this one file is one of the whole bundle. It is a plain Ed25519 signature of 64
bytes, made and checked by `openssl`, which is also how a person does it:

    openssl genpkey -algorithm ed25519 -out site.key
    openssl pkey -in site.key -pubout -out site.pub
    openssl pkeyutl -verify -rawin -pubin -inkey site.pub -in SHA256SUMS -sigfile SHA256SUMS.sig
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from litho import process
from litho.errors import EngineError, LithoError, NotFoundError, RefusedError, UsageError
from litho_controller.bundle import manifest
from litho_controller.bundle.faults import bad, damaged, shown, telling

FILE = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
MAX_BYTES = 4 * 1024 * 1024
SIGNATURE_BYTES = 64
_VERIFY = ("openssl", "pkeyutl", "-verify", "-rawin", "-pubin")
_LINE = re.compile(r"(?P<sha>[0-9a-f]{64}) [ *](?P<name>.+)", re.ASCII)
_BYTES = re.compile(r"# bytes ([0-9]{1,18})", re.ASCII)


class Sums(msgspec.Struct, frozen=True):
    """What SHA256SUMS promises."""

    hashes: dict[str, str]
    """Of every file but SHA256SUMS itself and its signature."""
    bytes: int = 0
    """Of all files; 0 when it does not say."""


def parse(data: bytes) -> Sums:
    """The promises in `data`. Raises RefusedError."""
    hashes: dict[str, str] = {}
    size = 0
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.decode().rstrip("\r")
        except UnicodeDecodeError:
            raise bad(f"line {number} of {FILE} is not UTF-8 text", code="bad-sums") from None
        if found := _BYTES.fullmatch(line):
            size = int(found[1])
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        name = match["name"].removeprefix("./") if match else ""
        if match is None or not manifest.is_member(name):
            raise bad(f"line {number} of {FILE} is no hash and name", code="bad-sums")
        if name in hashes:
            raise bad(f"line {number} of {FILE} names {shown(name)} a second time", code="bad-sums")
        if name not in (FILE, SIGNATURE):
            hashes[name] = match["sha"]
    return Sums(hashes, size)


def dump(hashes: Mapping[str, str], size: int) -> bytes:
    """The file of these promises, in the order of `hashes`."""
    lines = ["# lithograph bundle 1", f"# bytes {size}"]
    lines.extend(f"{sha}  {name}" for name, sha in hashes.items())
    return ("\n".join(lines) + "\n").encode()


def require(sums: Sums, found: Mapping[str, str]) -> None:
    """Hold every file's hash against the promises. Raises IntegrityError for the first that differs or is missing."""
    for name, sha in sums.hashes.items():
        if name not in found:
            raise damaged(f"the bundle has no {shown(name)}, which its {FILE} lists")
        if found[name] != sha:
            raise damaged(f"{shown(name)} in the bundle is damaged: its SHA-256 is not what {FILE} says")
    for name in found:
        if name not in sums.hashes and name not in (FILE, SIGNATURE):
            raise damaged(f"the bundle has {shown(name)}, which its {FILE} does not list")


# ---------------------------------------------------------------- signatures


class Key(msgspec.Struct, frozen=True):
    """A public key that somebody trusts."""

    path: Path
    fingerprint: str
    """SHA-256 of the key's DER form, the first 16 hex digits."""

    def __str__(self) -> str:
        return f"{self.path.stem} ({self.fingerprint})"


def sign(data: bytes, key: Path) -> bytes:
    """The signature of `data` with the private key in the PEM file `key`. Blocks. Raises LithoError."""
    _need_ed25519(key, private=True)
    with _beside({"data": data}) as room:
        try:
            process.run(
                ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", room / "data", "-out", room / "sig"],
                timeout_s=60.0,
            )
        except EngineError as exc:
            raise UsageError(f"{key} cannot sign ({exc.message})", code="bad-key") from exc
        signature = (room / "sig").read_bytes()
    if len(signature) != SIGNATURE_BYTES:
        raise UsageError(f"{key} made a signature of {len(signature)} bytes, which is not Ed25519's", code="bad-key")
    return signature


def keys_in(paths: Iterable[Path]) -> list[Key]:
    """The public keys in these files, and in these directories' files (`*.pem`, `*.pub`). Blocks.

    Raises NotFoundError for a file that is not there, UsageError for one that is no Ed25519 key. A directory that is not
    there is empty.
    """
    found: list[Path] = []
    for path in paths:
        with telling(path):
            if path.is_dir():
                found.extend(sorted(p for p in path.iterdir() if p.suffix in (".pem", ".pub") and p.is_file()))
            elif path.is_file():
                found.append(path)
            elif path.suffix in (".pem", ".pub", ".key"):
                raise NotFoundError(f"there is no key file {path}", code="key-missing")
    return [Key(path, _need_ed25519(path, private=False)) for path in found]


def signer(data: bytes, signature: bytes, keys: Iterable[Key]) -> Key | None:
    """Which of `keys` made `signature` of `data`; None when none did. Blocks. Raises LithoError."""
    if len(signature) != SIGNATURE_BYTES:
        raise bad(f"{SIGNATURE} has {len(signature)} bytes and not {SIGNATURE_BYTES}", code="bad-signature")
    with _beside({"data": data, "sig": signature}) as room:
        for key in keys:
            done = process.run(
                [*_VERIFY, "-inkey", key.path, "-in", room / "data", "-sigfile", room / "sig"],
                ok=(0, 1),
                timeout_s=60.0,
            )
            # The exit code is what counts; older versions also said so with 0 and other words.
            if done.code == 0 and "Signature Verified Successfully" in done.out + done.err:
                return key
    return None


def _need_ed25519(path: Path, *, private: bool) -> str:
    """The fingerprint of a key. Raises UsageError when `path` holds none of that kind."""
    what = "private" if private else "public"
    with telling(path):
        path.stat()
    try:
        flags = [] if private else ["-pubin"]
        told = process.run(["openssl", "pkey", *flags, "-in", path, "-noout", "-text_pub"], timeout_s=60.0).out
        form = ["-pubout", "-outform", "DER"]
        with _beside({}) as room:
            process.run(["openssl", "pkey", *flags, "-in", path, *form, "-out", room / "der"], timeout_s=60.0)
            der = (room / "der").read_bytes()
    except EngineError as exc:
        raise UsageError(
            f"{path} holds no {what} key that openssl can read",
            hint="make a pair with: openssl genpkey -algorithm ed25519 -out site.key; "
            "openssl pkey -in site.key -pubout -out site.pub",
            code="bad-key",
        ) from exc
    if not told.upper().startswith("ED25519"):
        raise UsageError(f"{path} holds a {what} key of another kind than Ed25519", code="bad-key")
    return hashlib.sha256(der).hexdigest()[:16]


def check_trust(key: Key | None, *, signed: bool, demanded: bool) -> None:
    """Refuse what is not signed by a key that is trusted, when that is `demanded`. Raises RefusedError."""
    if demanded and key is None:
        words = "is signed by no key that is trusted" if signed else "is not signed"
        raise _untrusted(f"the bundle {words}")


def _untrusted(message: str) -> RefusedError:
    return RefusedError(
        message, hint="get it from somebody whose public key you have, or name the key with --verify", code="untrusted"
    )


@contextlib.contextmanager
def _beside(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A directory of our own with these files; openssl reads no data from a pipe for Ed25519."""
    try:
        with tempfile.TemporaryDirectory(prefix="litho-sign-") as made:
            for name, data in files.items():
                (Path(made) / name).write_bytes(data)
            yield Path(made)
    except OSError as exc:
        raise LithoError(f"no temporary directory for openssl ({exc.strerror or exc})", code="files") from exc
