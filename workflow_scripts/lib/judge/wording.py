"""What the page says first: the answer in numbers and one sentence, and what stands behind it (analysis.json)."""

from __future__ import annotations

from typing import Any

import numpy as np

from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.judge import comparisons, declaration, inference
from workflow_scripts.lib.judge.experiment import Experiment

NAMES = {"macro_f1": "macro-F1", "map": "mAP", "micro_f1": "micro-F1"}
ENDS = ("difference", "low", "high", "low_single", "high_single")
Row = dict[str, Any]


def report(
    found: Experiment,
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    judged: np.ndarray,
    counts: dict[str, dict[str, np.ndarray]],
    rows: list[Row],
    declared: dict[str, Any],
) -> dict[str, Any]:
    """The content of analysis.json, but for what thresholds were fitted on; `declared` is declaration.json."""
    primary = {
        (row["arm"], row["relation"]): row
        for row in rows
        if row["metric"] == analysis["metric"] and row["level"] == analysis["level"] and not row["class"]
    }
    size = sizes(found)
    told = {arm["name"]: _arm(found, arm, primary) for arm in arms}
    positive = counts["image"]["positive_groups"]
    by_class = {
        name: {"judged": bool(judged[k]), "positive_groups": int(positive[k])}
        | {"positives": int(counts["image"]["positives"][k])}
        for k, name in enumerate(found.classes)
    }
    return {
        "hash": declaration.declaration_hash(analysis, arms),
        "declaration": declaration.declaration(analysis, arms),
        "declared": declared,
        "analysis": analysis,
        "classes": by_class,
        "judged": [name for name, row in by_class.items() if row["judged"]],
        "not_judged": [
            {"class": name, "positive_groups": row["positive_groups"]}
            | {"reason": _too_few(int(fewest), analysis["minimum_positive_groups"])}
            for (name, row), fewest in zip(by_class.items(), positive, strict=True)
            if not row["judged"]
        ],
        "family": declaration.family(analysis, arms),
        "order": order(analysis, primary),
        "comparisons_in_family": sum(row["family"] == comparisons.PRIMARY for row in rows),
        "baseline": analysis["baseline"],
        "controls": {arm["name"]: arm.get("control") for arm in arms},
        "sizes": size,
        "arms": told,
        "verdicts": {name: arm["verdict"] for name, arm in told.items() if arm["verdict"]},
        "answer": answer(analysis, arms, primary, size, int(judged.sum())),
        "notes": [
            registered(declared),
            *notes(analysis, arms, size, judged),
            *unequal(found, analysis, arms),
        ],
    }


def _too_few(count: int, minimum: int) -> str:
    return f"{count} positive test group{'' if count == 1 else 's'}, {minimum} needed"


def sizes(found: Experiment) -> dict[str, int]:
    """How much was judged: repeats, folds, and the images and groups of each part, over all folds of a repeat."""
    cells = next(iter(found.arms.values()))
    out = {"repeats": len({cell.repeat for cell in cells}), "folds": len({cell.fold for cell in cells})}
    for part in ("test", "calibration", "validation"):
        chosen = [cell.parts[part] for cell in cells]
        out[f"{part}_images"] = len({str(name) for rows in chosen for name in rows.ids})
        out[f"{part}_groups"] = len({str(name) for rows in chosen for name in rows.groups})
    return out


def _arm(found: Experiment, arm: dict[str, Any], primary: dict[tuple[str, str], Row]) -> dict[str, Any]:
    cells = found.arms[arm["name"]]
    against = primary.get((arm["name"], "baseline"))
    numbers = sorted({name for cell in cells for name in cell.numbers})
    return {
        "method": arm.get("method"),
        "trials": arm.get("trials"),
        "control": arm.get("control"),
        "verdict": against["verdict"] if against else "",
        "against_baseline": _ends(against),
        "against_control": _ends(primary.get((arm["name"], "control"))),
        "rows": {part: sum(len(cell.parts[part]) for cell in cells) for part in ("test", "calibration", "validation")},
        # Means over repeats and folds: seconds, images seen and the like.
        "numbers": {
            name: float(np.mean([cell.numbers[name] for cell in cells if name in cell.numbers])) for name in numbers
        },
    }


def _ends(row: Row | None) -> dict[str, Any] | None:
    return {name: row[name] for name in (*ENDS, "verdict")} | {"standing": row.get("standing")} if row else None


def order(analysis: dict[str, Any], primary: dict[tuple[str, str], Row]) -> str:
    """In which order was tested, and how far that went, in words."""
    name = analysis["primary_arm"]
    steps = [row for relation in ("baseline", "control") if (row := primary.get((name, relation)))]
    others = [row for (arm, _), row in primary.items() if arm != name and row["family"] == comparisons.PRIMARY]
    told = ", then beside ".join(row["against"] for row in steps)
    text = f"Tested first, by itself, with single intervals: {name} beside {told}."
    if not others:
        return text
    text += f" Then all other comparisons of the declared family ({len(others)}), with simultaneous intervals: "
    if all(row["standing"] == inference.CONFIRMED for row in others):
        return text + "the first step showed a difference, so they are confirmed by the same error rate."
    failed = next(row["against"] for row in steps if not (row["low"] > 0 or row["high"] < 0))
    return text + f"no difference to {failed} was shown in the first step, so what they say is exploratory."


