"""The content of analysis.json: the answer in numbers and one sentence, the verdicts, and the notes a reader needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from workflow_scripts.lib.classify import arm_choices, source_choices
from workflow_scripts.lib.judge import analysis_choices, comparisons, declaration, inference
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.regime_map import PSEUDO_LABELLED, UNLABELLED
from workflow_scripts.lib.judge.scoring import ScoredRun

METRIC_NAMES = {"macro_f1": "macro-F1", "map": "mAP", "micro_f1": "micro-F1"}
ENDS = ("difference", "low", "high", "low_single", "high_single")
BESIDE = ("beside_low", "beside_high", "beside_verdict")
OTHERS_TOO = (UNLABELLED, PSEUDO_LABELLED)  # what a generator sees that is shown more than the labelled images
FROM_ELSEWHERE = "The generator came from elsewhere; whether it saw these test proteins is unknown."
Row = dict[str, Any]
PrimaryRows = dict[tuple[str, str], Row]  # (arm, relation) -> its row in the primary metric


def report(run: ScoredRun, rows: list[Row], declared: dict[str, Any]) -> dict[str, Any]:
    """The verdicts and the answer; `rows` are those of comparisons.csv, `declared` is declaration.json."""
    question, experiment = run.question, run.experiment
    analysis, arms = question.analysis, question.arms
    primary = {
        (row["arm"], row["relation"]): row
        for row in rows
        if row["metric"] == analysis["metric"] and row["level"] == analysis["level"] and not row["class"]
    }
    size = sizes(experiment)
    by_arm = {arm["name"]: _arm_facts(experiment, arm, primary) for arm in arms}
    found = answer(question, primary, size, int(run.judged.sum()))
    if note := by_arm[analysis["primary_arm"]].get("note"):
        found |= {"note": note, "sentence": f"{found['sentence']} {note}"}
    classes = _class_facts(run)
    return {
        "hash": declaration.declaration_hash(analysis, arms),
        "declaration": declaration.declaration(analysis, arms),
        "declared": declared,
        "analysis": analysis,
        "classes": classes,
        "judged": [name for name, row in classes.items() if row["judged"]],
        "not_judged": [
            {"class": name, "positive_groups": row["positive_groups"]}
            | {"reason": _too_few(row["positive_groups"], analysis["minimum_positive_groups"])}
            for name, row in classes.items()
            if not row["judged"]
        ],
        "family": declaration.family(analysis, arms),
        "order": order(analysis, primary),
        "comparisons_in_family": sum(row["family"] == comparisons.PRIMARY for row in rows),
        "baseline": analysis["baseline"],
        "controls": {arm["name"]: arm.get("control") for arm in arms},
        "sizes": size,
        "arms": by_arm,
        "verdicts": {name: arm["verdict"] for name, arm in by_arm.items() if arm["verdict"]},
        "answer": found,
        "notes": [
            registered(declared),
            *notes(question, size, run.judged),
            *unequal(experiment, question),
            *elsewhere(by_arm),
        ],
    }


def sizes(experiment: Experiment) -> dict[str, int]:
    """How much was judged: repeats, folds, and the images and groups of each part, over all folds of a repeat."""
    folds = experiment.reference
    out = {"repeats": experiment.repeats, "folds": len({fold.fold for fold in folds})}
    for name in ("test", "calibration", "validation"):
        parts = [fold.parts[name] for fold in folds]
        out[f"{name}_images"] = len({str(image) for part in parts for image in part.ids})
        out[f"{name}_groups"] = len({str(group) for part in parts for group in part.groups})
    return out


def _arm_facts(experiment: Experiment, arm: dict[str, Any], primary: PrimaryRows) -> dict[str, Any]:
    folds = experiment.arms[arm["name"]]
    against = primary.get((arm["name"], "baseline"))
    numbers = sorted({name for fold in folds for name in fold.numbers})
    about = {"regime": arm["regime"]} if "regime" in arm else {}
    if experiment.from_elsewhere(arm["name"]):
        about |= {"note": FROM_ELSEWHERE}
    return about | {
        "method": arm.get("method"),
        "trials": arm.get("trials"),
        "control": arm.get("control"),
        "verdict": against["verdict"] if against else "",
        "against_baseline": _ends(against),
        "against_control": _ends(primary.get((arm["name"], "control"))),
        "rows": {part: sum(len(fold.parts[part]) for fold in folds) for part in ("test", "calibration", "validation")},
        # Means over repeats and folds: seconds, images seen and the like.
        "numbers": {
            name: float(np.mean([fold.numbers[name] for fold in folds if name in fold.numbers])) for name in numbers
        },
    }


def _ends(row: Row | None) -> dict[str, Any] | None:
    if not row:
        return None
    beside = {name: row[name] for name in BESIDE if name in row}
    return {name: row[name] for name in (*ENDS, "verdict")} | {"standing": row.get("standing")} | beside


def _class_facts(run: ScoredRun) -> dict[str, dict[str, Any]]:
    counts = run.counts["image"]
    return {
        name: {"judged": bool(run.judged[k]), "positive_groups": int(counts["positive_groups"][k])}
        | {"positives": int(counts["positives"][k])}
        for k, name in enumerate(run.experiment.classes)
    }


def _too_few(count: int, minimum: int) -> str:
    return f"{count} positive test group{'' if count == 1 else 's'}, {minimum} needed"


def order(analysis: dict[str, Any], primary: PrimaryRows) -> str:
    """The order of testing in words, and how far it went."""
    name = analysis["primary_arm"]
    steps = [row for relation in ("baseline", "control") if (row := primary.get((name, relation)))]
    others = [row for (arm, _), row in primary.items() if arm != name and row["family"] == comparisons.PRIMARY]
    alone = " All are exploratory: a single repeat confirms nothing." if steps[0]["repeats"] == 1 else ""
    against = ", then against ".join(row["against"] for row in steps)
    text = f"Tested first, by itself, with single intervals: {name} against {against}."
    if not others:
        return text + alone
    text += f" Then all other comparisons of the declared family ({len(others)}), with simultaneous intervals: "
    if alone:
        return text.removesuffix(": ") + "." + alone
    if all(row["standing"] == inference.CONFIRMED for row in others):
        return text + "the first step showed a difference, so their verdicts are confirmed, at the same error rate."
    failed = next(row["against"] for row in steps if not (row["low"] > 0 or row["high"] < 0))
    return text + f"the first step showed no difference from {failed}, so their verdicts are exploratory."


def answer(question: Question, primary: PrimaryRows, size: dict[str, int], judged: int) -> dict[str, Any]:
    """What the primary arm and its control changed, with intervals, and which differences are not excluded."""
    analysis, control = question.analysis, question.primary_control
    name = analysis["primary_arm"]
    row = primary[name, "baseline"]
    out: dict[str, Any] = {
        "arm": name,
        "baseline": row["against"],
        "control": control,
        "metric": analysis["metric"],
        "level": analysis["level"],
        "confidence": analysis["confidence"],
        **(_ends(row) or {}),
        "beyond_control": _ends(primary.get((name, "control"))),
        "control_against_baseline": _ends(primary.get((control, "baseline"))) if control else None,
        "smallest_effect": analysis["smallest_effect"],
        # A gain or a loss up to these sizes is compatible with the data.
        "gain_not_excluded": max(0.0, row["high"]),
        "loss_not_excluded": max(0.0, -row["low"]),
        # The smallest true gain that the whole rule, control included, finds with this power.
        "detectable": row["detectable"],
        "probability_better": row.get("probability_better"),
        "probability_negligible": row.get("probability_negligible"),
        "power": inference.POWER,
        "training_luck": size["repeats"] > 1,
        "claim": question.claim,
    }
    return out | {"sentence": sentence(out, size, judged)}


def sentence(facts: dict[str, Any], size: dict[str, int], judged: int) -> str:
    """The answer in words."""
    metric = METRIC_NAMES[facts["metric"]] + (" per protein" if facts["level"] == "protein" else "")
    these = facts["claim"] == analysis_choices.THESE_PROTEINS
    text = (
        f"On {size['test_images']} images of {size['test_groups']} unseen groups ({judged} judged classes), "
        f"{facts['arm']} changed {metric} by {_signed(facts['difference'])} against {facts['baseline']} "
        f"({100 * facts['confidence']:g} % interval {_signed(facts['low'])} to {_signed(facts['high'])})"
    )
    if facts["control_against_baseline"]:
        by = _signed(facts["control_against_baseline"]["difference"])
        text += f"; its control {facts['control']} changed it by {by}"
    # A single repeat confirms nothing, whatever its verdict is.
    alone = "" if facts["training_luck"] else " (exploratory: a single repeat)"
    claim = "with these training groups" if these else "with other training groups too"
    if alone and not these:
        claim = "not for other training groups, of which a single repeat tells nothing"
    text += f". Verdict, {claim}: {facts['verdict']}{alone}."
    if alone or facts.get("beside_low") is None:
        return text
    other = "With other training groups too" if these else "With these training groups alone"
    ends = f"{_signed(facts['beside_low'])} to {_signed(facts['beside_high'])}"
    return f"{text} {other}: {ends}, {facts['beside_verdict']}."


def _signed(value: float) -> str:
    """A difference as text, without a sign where it rounds to zero."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def registered(declared: dict[str, Any], letters: int | None = None) -> str:
    """Whether the analysis was declared before the first test prediction.

    Hashes by their first `letters`, or whole."""
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
    # Predictions can be deleted; earlier declarations stay in the ledger.
    earlier = (
        f"{entry['hash'][:letters]} of experiment {entry['experiment'][:letters] or 'unknown'}"
        for entry in declared["earlier"]
    )
    return f"{text} Declared before it: {', '.join(earlier)}."


