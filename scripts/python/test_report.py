"""Reads ctest's JUnit file: prints every skip, refuses those without a good reason, ends with the counts.

A whole test skips by exit code 77, a cmocka case by skip(), a pytest case by pytest.skip(). Each must be explained in the
output of its test by as many reasons `SKIP: no-gpu ...` (or no-kernel-feature, no-privilege); pytest prints its reason by itself.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree

REASONS = r"(no-gpu|no-kernel-feature|no-privilege)\b"


def skips_of(case):
    """Returns (lines that tell of a skip, number of skips without a good reason)."""
    output = case.findtext("system-out") or ""
    told = re.findall(r"^.*\bSKIP: .*$", output, re.M)
    good = [line for line in told if re.search(r"\bSKIP: " + REASONS, line)]
    cases = re.findall(r"^\[  SKIPPED \] (?!\d+ test)\w+.*$", output, re.M)
    bad = len(told) - len(good)
    pytest_lines = re.findall(r"^SKIPPED \[\d+\] .*$", output, re.M)
    bad += sum(not re.search(REASONS, line) for line in pytest_lines)
    # cmocka names a skipped case a second time in its summary.
    bad += max(0, len(set(cases)) - len(good))
    whole = case.get("status") in ("notrun", "disabled")
    if whole and not good and not pytest_lines:
        bad += 1
    return told + pytest_lines + cases, bad, whole


def main():
    suite = ElementTree.parse(sys.argv[1]).getroot()
    passed = failed = skipped = refused = 0
    for case in suite.iter("testcase"):
        name = case.get("name")
        lines, bad, whole = skips_of(case)
        for line in dict.fromkeys(lines):
            print(f"skipped: {name}: {line.strip()}")
        if bad:
            print(f"skipped: {name}: {bad} skips without an accepted reason")
            refused += bad
        if whole:
            skipped += 1
        elif case.get("status") == "run":
            passed += 1
        else:
            failed += 1
            print(f"failed: {name}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0 or refused > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
