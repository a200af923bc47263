"""The declared analysis: what is fixed before the first test prediction, and whether it goes together with the arms.

Read when the config is checked, before any job starts: neither torch nor numpy."""

from __future__ import annotations

import math
from typing import Any

from workflow_scripts.lib.base.files import digest
from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.classify import arm_choices, arm_settings, source_choices

LABEL_PLAN = ("labels", "count", "target", "per_class", "regime")  # what the labels of a synthetic set follow from


def declaration(analysis: dict[str, Any], arms: list[dict[str, Any]]) -> dict[str, Any]:
    """What is fixed before the first test prediction: the analysis block, the arms it speaks of and their controls."""
    controls = {arm["name"]: arm.get("control") for arm in arms}
    baselines = {arm["name"]: arm["baseline"] for arm in arms if "baseline" in arm}
    out = {"analysis": analysis, "controls": controls, "baselines": baselines, "family": family(analysis, arms)}
    # How many settings of an arm were tried on the validation part, where that is said.
    trials = {arm["name"]: arm["trials"] for arm in arms if "trials" in arm}
    return out | {"trials": trials} if trials else out


def declaration_hash(analysis: dict[str, Any], arms: list[dict[str, Any]]) -> str:
    """Hash of the declaration; the order of keys and of arms does not matter."""
    return digest(declaration(analysis, arms))


def family(analysis: dict[str, Any], arms: list[dict[str, Any]]) -> list[str]:
    """Arms whose comparisons share the error rate: those listed, or all but the baselines.

    The baseline of a label regime is compared with that of the run too, but that is no question about images."""
    regimes = {arm["name"]: arm["regime"] for arm in arms if "regime" in arm}
    beside = {arm["baseline"] for arm in arms if "baseline" in arm and "regime" in arm}
    own = {name for arm in arms if (name := arm.get("baseline")) in beside and regimes.get(name) == arm.get("regime")}
    # That of another regime has none of its own, also where no other arm is compared with it.
    common = regimes.get(analysis["baseline"])
    own |= {arm["name"] for arm in arms if "baseline" not in arm and regimes.get(arm["name"], common) != common}
    plain = {analysis["baseline"]} | own - {analysis["primary_arm"]}
    names = sorted(arm["name"] for arm in arms if arm["name"] not in plain)
    return names if analysis["family"] == "all" else sorted(set(analysis["family"]))


def is_yardstick(entry: dict[str, Any]) -> bool:
    """Whether an arm is there to measure others by: it has more real images than they have, or fewer."""
    method = arm_choices.METHODS.get(entry.get("method", ""))
    return "real_fraction" in entry or (method is not None and method.second_source in source_choices.RESERVES)


def analysis_problem(
    analysis: dict[str, Any],
    arms: list[dict[str, Any]],
    section: dict[str, Any] | None = None,
    sets: list[dict[str, Any]] | None = None,
) -> str | None:
    """What is wrong with the declared analysis beside the list of arms, in one line; None where nothing is.

    With `section`, the settings `train_classifier`, the settings of arms and of their controls are compared too; with
    `sets`, the synthetic sets, it is known which of them have the same labels."""
    names = [entry["name"] for entry in arms]
    listed = [] if analysis["family"] == "all" else list(analysis["family"])
    wanted = [("primary_arm", analysis["primary_arm"]), ("baseline", analysis["baseline"])]
    for key, name in wanted + [("family", name) for name in listed]:
        if name not in names:
            return f"analysis.{key} = {name!r} is not among the arms: {', '.join(names)}{meant(name, names)}"
    if analysis["baseline"] in (analysis["primary_arm"], *listed):
        return f"analysis.baseline = {analysis['baseline']!r} is what arms are compared with: it cannot be one of them"
    if listed and analysis["primary_arm"] not in listed:
        return f"analysis.family must hold the primary arm {analysis['primary_arm']!r}"
    known = {entry["name"]: entry for entry in arms}
    for entry in arms:
        for key in ("control", "baseline"):
            other = entry.get(key)
            if other is not None and (other not in names or other == entry["name"]):
                others = [name for name in names if name != entry["name"]]
                told = f"{', '.join(names)}{meant(other, others)}"
                return f"arms ({entry['name']}).{key} = {other!r} is no other arm; known: {told}"
        problem = control_problem(entry, known, section, analysis["baseline"], sets)
        if problem:
            return f"arms ({entry['name']}).{problem}"
    return None


def controls(name: str) -> list[str]:
    """The methods that add the same amount of nothing new as this one: its own control, and beside one that resamples
    real images the placebos, which do the same at every step with still less to learn from.

    Generated images may also be controlled by what else learns from unlabelled real ones: their generator may have."""
    control = arm_choices.METHODS[name].control
    if arm_choices.METHODS[name].scores:
        return [control]
    if arm_choices.METHODS[name].generator == arm_choices.TRAINED:
        alike = (other for other, method in arm_choices.METHODS.items() if method.generator and not method.scores)
        return [other for other in alike if other != name]
    others = arm_choices.learning_unlabelled() if arm_choices.METHODS[name].learns_from_generated else []
    if control is None or arm_choices.METHODS[control].second_source not in source_choices.NOTHING_NEW:
        return [*([control] if control else []), *others]
    # What re-weights real images by a column controls images that were conditioned on it.
    empty = (*source_choices.NOTHING_NEW, *source_choices.SOURCES.having("column"))
    alike = (
        other
        for other, method in arm_choices.METHODS.items()
        if method.step == arm_choices.METHODS[name].step and method.second_source in empty
    )
    return [control, *(other for other in alike if other != control), *others]


