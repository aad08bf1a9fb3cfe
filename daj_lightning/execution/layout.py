"""What a program may see of the host: the system's libraries, an interpreter, a few files made up.

The same for both ways to make a root directory: isolation.py mounts it, `bubblewrap_command` has bwrap do it.
No home directory, no configuration, no project: what is not listed here is not there.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from daj_lightning.execution.isolation import DEVICE_LINKS, DEVICES, OWN_ID, SCRATCH
from daj_lightning.records import DajError

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Directories, or links into /usr."""
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
    "/etc/mime.types",
    "/etc/fonts",
    "/etc/ssl/certs",
)
MADE_UP = {
    "/etc/passwd": f"root:x:0:0::/nonexistent:/bin/sh\nuser:x:{OWN_ID}:{OWN_ID}::/tmp:/bin/sh\n",
    "/etc/group": f"root:x:0:\nuser:x:{OWN_ID}:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
ASK = (
    "import json, os, platform, site, sys; print(json.dumps([sys.executable, platform.python_version(), "
    "sorted({sys.base_prefix, sys.prefix, sys.base_exec_prefix, sys.exec_prefix}), site.getsitepackages(), "
    "os.path.dirname(os.__file__)]))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that candidates run under."""

    executable: str
    version: str
    prefixes: tuple[str, ...]
    """Directories that it lives in."""
    site_packages: tuple[str, ...]
    """Its installed packages: what a candidate can import beside the standard library."""
    standard_library: str

    @property
    def start(self) -> str:
        """The binary to start: a virtual environment's own, unless it stands where scratch space will be."""
        return os.path.realpath(self.executable) if in_scratch(self.executable) else self.executable


@cache
def interpreter(python: str) -> Interpreter:
    """What the Python binary `python` says of itself.

    Raises:
        DajError: it does not run.
    """
    try:
        answer = subprocess.run([python, "-I", "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
        executable, version, prefixes, packages, library = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise DajError(
            f"cannot start {python}: {error}. Name a Python binary, e.g. one of a virtual environment "
            f"with the libraries that the candidates import."
        ) from error
    return Interpreter(executable, version, tuple(prefixes), tuple(filter(os.path.isdir, packages)), library)


@dataclass(frozen=True, slots=True)
class Layout:
    """A root directory: what is bound read-only, which links and files there are."""

    paths: tuple[str, ...]
    links: dict[str, str]
    files: dict[str, str]
    packages: tuple[tuple[str, str], ...]
    """Directories that are bound elsewhere, and where: their own places are scratch space."""

    def inside(self, path: str) -> str:
        """Where a program finds a directory of the host."""
        return dict(self.packages).get(path, path)


def in_scratch(path: str) -> bool:
    return any(Path(path).is_relative_to(scratch) for scratch in SCRATCH)


def layout(of: Interpreter) -> Layout:
    links = {path: os.readlink(path) for path in SYSTEM if os.path.islink(path)}
    paths = [path for path in SYSTEM if os.path.isdir(path) and path not in links]
    if in_scratch(os.path.realpath(of.standard_library)):
        raise DajError(
            f"the interpreter {of.executable} lies in {of.standard_library}, and every candidate gets "
            f"{', '.join(SCRATCH)} empty. Name a Python that is installed elsewhere."
        )
    for prefix in of.prefixes:
        # The packages of a Nix store know each other by their paths.
        prefix = "/nix/store" if prefix.startswith("/nix/store/") else prefix
        if not in_scratch(prefix) and not any(Path(prefix).is_relative_to(path) for path in paths):
            paths.append(prefix)
    paths += [path for path in SYSTEM_FILES if os.path.exists(path)]
    moved = [path for path in of.site_packages if in_scratch(path)]
    packages = tuple((path, f"/packages/{number}") for number, path in enumerate(moved))
    return Layout(tuple(paths), links, dict(MADE_UP), packages)


def bubblewrap_command(bwrap: str, of: Layout, worker_directory: str, files: str, scratch_mib: int) -> list[str]:
    """The command line that shuts in whatever is appended to it, as process 1 of its namespaces.

    Args:
        files: directory that holds the made-up files, by their paths.
    """
    command = [bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    command += ["--as-pid-1", "--uid", str(OWN_ID), "--gid", str(OWN_ID), "--cap-drop", "ALL"]
    for path, target in of.links.items():
        command += ["--symlink", target, path]
    for path in (*of.paths, worker_directory):
        command += ["--ro-bind", path, path]
    for path, inside in of.packages:
        command += ["--ro-bind", path, inside]
    for path in of.files:
        command += ["--ro-bind", files + path, path]
    for name in DEVICES:
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in DEVICE_LINKS.items():
        command += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    command += ["--proc", "/proc"]
    for path in SCRATCH:
        command += ["--perms", "1777", "--size", str(scratch_mib << 20), "--tmpfs", path]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp"]