def notes(question: Question, size: dict[str, int], judged: np.ndarray) -> list[str]:
    """What a reader must know to read the intervals right."""
    analysis, out = question.analysis, []
    if size["repeats"] == 1:
        out.append(
            "One repeat: the intervals contain the variance over test and calibration groups, "
            "but not the variance between repeats of the training. All verdicts are exploratory."
        )
    out.append("All averages are over the judged classes.")
    if not analysis["refit_thresholds"] or analysis["threshold_rule"].startswith("half"):
        out.append("Thresholds are the same in every draw: the intervals do not contain the variance of fitting them.")
    if not judged.all():
        out.append(f"Not judged, too few positive test groups: {int((~judged).sum())} of {len(judged)} classes.")
    # A control needs none of its own, and a ceiling or a point of a learning curve makes no claim.
    controls = {arm.get("control") for arm in question.arms}
    family = set(declaration.family(analysis, question.arms)) - controls
    claiming = [arm for arm in question.arms if arm["name"] in family and not declaration.is_yardstick(arm)]
    lone = [arm["name"] for arm in claiming if not arm.get("control")]
    if lone:
        out.append(f"No control is declared for: {', '.join(lone)}.")
    return out


def elsewhere(arms: dict[str, dict[str, Any]]) -> list[str]:
    """Which arms rest on a generator from elsewhere of which nobody knows what it saw."""
    names = [name for name, facts in arms.items() if facts.get("note") == FROM_ELSEWHERE]
    return [f"{', '.join(names)}: {FROM_ELSEWHERE[0].lower()}{FROM_ELSEWHERE[1:]}"] if names else []


