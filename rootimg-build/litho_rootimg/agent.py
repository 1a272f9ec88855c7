"""The agent as an archive of its own: its code, what both sides speak, and its hash-locked libraries.

The initrd unpacks it over the root image, so a change of the agent's code needs no new image. It lies in
`/usr/lib/lithograph/python`, and a `.pth` file makes Python find it there from every process, also from the agent's
worker.

Python under an emulated or old CPU spends seconds on compiling, so the compiled files come along. They are of the
kind that is not checked against its source (PEP 552): nobody edits the source in the image, and no time stamp can
make them stale.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from litho import process
from litho_rootimg import archive
from litho_rootimg.base import Facts, network_environment
from litho_rootimg.stamps import tree as walk

WHERE = "usr/lib/lithograph/python"
_COMMAND = """\
#!/bin/sh
exec /usr/bin/python3 -P -c 'import sys; from litho_agent.main import main; sys.exit(main())' "$@"
"""
PACKAGES = ("litho", "litho_agent")


def package_folder(name: str) -> Path:
    """Where the code of a package of ours lies on this machine."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None  # noqa: S101 - part of the same distribution
    return Path(spec.origin).parent


def lock_file() -> Path:
    """The agent's locked requirements: beside this package when it is installed, in the checkout otherwise."""
    here = Path(__file__).parent
    installed = here / "agent.lock"
    return installed if installed.is_file() else here.parents[1] / "requirements/agent.lock"


def make(facts: Facts, root: Path, out: Path) -> list[str]:
    """Make the agent's tree at `root` anew and write it to `out`; answers its libraries as `name version`.

    Raises EngineError.
    """
    shutil.rmtree(root, ignore_errors=True)
    python = root / WHERE
    python.mkdir(parents=True)
    _libraries(python, facts.python)
    libraries = sorted(
        " ".join(folder.name.removesuffix(".dist-info").rsplit("-", 1)) for folder in python.glob("*.dist-info")
    )
    for name in PACKAGES:
        source = package_folder(name)
        (python / name).mkdir()
        for path in walk(source):
            target = python / name / path.relative_to(source)
            if path.is_dir():
                target.mkdir(parents=True)
            elif path.is_file():
                shutil.copy(path, target)
    site = root / "usr/lib/python3/dist-packages"
    site.mkdir(parents=True)
    (site / "lithograph.pth").write_text(f"/{WHERE}\n")
    command = root / "usr/bin/litho-agent"
    command.parent.mkdir(parents=True)
    command.write_text(_COMMAND)
    command.chmod(0o755)
    _compile(python, facts.python)
    for path in walk(root):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    archive.clamp(root, facts.epoch)
    archive.tar_gz(root, out, facts.epoch)
    return libraries


def _libraries(target: Path, python: str) -> None:
    """Install what the lock pins, for the image's Python and not for this one."""
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
    ]
    argv += ["--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"]
    argv += ["--implementation=cp", f"--python-version={python}"]
    argv += [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    # Oldest first: any of them runs on the image's C library.
    argv += [f"--platform=manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_28", "_2_34")] + ["--platform=any"]
    process.run(
        [*argv, "--target", target, "-r", lock_file()],
        env=network_environment(),
        doing="installing the agent's libraries",
    )
    for name in ("bin", "share", "include"):
        shutil.rmtree(target / name, ignore_errors=True)
    # zstandard's second implementation needs the package cffi, which the lock does not have: 12 MB that nothing can load.
    for unused in target.glob("zstandard/_cffi*.so"):
        unused.unlink()
    for folder in target.glob("*.dist-info"):
        # What pip notes of this installation differs from run to run.
        for name in ("RECORD", "direct_url.json", "REQUESTED", "INSTALLER"):
            (folder / name).unlink(missing_ok=True)


def _compile(folder: Path, python: str) -> None:
    """Compile for the image's Python, if this machine has the same one; otherwise the node's first seconds are slower."""
    program = process.which(f"python{python}")
    if program is None:
        return
    # `-s` takes the build's own path out of the compiled files.
    root = folder.parents[len(Path(WHERE).parts) - 1]
    process.run(
        [
            program,
            "-m",
            "compileall",
            "-q",
            "-j",
            "1",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            root,
            "-p",
            "/",
            folder,
        ],
        doing="compiling the agent",
    )