def answer(
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    primary: dict[tuple[str, str], Row],
    size: dict[str, int],
    judged: int,
) -> dict[str, Any]:
    """What the primary arm and its control changed, with intervals, and which differences are not excluded."""
    name = analysis["primary_arm"]
    control = next(arm.get("control") for arm in arms if arm["name"] == name)
    row = primary[name, "baseline"]
    against_control = primary.get((name, "control"))
    of_control = primary.get((control, "baseline")) if control else None
    out: dict[str, Any] = {
        "arm": name,
        "baseline": row["against"],
        "control": control,
        "metric": analysis["metric"],
        "level": analysis["level"],
        "confidence": analysis["confidence"],
        **(_ends(row) or {}),
        "beyond_control": _ends(against_control),
        "control_against_baseline": _ends(of_control),
        "smallest_effect": analysis["smallest_effect"],
        # A gain or a loss up to these sizes is compatible with the data.
        "gain_not_excluded": max(0.0, row["high"]),
        "loss_not_excluded": max(0.0, -row["low"]),
        # The smallest true gain that the whole rule, control included, finds with this power.
        "detectable": row["detectable"],
        "power": inference.POWER,
        "training_luck": size["repeats"] > 1,
    }
    return out | {"sentence": sentence(out, size, judged)}


def sentence(found: dict[str, Any], size: dict[str, int], judged: int) -> str:
    """The answer in words."""
    metric = NAMES[found["metric"]] + (" per protein" if found["level"] == "protein" else "")
    text = (
        f"On {size['test_images']} images of {size['test_groups']} unseen groups ({judged} judged classes), "
        f"{found['arm']} changed {metric} by {found['difference']:+.3f} against {found['baseline']} "
        f"({100 * found['confidence']:g} % interval {found['low']:+.3f} to {found['high']:+.3f})"
    )
    if found["control_against_baseline"]:
        text += f"; its control {found['control']} changed it by {found['control_against_baseline']['difference']:+.3f}"
    return f"{text}. Verdict: {found['verdict']}."


def registered(declared: dict[str, Any], letters: int | None = None) -> str:
    """Whether the analysis was chosen before anything was known of its outcome; hashes by their first letters, or
    whole."""
    seen = declared["predictions"]
    many = "1 test prediction" if seen == 1 else f"{seen} test predictions"
    when = f"when {many} had been made already" if seen else "before the first test prediction"
    text = (
        f"The analysis (hash {declared['hash'][:letters]}) of this experiment (hash "
        f"{declared['experiment'][:letters]}) was declared "
        f"{declared['declared_at'][:16].replace('T', ' ')} UTC, {when}."
    )
    if not declared["earlier"]:
        return text
    # Predictions can be deleted; what was declared before stays in the ledger.
    earlier = (
        f"{entry['hash'][:letters]} of experiment {entry['experiment'][:letters] or 'unknown'}"
        for entry in declared["earlier"]
    )
    return f"{text} Declared before it: {', '.join(earlier)}."


def notes(analysis: dict[str, Any], arms: list[dict[str, Any]], size: dict[str, int], judged: np.ndarray) -> list[str]:
    """What a reader must know to read the intervals right."""
    out = []
    if size["repeats"] == 1:
        out.append(
            "One repeat: the intervals hold the luck of which proteins were tested and calibrated on, "
            "not the luck of training."
        )
    out.append("All averages are over the judged classes.")
    if not analysis["refit_thresholds"] or analysis["threshold_rule"].startswith("half"):
        out.append("Thresholds are the same in every draw: the intervals hold nothing of the luck of choosing them.")
    if not judged.all():
        out.append(f"Not judged, too few positive test groups: {int((~judged).sum())} of {len(judged)} classes.")
    family = declaration.family(analysis, arms)
    # A control needs none of its own, and a ceiling or a point of a learning curve makes no claim.
    controls = {arm.get("control") for arm in arms}
    claiming = [arm for arm in arms if arm["name"] in set(family) - controls and not declaration.is_yardstick(arm)]
    lone = [arm["name"] for arm in claiming if not arm.get("control")]
    if lone:
        out.append(f"No control is declared for: {', '.join(lone)}.")
    return out


def unequal(found: Experiment, analysis: dict[str, Any], arms: list[dict[str, Any]]) -> list[str]:
    """Where arms had not the same number of steps, or of settings tried."""
    settings = {name: cells[0].settings for name, cells in found.arms.items()}
    known = {name: own for name, own in settings.items() if own.get("method") in arm_choices.METHODS}
    return declaration.unequal(known, arms, analysis["baseline"])


def plain(value: Any) -> Any:
    """A value of plain JSON: numpy numbers unwrapped, no NaN, floats to nine digits."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.9g}") if np.isfinite(value) else None
    return value
