"""What scripts/gpu-check says at its end: our engine beside PyTorch, and each goal with its floor, what was reached and their ratio."""

import re

ENGINE, CODEC = "ts-cuda-engine-bench", "ts-cuda-codec-bench"
SIDES = ("ours", "ours int8", "ours invariant", "torch eager", "torch graph", "torch compiled")
DEFAULT_CODEC = "i4h"
CHUNK_KIB = 1024  # the codec's goal is for chunks of so many and more


def value(lines, **wanted):
    """Of the first row that has these cells, or None."""
    for row in lines:
        if all(row.get(name) == text for name, text in wanted.items()):
            return float(row["value"])
    return None


def beside(run):
    """Tokens/s and milliseconds to the first token of all sides."""
    rows = run.csv.get(ENGINE, []) + run.csv.get("torch", [])
    keys = []
    for row in rows:
        key = {name: row[name] for name in ("model", "what", "rows", "tokens", "unit")}
        if row["unit"] in ("tokens/s", "ms") and key not in keys:
            keys.append(key)
    table = [("model", "what", "rows", "tokens", "unit", *SIDES)]
    for key in keys:
        cells = [value(rows, side=side, **key) for side in SIDES]
        table.append((*key.values(), *("" if cell is None else f"{cell:.4g}" for cell in cells)))
    if len(table) > 1:
        run.say("\nour engine and PyTorch")
        run.print_table(table)


def codec_goals(rows):
    """The least share of the default codec and of all: of copies of a chunk's size where each has its launch, of large copies where one has all layers."""
    for codec, words in ((DEFAULT_CODEC, f"codec {DEFAULT_CODEC}"), (None, "all codecs")):
        for one, column, floor in ((True, "ratio", "copies of that size"), (False, "ratio_to_peak", "copies of 64 MiB")):
            shares = [(float(row[column]), f"{row['what']} {row['codec']} {row['dtype']} {row['head_dim']}, {row['chunk_kib']} KiB") for row in rows
                      if float(row["chunk_kib"]) >= CHUNK_KIB and (row["layers"] == "1") == one and codec in (None, row["codec"])]
            share, of = min(shares, default=(None, ""))
            launch = "a launch each" if one else "one launch for all layers"
            yield f"{words}, chunks of {CHUNK_KIB} KiB and more, {launch}", floor, of, share, 0.5


def goals(run):
    """(what, floor in words, what was reached in words, ratio or None, the least ratio that is the goal)."""
    engine, torch, pipeline = (run.csv.get(part, []) for part in (ENGINE, "torch", "pipeline"))
    copy = value(torch, what="copy, read and written")
    product = next((float(row["value"]) for row in torch if row["what"].startswith("bf16 product")), None)
    yield from codec_goals(run.csv.get(CODEC, []))

    def against(what, floor, unit, reached, least):
        words = ["" if number is None else f"{number:.4g} {unit}" for number in (floor, reached)]
        return what, *words, reached / floor if floor and reached else None, least
    yield against("8b decode, 1 row: bandwidth of copies", copy, "GB/s",
                  value(engine, side="ours", model="8b", what="decode", rows="1", unit="GB/s"), 0.75)
    yield against("8b, first token of 2048: matrix product", product, "TFLOP/s",
                  value(engine, side="ours", model="8b", what="first token", tokens="2048", unit="TFLOP/s"), 0.55)
    for model in ("8b", "1.1b"):
        ours = value(engine, side="ours", model=model, what="decode", rows="32", unit="tokens/s")
        for side, least in (("torch eager", 2), ("torch compiled", 1.2)):
            yield against(f"{model} decode, 32 rows: {side}", value(torch, side=side, model=model, what="decode", rows="32", unit="tokens/s"), "tokens/s",
                          ours, least)
    for row in pipeline:
        said = re.fullmatch(r"of (\d+) (prompts .*)", row["what"])
        if said:
            yield f"{row['processes']}: {said[2]}", said[1], row["value"], float(row["value"]) / float(said[1]), 1


def report(run):
    if not run.csv:
        return
    beside(run)
    table = [("goal", "floor", "reached", "ratio", "at least", "")]
    for what, floor, reached, ratio, least in goals(run):
        judged = "not measured" if ratio is None else "reached" if ratio >= least else "MISSED"
        table.append((what, floor, reached, "" if ratio is None else f"{ratio:.3f}", f"{least:g}", judged))
        run.figure("goals", what, ratio if ratio is not None else "", "", f"floor {floor}; reached {reached}; at least {least:g}: {judged}")
    run.say("\ngoals")
    run.print_table(table)
