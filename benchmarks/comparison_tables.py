"""The tables of `docs/compare.md`, made from the stored results of other benchmarks.

    python benchmarks/comparison_tables.py [fmd fmd-four …]
    python benchmarks/comparison_tables.py --into docs/compare.md

Without `--into` they are printed; with it each is put between its marks in the document, so that
what stands there is what is stored (a test holds the two together).

Owns no figure: every cell is read from `benchmarks/results`, and what is not there is left empty.
Means are over all images of a table; a method that was measured on fewer is not among them.

fmd         one noisy image in, the mean over the 48 images of the FMD mixed test set
fmd-four    four noisy images in
fmd-few     methods that were measured on a few scenes, beside `auto` on the same
fmd-fourth  the fourth image, by what has learned from it and by what has not
fmd-seeds   the spread over seeds
fmd-scenes  what `auto` trains on each scene, and what that reaches
fmd-wide    the scenes whose pixels share noise
nandb       real photon counts, six stacks
pairs       single noisy images, FISH and w2s
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

RESULTS = Path(__file__).parent / "results"

ALL_SCENES = 12
WIDE = "WideField"
PUBLISHED = {
    "VST+NLM": 31.25,
    "PURE-LET": 31.95,
    "VST+BM3D": 32.71,
    "Noise2Noise, pretrained": 34.70,
}
"""Mean PSNR over the 48 images, Zhang et al. 2019, table of the mixed test set."""
FIRST_SEED = 0
STEPS = 1_200
LEARNED, FILTERS = "comparison_fmd_learned.json", "comparison_fmd.json"
HELD_OUT = ", fourth image held out"


def stored(file: str) -> list[Row]:
    path = RESULTS / file
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.is_file() else []


def table(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Return a table in Markdown."""
    written = [[str(cell) if cell is not None else "" for cell in line] for line in lines]
    rows = [list(head), ["---"] * len(head), *written]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def db(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.mean(known)) if known else None


# ------------------------------------------------------------------------------------- FMD


def learned(seed: int = FIRST_SEED) -> list[Row]:
    return [row for row in stored(LEARNED) if (row["seed"], row["steps"]) == (seed, STEPS)]


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _of_white_noise(rows: Iterable[Row]) -> bool:
    """Whether a method was measured on all scenes whose pixels share no noise."""
    known = {row["scene"] for row in stored(FILTERS) if not row["scene"].startswith(WIDE)}
    return known <= {row["scene"] for row in rows}


def _line(
    name: str, learned_from: str, rows: Sequence[Row], figure: Callable[[Row], float]
) -> tuple[float, Sequence[Any]]:
    whole = mean(map(figure, rows)) if len(rows) == ALL_SCENES else None
    wide = mean(figure(row) for row in rows if row["scene"].startswith(WIDE))
    rest = mean(figure(row) for row in rows if not row["scene"].startswith(WIDE))
    ms = [row["cpu_ms_per_frame"] for row in rows if "cpu_ms_per_frame" in row]
    parameters = sorted({row["parameters"] for row in rows if "parameters" in row})
    seconds = [row["cpu_seconds"] for row in rows if "steps_taken" in row]
    cells = (
        name,
        learned_from,
        "" if whole is None else f"**{whole:.2f}**",
        db(rest),
        db(wide),
        ", ".join(f"{count:,}" for count in parameters),
        f"{np.median(seconds):.0f}" if seconds else "",
        f"{np.median(ms):.0f}" if ms else "",
    )
    return whole or 0.0, cells


FMD_HEAD = (
    "method",
    "learned from",
    "all",
    "confocal, two-photon",
    "wide-field",
    "parameters",
    "training, CPU s",
    "CPU ms per image",
)


def fmd() -> str:
    """Return what was measured on all scenes, or on all of white noise, one noisy image in."""

    def figure(row: Row) -> float:
        return float(np.mean(row["psnr_db"]))

    lines = [
        (value, (f"published: {name}", "", f"**{value:.2f}**", "", "", "", "", ""))
        for name, value in PUBLISHED.items()
    ]
    blurs = [row for row in stored("training_correlated.json") if row["method"] == "gaussian"]
    lines.append(_line("`gaussian`, width by the truth", "the truth", blurs, figure))
    for method, rows in by_method(r for r in stored(FILTERS) if r["frames"] == 1).items():
        if _of_white_noise(rows):
            name = "as recorded" if method == "identity" else f"`{method}`"
            lines.append(_line(name, "nothing", rows, figure))
    lines += [
        _line(f"`{method}`", rows[0]["learned_from"], rows, figure)
        for method, rows in by_method(learned()).items()
        if _of_white_noise(rows)
    ]
    return table(FMD_HEAD, (cells for _, cells in sorted(lines, key=lambda line: line[0])))