def unequal(experiment: Experiment, question: Question) -> list[str]:
    """Where arms had unequal numbers of steps, or of settings tried."""
    settings = {name: experiment.settings(name) for name in experiment.arms}
    known = {name: own for name, own in settings.items() if own.get("method") in arm_choices.METHODS}
    return declaration.unequal(known, question.arms, question.analysis["baseline"])


def unseen_by_controls(question: Question, experiment: Experiment, saw: dict[str, dict[str, Any]]) -> list[str]:
    """Which arms have generated images of a generator that saw unlabelled images, and a control that did not.

    `saw` tells what the generator of each synthetic set saw."""
    names = []
    for arm in question.arms:
        source = saw.get(arm.get("synthetic_set", ""), {})
        if not arm.get("control") or source.get("sees") not in OTHERS_TOO:
            continue
        method = arm_choices.METHODS.get(experiment.settings(arm["control"]).get("method"))
        others_shown = source["labelled"] < 1 or source.get("further")
        looks = (*source_choices.UNLABELLED, *source_choices.SEEN)
        if others_shown and method is not None and method.second_source not in looks:
            names.append(f"{arm['name']} ({arm['control']})")
    if not names:
        return []
    text = f"The control has not seen the unlabelled images that the generator saw: {', '.join(names)}."
    return [f"{text} A gain beyond it may come from these images."]


def plain(value: Any) -> Any:
    """A value as plain JSON: numpy numbers unwrapped, NaN and infinity as null, floats to nine digits."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.9g}") if np.isfinite(value) else None
    return value
