"""scripts/gpu-check --prepare: the libraries and tools of the build, from Debian's packages, as one folder that can be carried to a machine
that reaches no package source. Below it lie bin, include, lib and lib/pkgconfig; nothing in it knows where it lies, so that it may be moved.

Only what is needed is kept: headers of the packages named here, libraries that these or the tools load, no static libraries, symbols
or documentation. The C and C++ libraries are not in it: the other machine's compiler has them, and they must not be older than
Debian 12's (glibc 2.36).
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

PACKAGES = ("libzmq3-dev", "libprotobuf-c-dev", "protobuf-c-compiler", "protobuf-compiler", "libglpk-dev", "libconfig-dev", "libjansson-dev", "libxxhash-dev",
            "libutf8proc-dev", "zlib1g-dev", "libcmocka-dev", "pkgconf")
TOOLS = ("protoc", "protoc-c", "pkgconf")
LIBRARIES = ("zmq", "protobuf-c", "glpk", "config", "jansson", "utf8proc", "z", "cmocka")
# What every machine with a compiler has.
SYSTEM = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|stdc\+\+|gcc_s))\.so\.\d+")
LIMIT = 40 << 20
# The tools load their libraries from beside them, and nothing else on that machine does.
WRAPPER = """#!/bin/sh
at=$(cd "$(dirname "$0")/.." && pwd)
LD_LIBRARY_PATH=$at/lib exec "$at/libexec/{name}" "$@"
"""


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def download(work):
    """All packages that PACKAGES need on a system where nothing is installed, unpacked."""
    state, archives, root = work / "status", work / "archives", work / "root"
    state.touch()
    (archives / "partial").mkdir(parents=True)
    root.mkdir()
    run("apt-get", "-q", "-y", "-o", f"Dir::State::status={state}", "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1",
        "-o", "APT::Sandbox::User=root", "--no-install-recommends", "--download-only", "install", *PACKAGES)
    versions = {}
    for package in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "-x", str(package), str(root))
        name, version = run("dpkg-deb", "-W", "--showformat", "${Package} ${Version}", str(package)).split()
        versions[name] = version, package
    return root, versions


def headers(package, out):
    """The headers and pkg-config files that one package has; those of the architecture beside the others."""
    with tempfile.TemporaryDirectory() as own:
        run("dpkg-deb", "-x", str(package), own)
        for path in sorted(pathlib.Path(own).glob("usr/**/*")):
            if path.is_dir():
                continue
            name = path.relative_to(own).as_posix()
            inside = re.fullmatch(r"usr/include/(?:\w+-linux-gnu/)?(.*)", name)
            if inside:
                target = out / "include" / inside[1]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            elif re.search(r"/pkgconfig/[^/]*\.pc$", name):
                pkgconfig(path, out / "lib" / "pkgconfig" / path.name)


def pkgconfig(path, target):
    """As of a folder that may be moved; what only static linking needs is not there."""
    fixed = {"prefix": "${pcfiledir}/../..", "exec_prefix": "${prefix}", "libdir": "${prefix}/lib", "includedir": "${prefix}/include"}
    lines = []
    for line in path.read_text().split("\n"):
        key = line.split("=")[0].strip()
        if not line.startswith(("Requires.private", "Libs.private")):
            lines.append(f"{key}={fixed.pop(key)}" if key in fixed else line)
    text = re.sub(r"-L/usr/lib\S*", "-L${pcfiledir}/..", "\n".join(lines)).replace("-I/usr/include", "-I${pcfiledir}/../../include")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def needed(path):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", str(path)))


def copy_libraries(root, out):
    """LIBRARIES and tools, and what these load; each library by the name that is asked for, and by that of the linker."""
    found = {path.name: path for path in root.glob("**/*.so*") if path.is_file() or path.is_symlink()}
    (out / "bin").mkdir()
    (out / "libexec").mkdir()
    queue = []
    for tool in TOOLS:
        source = next(path for path in root.glob(f"usr/bin/{tool}"))
        shutil.copy(source.resolve(), out / "libexec" / tool)
        wrapper = out / "bin" / tool
        wrapper.write_text(WRAPPER.format(name=tool))
        wrapper.chmod(0o755)
        queue += needed(source)
    (out / "bin" / "pkg-config").symlink_to("pkgconf")
    for name in LIBRARIES:
        library = found[f"lib{name}.so"]
        soname = re.search(r"\(SONAME\).*\[(.*)\]", run("readelf", "-d", str(library)))[1]
        (out / "lib" / f"lib{name}.so").symlink_to(soname)
        queue.append(soname)
    seen = set()
    while queue:
        soname = queue.pop()
        if soname in seen or SYSTEM.fullmatch(soname):
            continue
        seen.add(soname)
        if soname not in found:
            raise SystemExit(f"gpu-check: no package has {soname}")
        shutil.copy(found[soname].resolve(), out / "lib" / soname)
        queue += needed(found[soname])
    for path in [*(out / "lib").glob("*.so.*"), *(out / "libexec").iterdir()]:
        if not path.is_symlink():
            path.chmod(0o755)
            run("strip", "--strip-unneeded", str(path))


def fix_alternatives(root):
    """Links of the packages that name absolute paths, into the folder where they were unpacked."""
    for path in root.glob("**/*"):
        if path.is_symlink() and os.readlink(path).startswith("/"):
            target = root / os.readlink(path).lstrip("/")
            path.unlink()
            path.symlink_to(target)


def size_of(folder):
    return sum(path.lstat().st_size for path in folder.glob("**/*") if not path.is_dir())


def prepare(out, commit):
    """Makes `out` anew; returns one line on it."""
    with tempfile.TemporaryDirectory() as work:
        root, versions = download(pathlib.Path(work))
        fix_alternatives(root)
        fresh = pathlib.Path(work) / "out"
        (fresh / "lib").mkdir(parents=True)
        for package in PACKAGES:
            headers(versions[package][1], fresh)
        copy_libraries(root, fresh)
        listed = [f"{name} {version}\n" for name, (version, _) in sorted(versions.items())]
        (fresh / "packages").write_text("".join(listed))
        (fresh / "commit").write_text(commit + "\n")
        size = size_of(fresh)
        if size > LIMIT:
            raise SystemExit(f"gpu-check: {size} bytes are more than the {LIMIT} of a folder that is carried")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(fresh, out, symlinks=True)
    state = hashlib.sha256("".join(listed).encode()).hexdigest()[:12]
    return f"{out}: {size / 1e6:.1f} MB, packages {state}"