def fmd_four() -> str:
    """Return the methods that are given all four noisy images."""
    lines = []
    for method, rows in by_method(r for r in stored(FILTERS) if r["frames"] == 4).items():
        if len(rows) == ALL_SCENES:
            name = "mean of four" if method == "identity" else f"mean of four, `{method}`"
            lines.append(_line(name, "nothing", rows, lambda row: row["psnr_db"][0]))
    lines += [
        _line(
            f"`{method}` of each, mean of the four",
            rows[0]["learned_from"],
            rows,
            lambda row: row["psnr_of_mean_db"],
        )
        for method, rows in by_method(learned()).items()
        if len(rows) == ALL_SCENES
    ]
    return table(FMD_HEAD, (cells for _, cells in sorted(lines, key=lambda line: line[0])))


def fmd_few() -> str:
    """Return, scene by scene, what was not measured on all of them."""
    rows = learned()
    few = [m for m, own in by_method(rows).items() if len(own) < ALL_SCENES]
    scenes = sorted({row["scene"] for row in rows if row["method"] in few})
    figures = {(row["method"], row["scene"]): float(np.mean(row["psnr_db"])) for row in rows}
    plain = [method for method in few if not method.endswith(HELD_OUT)]
    lines = [
        (f"`{method}`", *(db(figures.get((method, scene))) for scene in scenes))
        for method in ["auto", *plain]
    ]
    return table(("method", *scenes), lines)


def fmd_fourth() -> str:
    """Return what learning from an image brings to that very image."""
    rows = learned()
    fourth = {(row["method"], row["scene"]): row["psnr_db"][-1] for row in rows}
    held = [
        (f"`{name}`", scene, db(fourth.get((name, scene))), db(value))
        for (method, scene), value in fourth.items()
        if method.endswith(HELD_OUT) and (name := method.removesuffix(HELD_OUT))
    ]
    return table(
        ("method", "scene", "fourth image, learned from four", "from the other three"), held
    )


def fmd_seeds() -> str:
    """Return the spread of what was trained more than once."""
    seeds: dict[tuple[str, str], list[float]] = {}
    for row in stored(LEARNED):
        if row["steps"] == STEPS and not row["method"].endswith(HELD_OUT):
            key = (row["method"], row["scene"])
            seeds.setdefault(key, []).append(float(np.mean(row["psnr_db"])))
    spread = [
        (f"`{method}`", scene, len(own), db(mean(own)), f"{np.std(own, ddof=1):.3f}")
        for (method, scene), own in seeds.items()
        if len(own) > 1
    ]
    return table(("method", "scene", "seeds", "mean", "standard deviation"), spread)


def fmd_scenes() -> str:
    """Return what was chosen without truth on each scene."""
    best = {}
    for row in stored(FILTERS):
        if row["frames"] == 1:
            figure = float(np.mean(row["psnr_db"]))
            best[row["scene"]] = max(best.get(row["scene"], (0.0, "")), (figure, row["method"]))
    by = {(row["method"], row["scene"]): row for row in learned()}
    lines = []
    for scene in sorted(best):
        auto, general = by.get(("auto", scene)), by.get(("general", scene))
        lines.append(
            (
                scene,
                db(best[scene][0]) + f" (`{best[scene][1]}`)",
                general and db(float(np.mean(general["psnr_db"]))),
                auto and db(float(np.mean(auto["psnr_db"]))),
                auto and f"`{auto['algorithm']}`",
                auto and f"{auto['neighbours_share']:.2f}",
                auto and f"{auto['z']:.2f}",
            )
        )
    head = ("scene", "best filter, by the truth", "`general`", "`auto`", "which is", "share", "z")
    return table(head, lines)


def fmd_wide() -> str:
    """Return, for the scenes whose pixels share noise, one image in."""
    blurs = {
        row["scene"]: f"{row['psnr_db']:.2f} (σ {row['sigma_px']:g} px)"
        for row in stored("training_correlated.json")
        if row["method"] == "gaussian"
    }
    raw = {
        row["scene"]: db(float(np.mean(row["psnr_db"])))
        for row in stored(FILTERS)
        if (row["method"], row["frames"]) == ("identity", 1)
    }
    by = {
        (row.get("algorithm", row["method"]), row["scene"]): db(float(np.mean(row["psnr_db"])))
        for row in learned()
        if not row["method"].endswith(HELD_OUT)
    }
    names = list(dict.fromkeys(name for name, scene in by if scene.startswith(WIDE)))
    lines = [
        (scene, raw[scene], blurs.get(scene), *(by.get((name, scene)) for name in names))
        for scene in sorted(raw)
        if scene.startswith(WIDE)
    ]
    head = ("scene", "as recorded", "best blur, by the truth", *(f"`{name}`" for name in names))
    return table(head, lines)


# ------------------------------------------------------------------------- nandb, single images


