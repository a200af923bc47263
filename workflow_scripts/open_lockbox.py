"""open_lockbox: the primary question, asked once more on the images that nothing was fitted or chosen on.

Each classifier of the primary arm, its control and its baseline predicts all lockbox images, and decides by the
thresholds that were fitted on its own fold's calibration part; nothing is fitted here. Decisions of a repeat's folds
are pooled before F1, average precision is taken for each classifier and averaged, repeats are averaged: an average over
classifiers, not the score of their committee. Intervals resample the lockbox's groups and, with repeats, hold the luck
of training. Every opening is a line of the ledger, which no rule owns. Makes
  lockbox.csv    scores and paired differences, per image and per protein
  lockbox.json   what was scored, the classes judged, the answer, notes

    python -m workflow_scripts.open_lockbox --images images.h5 --folds 0=repeat0/folds.csv \\
        --arms repeat0/fold0/arms/job0.json --declaration declaration.json --analysis analysis.json \\
        --thresholds thresholds.csv --leaks leaks.csv --ledger results/lockbox_openings.jsonl --table lockbox.csv \\
        --out lockbox.json --seed 1 \\
        --settings '{"run": "demo", "analysis": {"primary_arm": "pool", ...}, "arms": [...], "threads": 1}'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet, Part, select_channels
from workflow_scripts.lib.judge import declaration, fixed_scoring, inference, lockbox_ledger, scoring, wording
from workflow_scripts.lib.judge.comparisons import Pair
from workflow_scripts.lib.judge.fixed_scoring import Decided, Drawn
from workflow_scripts.lib.judge.lockbox_ledger import Box
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.scores import arm_list
from workflow_scripts.lib.scores.prediction_file import Scored
from workflow_scripts.lib.split import role_table

COLUMNS = ["what", "arm", "against", "relation", "metric", "level", "value", "low", "high", "low_single"]
COLUMNS += ["high_single", "standing", "verdict", "detectable", "classes"]
LEAK = "LEAK"
NOTES = (
    "Thresholds were fitted on the calibration parts of the run's folds and on nothing else; the lockbox changes none.",
    "A score is the average over the classifiers of all folds and repeats, each of which predicted all lockbox images.",
    "Thresholds are the same in every draw: the intervals hold nothing of the luck of choosing them.",
)
Row = dict[str, Any]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", nargs="+", required=True, metavar="REPEAT=CSV", help="each repeat's table of roles")
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--declaration", type=Path, required=True, help="what was declared beforehand (JSON)")
    out.add_argument("--analysis", type=Path, required=True, help="the judged run (JSON)")
    out.add_argument("--thresholds", type=Path, required=True, help="thresholds of all arms and folds (CSV)")
    out.add_argument("--leaks", type=Path, required=True, help="the leak certificate")
    out.add_argument("--ledger", type=Path, required=True, help="all openings of all runs, a line each; added to")
    out.add_argument("--table", type=Path, required=True, help="scores and differences to write (CSV)")
    out.add_argument("--out", type=Path, required=True, help="what was found, to write (JSON)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    return out.parse_args(argv)


@dataclass(frozen=True)
class Member:
    """A classifier of the run: where it lies, and its thresholds by level (K,)."""

    path: Path
    classifier: Classifier
    thresholds: dict[str, np.ndarray]


def open_lockbox(args: argparse.Namespace) -> None:
    """Check that the run is finished and clean, write down the opening, predict, score, write the result down."""
    settings = args.settings
    analysis, arms = settings["analysis"], settings["arms"]
    device.use_threads(settings["threads"])
    pairs = fixed_scoring.question(analysis, arms)
    declared, run_judged = read_declaration(args, analysis, arms)
    with ImageSet(args.images) as source:
        box = find_box(args, source)
        members = read_members(args, fixed_scoring.arms_of(pairs), source, box)
        judged, left = judged_classes(source, box, run_judged, analysis)
        entry = entry_of(args, source, box, declared, members)
        begun = lockbox_ledger.begin(args.ledger, entry)
        stage.log.info(
            "the lockbox is opened: %d images of %d groups, %s", len(box.rows), box.groups, ", ".join(members)
        )
        tables = predict(source.read(box.rows, "score"), source.channels, members)
        classes = source.classes
    rows = judge(tables, pairs, analysis, judged, args.seed)
    repeats = len({repeat for cells in members.values() for repeat, _ in cells})
    result = conclude(rows, analysis, arms, box, repeats, int(judged.sum()))
    entries = lockbox_ledger.read_ledger(args.ledger)
    before = lockbox_ledger.openings([other for other in entries if other != begun], box, entry["images_digest"])
    history = told(declared, before, entry)
    about = {name: entry[name] for name in ("run", "declaration", "images", "groups", "ids_digest", "arms")}
    about |= {"judged": [name for name, kept in zip(classes, judged, strict=True) if kept], "not_judged": left}
    about |= {"opening": len(before.ended) + 1, "notes": [*NOTES, *history]}
    with files.atomic(args.table) as part:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(part, index=False, float_format="%.9g", lineterminator="\n")
    files.write_json(args.out, wording.plain(about | result))
    # Last, so that whoever was killed before goes on with the line that was begun, and no opening has two.
    lockbox_ledger.finish(args.ledger, begun, wording.plain(result))
    stage.log.info("%s", result["answer"]["sentence"])
    for note in history:
        stage.log.warning("%s", note)
    stage.log.info("the page of the run tells it when it is made again: run snakemake once more")


def read_declaration(
    args: argparse.Namespace, analysis: dict[str, Any], arms: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """What was declared, and the classes that the run judged; refuses a run not finished under this analysis."""
    declared, judged = (json.loads(path.read_text(encoding="utf-8")) for path in (args.declaration, args.analysis))
    hashed = declaration.declaration_hash(analysis, arms)
    for path, found in ((args.declaration, declared), (args.analysis, judged)):
        if found.get("hash") != hashed:
            raise UserError(
                f"{path} has another analysis (hash {found.get('hash')}) than the settings ({hashed}): run the "
                "workflow to its end under these settings before the lockbox is opened"
            )
    certificate = pd.read_csv(args.leaks, dtype=str, keep_default_na=False)
    if "status" not in certificate or (certificate["status"] == LEAK).any():
        raise UserError(f"{args.leaks} is no certificate of a run without leaks: mend the run first")
    return declared, list(judged["judged"])


def find_box(args: argparse.Namespace, source: ImageSet) -> Box:
    """The lockbox by the folds of all repeats."""
    roles = {}
    for repeat, path in data_section.numbered(args.folds):
        with path.open(encoding="utf-8") as handle:
            count = sum(name.startswith("fold") for name in handle.readline().strip().split(","))
        roles |= {(repeat, fold): role_table.read(path, fold, source.ids) for fold in range(count)}
    box = lockbox_ledger.find(source.ids, source.groups, roles)
    if box is None:
        raise UserError(lockbox_ledger.NO_LOCKBOX)
    return box


def read_members(
    args: argparse.Namespace, names: list[str], source: ImageSet, box: Box
) -> dict[str, dict[tuple[int, int], Member]]:
    """The classifiers of some arms in all folds and repeats; refuses one that knows a lockbox image or a relative."""
    thresholds = read_thresholds(args.thresholds, names, source.classes)
    closed = np.isin(source.groups, source.groups[box.rows])
    out: dict[str, dict[tuple[int, int], Member]] = {name: {} for name in names}
    for manifest in args.arms:
        for entry in arm_list.read(manifest):
            if entry["arm"] not in out:
                continue
            path = entry["classifier"]
            found = classifier_file.read(path)
            place, record = (found.repeat, found.fold), Provenance.from_json(found.provenance)
            if (found.classes, found.size, record.images) != (source.classes, source.size, source.digest):
                raise UserError(f"{path} was trained on another image set than {args.images}: run again")
            for purpose in ("fit", "select", "threshold"):
                if closed[record.of(purpose)].any():
                    raise UserError(
                        f"{path} knows {int(closed[record.of(purpose)].sum())} images of lockbox groups (purpose "
                        f"{purpose!r}): what it says of the lockbox means nothing"
                    )
            if (entry["arm"], *place) not in thresholds:
                raise UserError(
                    f"{args.thresholds} has no threshold of arm {entry['arm']!r} in repeat {place[0]}, fold "
                    f"{place[1]}: delete it and run again"
                )
            out[entry["arm"]][place] = Member(path, found, thresholds[entry["arm"], *place])
    places = sorted({place for cells in out.values() for place in cells})
    for name, cells in out.items():
        missing = [place for place in places if place not in cells] or ([("none", "none")] if not cells else [])
        if missing:
            raise UserError(f"arm {name!r} has no classifier of repeat {missing[0][0]}, fold {missing[0][1]}: train it")
    return {name: dict(sorted(cells.items())) for name, cells in out.items()}


def read_thresholds(
    path: Path, names: list[str], classes: list[str]
) -> dict[tuple[str, int, int], dict[str, np.ndarray]]:
    """(arm, repeat, fold) -> level -> thresholds (K,), as aggregate_metrics fitted them."""
    text = {"arm": str, "class": str, "level": str}
    table = pd.read_csv(path, dtype=text, keep_default_na=False)
    table = table[table["arm"].isin(names)]
    out: dict[tuple[str, int, int], dict[str, np.ndarray]] = {}
    for (arm, repeat, fold, level), rows in table.groupby(["arm", "repeat", "fold", "level"]):
        values = dict(zip(rows["class"], rows["threshold"].astype(float), strict=True))
        absent = [name for name in classes if name not in values]
        if absent:
            raise UserError(f"{path} has no threshold of arm {arm!r} for class {absent[0]!r}: run again")
        place = (str(arm), int(repeat), int(fold))
        out.setdefault(place, {})[str(level)] = np.array([values[name] for name in classes])
    return {place: levels for place, levels in out.items() if set(levels) >= set(scoring.LEVELS)}


def judged_classes(
    source: ImageSet, box: Box, run_judged: list[str], analysis: dict[str, Any]
) -> tuple[np.ndarray, list[Row]]:
    """Classes that the run judged and that have as many positive groups in the lockbox, bool (K,), and the others.

    Decided by counts, before anything is predicted."""
    labels = source.labels(box.rows, "inspect").astype(bool)
    groups, minimum = source.groups[box.rows], analysis["minimum_positive_groups"]
    positive = np.array([len(np.unique(groups[column])) for column in labels.T])
    known = np.isin(source.classes, run_judged)
    judged = known & (positive >= minimum)
    if not judged.any():
        raise UserError(
            f"no class that the run judged has {minimum} positive groups in the lockbox, so it can decide nothing and "
            "stays closed: give it a larger share (make_folds.fractions.lockbox) and train again"
        )
    left = [
        {"class": source.classes[k], "positive_groups": int(positive[k])}
        | {"reason": f"{minimum} positive groups needed" if known[k] else "not judged in the run"}
        for k in np.flatnonzero(~judged)
    ]
    return judged, left


def entry_of(
    args: argparse.Namespace,
    source: ImageSet,
    box: Box,
    declared: dict[str, Any],
    members: dict[str, dict[tuple[int, int], Member]],
) -> Row:
    """The line of the ledger, but for the times and the result; `task` tells this opening from any other."""
    found = [[name, *place, one.classifier.digest] for name, cells in members.items() for place, one in cells.items()]
    entry = {
        "run": args.settings["run"],
        "seed": args.seed,
        "declaration": declared["hash"],
        "experiment": declared.get("experiment", ""),
        "declared_at": declared["declared_at"],
        "ids_digest": box.digest,
        "images_digest": source.digest,
        "images": len(box.rows),
        "groups": box.groups,
        "arms": list(members),
        "classifiers": len(found),
    }
    return entry | {"task": files.digest([entry, found, files.file_digest(args.thresholds)])}


def predict(
    part: Part, channels: list[str], members: dict[str, dict[tuple[int, int], Member]]
) -> dict[str, dict[str, list[Decided]]]:
    """level -> arm -> what each of its classifiers says of the lockbox images, with its thresholds."""
    _, groups = np.unique(part.groups.astype(str), return_inverse=True)
    labels, where = part.labels.astype(bool), device.device()
    out: dict[str, dict[str, list[Decided]]] = {level: {name: [] for name in members} for level in scoring.LEVELS}
    with Progress("classifiers", sum(len(cells) for cells in members.values())) as bar:
        for name, cells in members.items():
            for (repeat, fold), member in cells.items():
                pixels = select_channels(part.images, channels, member.classifier.channels)
                network = member.classifier.network(where)
                logits = classifier_file.predict(network, pixels, member.classifier.mean, member.classifier.std)
                if not np.isfinite(logits).all():
                    raise UserError(f"{member.path} answers with what is no number: its training diverged")
                scores = Scored(part.ids, part.groups, part.labels, logits).probabilities
                table = scoring.Table(scores, labels, groups)
                for level, rows in (("image", table), ("protein", scoring.per_protein(table))):
                    out[level][name].append(Decided(repeat, fold, rows, member.thresholds[level]))
                bar.update(sum(map(len, out["image"].values())))
    return out


def judge(
    tables: dict[str, dict[str, list[Decided]]],
    pairs: list[Pair],
    analysis: dict[str, Any],
    judged: np.ndarray,
    seed: int,
) -> list[Row]:
    """Rows of lockbox.csv: the scores of the arms and their paired differences, tested in the order of the run (the
    primary arm beside its baseline, then its control, each by itself); a verdict stands where the primary arm is
    compared with its baseline in the declared metric and level."""
    rows: list[Row] = []
    own = derive(seed, "lockbox")
    groups = 1 + max(int(cell.table.groups.max()) for cells in tables["image"].values() for cell in cells)
    weights = inference.group_weights(own, groups, analysis["draws"])
    first = [i for i, pair in enumerate(pairs) if pair.arm == analysis["primary_arm"]]
    for level, arms in tables.items():
        scores = {
            name: fixed_scoring.score(cells, analysis["threshold_rule"], weights, judged)
            for name, cells in arms.items()
        }
        for metric in scoring.METRICS:
            about = {"metric": metric, "level": level, "classes": int(judged.sum())}
            rows += [about | row for row in _score_rows(scores, metric, analysis["confidence"], own)]
            found = fixed_scoring.compare(scores, pairs, metric, analysis["confidence"], own, first)
            standing = inference.standing(found, first)
            for i, pair in enumerate(pairs):
                row = {"what": "difference", "arm": pair.arm, "against": pair.against}
                row["standing"] = standing[i]
                row |= {"relation": pair.relation, "value": found.estimate[i], "low": found.low[i]}
                row |= {"high": found.high[i], "low_single": found.low_single[i], "high_single": found.high_single[i]}
                rows.append(about | row)
                if pair.relation == "baseline" and pair.arm == analysis["primary_arm"]:
                    control = [j for j, other in enumerate(pairs) if other.relation == "control"]
                    rows[-1]["detectable"] = found.detectable([i, *control])
                    if (metric, level) == (analysis["metric"], analysis["level"]):
                        beyond = (found.low[control[0]], found.high[control[0]]) if control else None
                        rows[-1]["verdict"] = inference.verdict(
                            found.low[i], found.high[i], analysis["smallest_effect"], beyond
                        )
    return rows


def _score_rows(scores: dict[str, Drawn], metric: str, confidence: float, seed: int) -> list[Row]:
    plain, draws = (np.array([getattr(one, name)[metric] for one in scores.values()]) for name in ("values", "draws"))
    found = inference.intervals(plain, draws, confidence, seed)
    return [
        {"what": "score", "arm": name, "value": found.estimate[i]}
        | {"low_single": found.low_single[i], "high_single": found.high_single[i]}
        for i, name in enumerate(scores)
    ]


def conclude(
    rows: list[Row],
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    box: Box,
    repeats: int,
    judged: int,
) -> dict[str, Any]:
    """What the ledger and the page tell: the answer, as that of the run is put, and the scores behind it."""
    declared = [row for row in rows if (row["metric"], row["level"]) == (analysis["metric"], analysis["level"])]
    primary = {
        (row["arm"], row["relation"]): row | {"difference": row["value"], "verdict": row.get("verdict", "")}
        for row in declared
        if row["what"] == "difference"
    }
    sizes = {"repeats": repeats, "test_images": len(box.rows), "test_groups": box.groups}
    said = wording.answer(analysis, arms, primary, sizes, judged)
    scores = {row["arm"]: row["value"] for row in declared if row["what"] == "score"}
    return {"answer": said, "sizes": sizes, "judged_classes": judged, "scores": scores}


def told(declared: dict[str, Any], before: lockbox_ledger.Openings, entry: Row) -> list[str]:
    """What a reader of the result must know of its history."""
    out = []
    if declared["predictions"] or declared["earlier"]:
        out.append(wording.registered(declared))
    if before.ended:
        out.append(f"These images had been {before.words()} before: this is no first look at them.")
    other = sorted({found["declaration"] for found in before.ended} - {entry["declaration"]})
    if other:
        out.append(f"Then another analysis was declared (hash {', '.join(other)}; now {entry['declaration']}).")
    if before.of_other_boxes:
        out.append(f"Of the same image set, other lockboxes had been opened before: {before.of_other_boxes} openings.")
    if before.unfinished:
        out.append(f"{len(before.unfinished)} earlier openings were begun and never came to a result.")
    return out


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    args = parse_args(argv)
    return stage.run("open_lockbox", args, lambda: open_lockbox(args))


if __name__ == "__main__":
    sys.exit(main())
