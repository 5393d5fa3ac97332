"""Whether two processes of this machine can share memory of its GPU (CUDA IPC), and whether the MPS daemon starts; needs the driver alone.

gpu_probe.py [--mps DIR]: prints `NAME: yes|no: detail` for each. The daemon is started with its own folders below DIR and quit again; no setting
of the device is touched.
"""

import argparse
import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import time

BYTES = 256 << 20
PATTERN, ANSWER = 0x5E, 0xA7
ROUNDS = 10


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char * 64)]


class Device:
    """The first device, by the driver; every call that fails raises with the driver's words."""

    def __init__(self):
        self.library = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)
        self.device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)
        self.stream = ctypes.c_void_p()
        self.call("cuStreamCreateWithPriority", ctypes.byref(self.stream), 1, 0)

    def call(self, name, *args):
        result = getattr(self.library, name)(*args)
        if result:
            words = ctypes.c_char_p()
            self.library.cuGetErrorName(result, ctypes.byref(words))
            raise OSError(f"{name}: {(words.value or b'?').decode()} ({result})")

    def alloc(self, size):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address

    def wait(self):
        self.call("cuStreamSynchronize", self.stream)

    def fill(self, address, value):
        self.call("cuMemsetD8Async", address, ctypes.c_ubyte(value), ctypes.c_size_t(BYTES), self.stream)
        self.wait()

    def byte(self, address, at):
        value = ctypes.c_ubyte()
        self.call("cuMemcpyDtoHAsync_v2", ctypes.byref(value), ctypes.c_uint64(address.value + at), ctypes.c_size_t(1), self.stream)
        self.wait()
        return value.value

    def copy_rate(self, to, of):
        """GB/s of a copy, counting what is read and what is written."""
        for i in range(ROUNDS + 1):
            if i == 1:
                self.wait()
                started = time.perf_counter()
            self.call("cuMemcpyDtoDAsync_v2", to, of, ctypes.c_size_t(BYTES), self.stream)
        self.wait()
        return 2 * ROUNDS * BYTES / (time.perf_counter() - started) / 1e9


def other_process(text):
    """The process that maps what the first one made: reads it, copies from it, and answers in it."""
    device = Device()
    handle = Handle.from_buffer_copy(bytes.fromhex(text))
    mapped = ctypes.c_uint64()
    started = time.perf_counter()
    device.call("cuIpcOpenMemHandle_v2", ctypes.byref(mapped), handle, 1)
    took = time.perf_counter() - started
    for at in (0, BYTES // 2, BYTES - 1):
        if device.byte(mapped, at) != PATTERN:
            raise OSError("the mapped memory has not what the other process wrote")
    rate = device.copy_rate(device.alloc(BYTES), mapped)
    device.fill(mapped, ANSWER)
    device.call("cuIpcCloseMemHandle", mapped)
    print(f"mapped in {took * 1e3:.2f} ms, copied from at {rate:.0f} GB/s", flush=True)


def ipc():
    """One line of detail; raises where it does not work."""
    device = Device()
    memory = device.alloc(BYTES)
    device.fill(memory, PATTERN)
    handle = Handle()
    device.call("cuIpcGetMemHandle", ctypes.byref(handle), memory)
    done = subprocess.run([sys.executable, "-B", __file__, "--other", bytes(handle).hex()], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["the other process failed"])[-1])
    if device.byte(memory, BYTES - 1) != ANSWER:
        raise OSError("what the other process wrote is not there")
    return done.stdout.strip()


class Mps:
    """The daemon with its own folders; `environment` is that of its clients."""

    def __init__(self, folder):
        self.program = shutil.which("nvidia-cuda-mps-control")
        if not self.program:
            raise OSError("nvidia-cuda-mps-control is not installed")
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for name in ("pipe", "log"):
            (pathlib.Path(folder) / name).mkdir(exist_ok=True)
        done = subprocess.run([self.program, "-d"], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True, timeout=20, check=False)
        if done.returncode:
            raise OSError(f"the daemon does not start: {done.stderr.strip()}")

    def ask(self, command):
        return subprocess.run([self.program], input=command + "\n", env=self.environment, capture_output=True, text=True, timeout=20, check=False).stdout

    def close(self):
        self.ask("quit")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def mps(folder):
    with Mps(folder) as daemon:
        done = subprocess.run([sys.executable, "-B", __file__, "--ipc"], env=daemon.environment, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or ["its client failed"])[-1])
        servers = daemon.ask("get_server_list").split()
        if not servers:
            raise OSError("no server came up: the clients used the device without it")
        return f"CUDA IPC under it: {done.stdout.strip()}"


def answer(name, probe, *args):
    try:
        print(f"{name}: yes: {probe(*args)}", flush=True)
    except (OSError, AttributeError, subprocess.TimeoutExpired) as fault:
        print(f"{name}: no: {fault}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mps", metavar="DIR", help="folder of the daemon's pipes and logs")
    parser.add_argument("--ipc", action="store_true", help="memory between two processes alone")
    parser.add_argument("--other", metavar="HANDLE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.other:
        other_process(options.other)
    elif options.ipc:
        print(ipc())
    else:
        answer("CUDA IPC", ipc)
        if options.mps:
            answer("MPS", mps, options.mps)


if __name__ == "__main__":
    main()