def nandb() -> str:
    """Return what is stored of the six stacks; the two sets of frames stand apart."""
    return table(
        ("given", "method", "learned from", "steps", "PSNR, dB", "seeds", "of"),
        [*_nandb_trained(), *_nandb_untrained()],
    )


def _nandb_trained() -> list[Sequence[Any]]:
    lines: list[Sequence[Any]] = []
    for row in stored("training_nandb.json"):
        given = "frame and 6 preceding" if row["method"] == "context" else "one frame"
        name = "lattice" if row["method"] == "context" else row["method"]
        source = "the truth of these scenes" if "supervised" in name else "the noisy frames"
        budget = "2.5 min, two cores"
        lines.append((given, name, source, row["steps"], db(row["psnr_db"]), 1, budget))
    found: dict[tuple[str, str], list[Row]] = {}
    for row in stored("training_methods.json"):
        if row.get("seconds"):
            key = (row["method"], f"{row['seconds']:g} s, one core")
            found.setdefault(key, []).append(row)
    for (method, budget), rows in found.items():
        spread = f" ± {np.std([r['psnr_db'] for r in rows], ddof=1):.2f}" if len(rows) > 1 else ""
        steps = " and ".join(map(str, rows[0]["steps"]))
        figure = db(mean(row["psnr_db"] for row in rows)) + spread
        source = rows[0]["learned_from"]
        lines.append(("one frame", method, source, steps, figure, len(rows), budget))
    return lines


def _nandb_untrained() -> list[Sequence[Any]]:
    lines: list[Sequence[Any]] = []
    for row in stored("training_general.json"):
        if not row["data"].startswith("nandb") or "trained" in row["method"]:
            continue
        given, _, frames = row["data"].removeprefix("nandb, ").partition(", ")
        source = "generated scenes" if row["method"] == "general" else "nothing"
        note = "two frames of each stack" if frames else "eight frames of each stack"
        lines.append((given, row["method"], source, "", db(row["psnr_db"]), "", note))
    return sorted(lines, key=lambda line: (line[-1], line[0], line[4]))


def pairs() -> str:
    """Return means over the single noisy images, of what was measured on all of them."""
    trained = [
        {
            "image": row["image"],
            "method": _of_pairs(row["method"]),
            "psnr_db": row["affine_psnr_db"],
        }
        for row in stored("training_pairs.json")
    ]
    filtered = [
        {"image": row["image"], "method": f"`{row['method']}`", "psnr_db": row["affine_psnr_db"]}
        for row in stored("comparison_pairs.json")
    ]
    images = {row["image"] for row in trained}
    general = [
        {"image": row["data"], "method": "`general`", "psnr_db": row["psnr_db"]}
        for row in stored("training_general.json")
        if row["method"] == "general" and row["data"] in images
    ]
    lines = [
        (float(np.mean(list(own.values()))), method, own)
        for method, own in _by_image([*trained, *filtered, *general]).items()
        if own.keys() == images
    ]
    return table(
        ("method", "FISH", "w2s, mean of seven", "mean"),
        (
            (
                method,
                db(own["fish"]),
                db(mean(v for k, v in own.items() if k != "fish")),
                db(whole),
            )
            for whole, method, own in sorted(lines, key=lambda line: line[0])
        ),
    )


def _of_pairs(method: str) -> str:
    if method == "as recorded":
        return method
    if " " in method or method == "wavelet":
        return f"scikit-image's {method}, calibrated"
    return f"`{method}`"


def _by_image(rows: Iterable[Row]) -> Mapping[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["image"]] = row["psnr_db"]
    return found


TABLES: dict[str, Callable[[], str]] = {
    "fmd": fmd,
    "fmd-four": fmd_four,
    "fmd-few": fmd_few,
    "fmd-fourth": fmd_fourth,
    "fmd-seeds": fmd_seeds,
    "fmd-scenes": fmd_scenes,
    "fmd-wide": fmd_wide,
    "nandb": nandb,
    "pairs": pairs,
}


def filled(document: str) -> str:
    """Return a document with the present table between each `<!-- table NAME -->` and its end."""
    marked = re.compile(r"(<!-- table ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", document)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("tables", nargs="*", help=", ".join(TABLES))
    arguments.add_argument("--into", type=Path, help="A document whose tables are made anew.")
    given = arguments.parse_args()
    if strange := set(given.tables) - set(TABLES):
        arguments.error(f"{', '.join(sorted(strange))}: expected some of {', '.join(TABLES)}")
    if given.into is not None:
        document = given.into.read_text(encoding="utf-8")
        given.into.write_text(filled(document), encoding="utf-8")
        return
    for name in given.tables or TABLES:
        print(f"### {name}\n\n{TABLES[name]()}")


if __name__ == "__main__":
    main()