def control_problem(
    entry: dict[str, Any],
    known: dict[str, dict[str, Any]],
    section: dict[str, Any] | None,
    baseline: str,
    sets: list[dict[str, Any]] | None = None,
) -> str | None:
    """Why an arm's control does not add the same amount of nothing new, or not beside the same baseline, in one line;
    None where it does. `baseline` is that of arms which name none."""
    control = known.get(entry.get("control", ""))
    if control is None:
        return None
    wanted = controls(entry["method"]) if entry["method"] in arm_choices.METHODS else []
    if control["method"] not in wanted:
        names = " or ".join(map(repr, wanted))
        takes = f"{entry['method']!r} is controlled by {names}" if wanted else f"{entry['method']!r} has no control"
        return f"control = {control['name']!r} has the method {control['method']!r}; {takes}"
    beside = [arm.get("baseline", baseline) for arm in (entry, control)]
    if beside[0] != beside[1]:
        return f"control = {control['name']!r} has another baseline: {beside[1]!r} instead of {beside[0]!r}"
    own, other = (
        {key: arm[key] for key in ("regime", "synthetic_set", "generator") if key in arm} for arm in (entry, control)
    )
    if section is not None:
        own, other = arm_settings.effective(entry, section), arm_settings.effective(control, section)
    # An auto-encoder is another generator, by what it is there for.
    apart = {"generator"} if arm_choices.METHODS[control["method"]].generator == arm_choices.AUTOENCODER else set()
    # A generator that classifies trains nothing, and has no settings of training in common with its control.
    common = {"regime"} if arm_choices.METHODS[entry["method"]].scores else own.keys() & other.keys()
    drawn_to_a_set = (source_choices.RESAMPLED, source_choices.PSEUDO_LABELLED)
    resampled = arm_choices.METHODS[control["method"]].second_source in drawn_to_a_set
    # A stage does not know the labels of sets: there the check of the config has seen to it.
    unknown = section is None and sets is None
    if resampled and (unknown or _same_labels(sets or [], own.get("synthetic_set"), other.get("synthetic_set"))):
        apart = apart | {"synthetic_set"}
    for key in sorted((common & own.keys() & other.keys()) - {"name", "method"} - apart):
        if own[key] != other[key]:
            return f"control = {control['name']!r} has another {key}: {other[key]!r} instead of {own[key]!r}"
    return None


def _same_labels(sets: list[dict[str, Any]], *names: str | None) -> bool:
    """Whether these synthetic sets have as many labels, drawn alike: one is as good as the other to resample by."""
    found = [one for one in sets if one["name"] in names]
    plans = [{key: one.get(key) for key in LABEL_PLAN} for one in found]
    # Unseen values of columns take the place of labels.
    moved = len(found) > 1 and any(one.get("columns") == "unseen" for one in found)
    return not moved and len(plans) == len(set(names)) and all(plan == plans[0] for plan in plans)


def unequal(trained: dict[str, dict[str, Any]], arms: list[dict[str, Any]], baseline: str) -> list[str]:
    """What a reader must know where arms had not the same: steps, or settings tried. `trained` are the settings of arms
    as they were trained (`effective`), by name; `baseline` is the arm that those without one of their own have."""
    out = []
    steps = {name: settings["steps"] for name, settings in trained.items() if "steps" in settings}
    # An arm of real images alone that is longer than its baseline says so by its budget, and is there for that.
    known = {name: arm_choices.METHODS[trained[name]["method"]] for name in steps}
    plain = {name for name, own in known.items() if own.step == "real_only" and not (own.generator or own.averaged)}
    longer: dict[str, list[str]] = {}
    for arm in arms:
        name, beside = arm["name"], arm.get("baseline", baseline)
        if name not in plain and steps.get(name, 0) > steps.get(beside, math.inf):
            longer.setdefault(beside, []).append(name)
    for beside, names in longer.items():
        out.append(
            f"More optimiser steps than {beside} ({steps[beside]}), their baseline: {', '.join(names)}. A gain of "
            "theirs may be one of longer training; an arm real_only with that budget, as their baseline, would tell."
        )
    trials = {arm["name"]: arm.get("trials", 0) for arm in arms}
    for arm in arms:
        beside = dict.fromkeys((arm.get("control"), arm.get("baseline", baseline)))
        fewer = [name for name in beside if name in trials and trials[name] < trials[arm["name"]]]
        if fewer:
            listed = " and ".join(f"{name} ({trials[name]})" for name in fewer)
            out.append(
                f"More settings of {arm['name']} were tried on the validation part ({trials[arm['name']]}) than of "
                f"{listed}, with which it is compared."
            )
    return out
