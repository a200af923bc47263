"""The first screen of the report page: the answer, the key numbers, the judge's error rate, the lockbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import lockbox_ledger
from workflow_scripts.lib.judge.analysis_choices import THESE_PROTEINS
from workflow_scripts.lib.judge.wording import error_rate, longer_runs, page_opening
from workflow_scripts.lib.page import arm_categories
from workflow_scripts.lib.page.html_page import PageTable
from workflow_scripts.lib.page.run_tables import Results
from workflow_scripts.lib.page.sections import data_section, error_rate_section, robustness_section


def opening(results: Results, data: dict[str, Any], config: dict[str, Any]) -> page_opening.Opening:
    """The first paragraph, from the answer that the judge wrote down."""
    if "answer" not in results.facts or "sizes" not in results.facts:
        raise UserError("analysis.json holds no answer: delete it and run again")
    sizes, judged = results.facts["sizes"], len(results.judged)
    subject = primary_subject(results, config)
    return page_opening.opening(results.facts["answer"], sizes, judged, data["unit"], subject, data["lines_tested"])


def primary_subject(results: Results, config: dict[str, Any]) -> str:
    """What the primary arm adds: without images of a trained generator it must not be praised for them."""
    arm = results.facts["answer"]["arm"]
    method = arm_choices.METHODS.get(results.facts.get("arms", {}).get(arm, {}).get("method"))
    if method and not method.learns_from_generated:
        return f"The arm {arm}"
    own = next((entry.get("synthetic_set") for entry in config.get("arms", []) if entry["name"] == arm), None)
    return page_opening.PERFECT if own in arm_categories.simulated_sets(config) else page_opening.GENERATED


def verdict_kind(results: Results) -> str:
    """Which of the five verdicts the primary arm has; empty where it was not compared."""
    difference = results.difference(results.primary)
    return page_opening.kind_of(difference.verdict) if difference else ""


def judge_sentence(results: Results, root: Path) -> str:
    """The gain that this run and a longer one could find, and how often the judge is wrong."""
    answer = results.facts["answer"]
    record, declared = error_rate_section.read(root), results.analysis
    usual = answer.get("claim", THESE_PROTEINS) == THESE_PROTEINS and answer.get("level", "image") == "image"
    usual &= declared.get("refit_thresholds", True) and declared.get("threshold_rule", "calibrated") == "calibrated"
    usual &= record is not None and results.confidence == record["confidence"]
    rate = error_rate.measured(
        record if usual else None,
        results.metric,
        results.facts["sizes"]["repeats"],
        error_rate_section.judge_digest(root),
    )
    found = [error_rate.detectable(answer), longer_runs.sentence(results.facts.get("longer_runs")), rate]
    return " ".join(text for text in found if text)


def key_numbers(
    results: Results, data: dict[str, Any], statuses: dict[str, int], trained: int
) -> list[tuple[str, str]]:
    """The numbers that a reader wants before believing anything."""
    sizes, clean = results.facts.get("sizes", {}), statuses.get("clean", 0)
    return [
        (f"unseen {data['unit']}s", f"{sizes.get('test_groups', 0):,}"),
        ("test images", f"{sizes.get('test_images', 0):,}"),
        ("folds × repeats", f"{sizes.get('folds', 0)} × {sizes.get('repeats', 0)}"),
        ("classes judged", f"{len(results.judged)} of {len(results.classes)}"),
        ("comparisons judged", f"{results.facts.get('comparisons_in_family', 0)}"),
        ("generators trained", f"{trained:,}"),
        ("leak checks clean", f"{clean} of {sum(statuses.values())}"),
    ]


def generators(config: dict[str, Any], sets: list[str]) -> set[str]:
    """Generators that were trained here: those that draw or guide the `sets`, and those that arms are made of."""
    used = [entry for entry in config.get("synthetic_sets", []) if entry["name"] in sets]
    names = {name for entry in used for name in (entry["generator"], generator_choices.weaker_generator(entry)) if name}
    names |= {arm["generator"] for arm in config.get("arms", []) if arm.get("generator")}
    taken_over = {entry["name"] for entry in config.get("generators", []) if entry.get("steps") == 0}
    return names - taken_over - {generator_choices.SIMULATOR}


def lockbox(
    ledger: Path | None,
    images: Path,
    results: Results,
    data: data_section.Data,
    config: dict[str, Any],
    unit: str,
) -> tuple[str, PageTable | None]:
    """What the ledger knows of the run's lockbox: a few sentences, and a table of the openings."""
    with ImageSet(images) as source:
        box, digest = lockbox_ledger.find(source.ids[~source.further], data.groups, data.roles), source.digest
    entries = lockbox_ledger.read_ledger(ledger) if ledger else []
    opened = lockbox_ledger.openings(entries, box, digest) if box else None
    subject, declared = primary_subject(results, config), {"experiment": ""} | results.facts["declared"]
    return robustness_section.of_lockbox(box, opened, str(config.get("run", "")), declared, unit, subject)
