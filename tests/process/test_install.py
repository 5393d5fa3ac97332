"""`cmake --install` gives a tree that a stranger can build and run against: header, libraries, pkg-config, CMake package, programs."""

import json
import os
import pathlib
import re
import subprocess

import pytest

import harness
from harness import BUILD, ROOT, Cluster, run

PROMPT = "First Citizen:"
CACHE = dict(re.findall(r"^(\w+):\w+=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.M))
CC = CACHE["CMAKE_C_COMPILER"]
SANITIZE = [f"-fsanitize={CACHE['TS_SANITIZE']}"] if CACHE.get("TS_SANITIZE") else []


def command(*args, **kw):
    done = subprocess.run([*map(str, args)], capture_output=True, text=True, timeout=120, **kw)
    assert done.returncode == 0, f"{args}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    where = tmp_path_factory.mktemp("prefix")
    command("cmake", "--install", BUILD, "--prefix", where)
    return where


@pytest.fixture(scope="module")
def cluster(prefix):
    """The installed programs, with the installed configuration and model."""
    share = prefix / "share" / "thunderserve"
    harness.TSCTL = str(prefix / "bin" / "tsctl")
    with Cluster("--model", share / "models" / "demo", "--codec", "none", conf=share / "conf" / "local.conf") as started:
        yield started


@pytest.fixture(scope="module")
def expected():
    flags = ["--prompt", PROMPT, "--max-tokens", 40, "--temperature", 0, "--seed", 1, "--json"]
    return json.loads(run("engine", "--model", harness.DEMO, *flags).stdout)["text"] + "\n"


def libdir(prefix):
    return next(prefix.rglob("thunderserve.pc")).parent.parent


def pkg_config(prefix, *flags):
    env = {**os.environ, "PKG_CONFIG_PATH": str(libdir(prefix) / "pkgconfig")}
    return command("pkg-config", *flags, "thunderserve", env=env).split()


def ask(program, prefix, cluster):
    env = {**os.environ, "LD_LIBRARY_PATH": str(libdir(prefix))}
    return command(program, cluster.router, PROMPT, env=env)


def test_what_is_installed(prefix):
    for name in ("tsctl", "ts-router", "ts-planner", "ts-prefill", "ts-decode", "ts-relay"):
        assert os.access(prefix / "bin" / name, os.X_OK)
    headers = [p.name for p in (prefix / "include").rglob("*") if p.is_file()]
    assert headers == ["ts_client.h"]
    assert (prefix / "share" / "thunderserve" / "conf" / "local.conf").is_file()


def test_only_the_interface_is_visible(prefix):
    header = (prefix / "include" / "thunderserve" / "ts_client.h").read_text()
    declared = set(re.findall(r"^[\w ]+[ *](ts_client_\w+)\(", header, re.M))
    assert len(declared) >= 10
    symbols = lambda *args: {line.split()[-1] for line in command("nm", "--defined-only", *args).splitlines() if re.search(r" [A-Z] ", line)}
    assert symbols("-g", libdir(prefix) / "libthunderserve.a") == declared
    exported = symbols("-D", libdir(prefix) / "libthunderserve.so")
    assert {s for s in exported if not s.startswith(("__asan", "__odr_asan", "__ubsan", "__tsan", "__sanitizer"))} == declared


def test_pkg_config_shared(prefix, cluster, expected, tmp_path):
    flags = pkg_config(prefix, "--cflags", "--libs")
    command(CC, *SANITIZE, "-Wall", "-Wextra", "-Werror", ROOT / "common/client/examples/generate.c", *flags, "-o", tmp_path / "consumer")
    assert "libthunderserve.so" in command("readelf", "-d", tmp_path / "consumer")
    assert ask(tmp_path / "consumer", prefix, cluster) == expected


def test_pkg_config_static(prefix, cluster, expected, tmp_path):
    flags = pkg_config(prefix, "--cflags", "--libs", "--static")
    flags = [str(libdir(prefix) / "libthunderserve.a") if flag == "-lthunderserve" else flag for flag in flags]
    command(CC, *SANITIZE, ROOT / "common/client/examples/generate.c", *flags, "-o", tmp_path / "consumer")
    assert "libthunderserve.so" not in command("readelf", "-d", tmp_path / "consumer")
    assert ask(tmp_path / "consumer", prefix, cluster) == expected


@pytest.mark.parametrize("target", ["client", "client_static"])
def test_cmake_package(prefix, cluster, expected, tmp_path, target):
    example = prefix / "share" / "thunderserve" / "examples" / "generate.c"
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\n"
        "project(consumer C)\n"
        "find_package(thunderserve 0.1 REQUIRED)\n"
        f"add_executable(consumer {example})\n"
        f"target_link_libraries(consumer PRIVATE thunderserve::{target})\n")
    command("cmake", "-G", "Ninja", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_C_COMPILER={CC}",
            f"-DCMAKE_C_FLAGS={' '.join(SANITIZE)}")
    command("cmake", "--build", tmp_path / "build")
    assert ask(tmp_path / "build" / "consumer", prefix, cluster) == expected


def test_python_package(prefix, cluster, expected):
    env = {**os.environ, "PYTHONPATH": str(prefix / "lib" / "python3" / "dist-packages")}
    example = prefix / "share" / "thunderserve" / "examples" / "stream.py"
    assert command("/usr/bin/python3", "-B", example, cluster.router, PROMPT, env=env) == expected


def test_header_is_plain_c99(prefix):
    header = pathlib.Path(prefix / "include" / "thunderserve" / "ts_client.h")
    command(CC, "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c", header)
