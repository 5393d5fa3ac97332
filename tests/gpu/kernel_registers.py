"""Reads what ptxas said of each kernel: none may keep arrays in local memory or spill registers, each must be there for every architecture.
kernel_registers.py ARCHS REPORT...; prints a table.
"""

import re
import sys

PART = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_(\w+)'\n.*?\n\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r".*?Used (\d+) registers", re.S)


def kernels_of(path):
    """(name, architecture, bytes of stack, of spills, registers) of each kernel."""
    with open(path, encoding="utf-8") as report:
        text = report.read()
    found = [(m[1], m[2], int(m[3]), int(m[4]) + int(m[5]), int(m[6])) for m in PART.finditer(text)]
    if len(found) != text.count("Compiling entry function"):
        sys.exit(f"{path}: ptxas says it in other words than this test knows")
    return found


def main():
    archs, reports = set(sys.argv[1].split(",")), sys.argv[2:]
    faults = []
    for path in reports:
        found = kernels_of(path)
        for name, arch, stack, spills, registers in found:
            print(f"{name} sm_{arch}: {registers} registers, {stack} bytes of local memory, {spills} bytes spilled")
            if stack or spills:
                faults.append(f"{name} for sm_{arch} is not in registers alone")
        for name in {kernel[0] for kernel in found} or {path}:
            missing = archs - {kernel[1] for kernel in found if kernel[0] == name}
            if missing:
                faults.append(f"{name} was not compiled for {sorted(missing)}")
    for fault in faults:
        print(fault)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
