"""Trained arms that others ask: the baseline of a label regime, or the arm that `pseudo_labels_from` names.

An arm that is asked is trained before what asks it: a generator, a synthetic set or another arm. So pseudo-labels may
be made in two rounds: a generator learns from those of the baseline, an arm from its images, and the next generator
from those of this arm (DPT, You et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.config import label_regimes
from workflow_scripts.lib.config.problems import Config
from workflow_scripts.lib.generate import generator_choices

FROM = "pseudo_labels_from"


def answering(entry: Config, config: Config) -> str | None:
    """Name of the arm that an arm, a generator or a synthetic set asks, if it asks one; None: there is no such arm."""
    return entry.get(FROM) or label_regimes.baseline_of(config, entry.get("regime"))


def asks_baseline(arms: Iterable[Config]) -> bool:
    """Whether the method of one of these arms asks a trained arm."""
    return any(arm_choices.METHODS[entry["method"]].needs_baseline for entry in arms)


def asking(entry: Config, config: Config) -> list[Config]:
    """The entries that ask a trained arm before an arm can be trained: itself, its synthetic set, its generator."""
    sets, generators = ({one["name"]: one for one in config[key]} for key in ("synthetic_sets", "generators"))
    synthetic_set = sets.get(entry.get("synthetic_set", ""))
    generator = generators.get(synthetic_set["generator"] if synthetic_set else entry.get("generator", ""))
    out = [entry] if asks_baseline([entry]) else []
    if synthetic_set is not None and generator_choices.asks_baseline(synthetic_set):
        out.append(synthetic_set)
    if generator is not None and generator_choices.pseudo_labels(generator):
        out.append(generator)
    return out


def waits(entry: Config, config: Config) -> bool:
    """Whether an arm can be trained only after another one: its method, its synthetic set or its generator asks it."""
    return bool(asking(entry, config))


def asked_by(entry: Config, config: Config) -> set[str | None]:
    """Names of the trained arms that an arm needs, by its method, its synthetic set or the generator of that."""
    return {answering(one, config) for one in asking(entry, config)}


def answer_unlabelled(config: Config) -> list[str]:
    """Names of the arms that are to answer for unlabelled images, because a generator is trained with that."""
    needed = (one for entry in config["arms"] for one in asking(entry, config))
    return sorted({one[FROM] for one in needed if "method" not in one and one.get(FROM)})


def behind(entry: Config, config: Config) -> Iterator[Config]:
    """The arms that an arm or a generator rests on by `pseudo_labels_from`, directly or through another one."""
    known, waiting, met = {one["name"]: one for one in config["arms"]}, [entry], set()
    while waiting:
        one = waiting.pop()
        for asker in [one, *(asking(one, config) if "method" in one else [])]:
            name = asker.get(FROM)
            if name in known and name not in met:
                met.add(name)
                waiting.append(known[name])
                yield known[name]


def problem(config: Config) -> str | None:
    """Error in whom arms and generators ask, in one line, or None."""
    known = {entry["name"]: entry for entry in config["arms"]}
    for section in ("generators", "arms"):
        for entry in config[section]:
            found = _named_problem(entry, known) if entry.get(FROM) else None
            if found:
                return f"{section} ({entry['name']}).{FROM} {found}"
    for entry in config["arms"]:
        if any(one["name"] == entry["name"] for one in behind(entry, config)):
            return f"arms ({entry['name']}) would learn from its own answers, by the {FROM} of what it learns from"
        for asker in asking(entry, config):
            if answering(asker, config) is None:
                regime = asker.get("regime")
                return f"arms ({entry['name']}) asks the baseline of regime {regime!r}: add an arm real_only to it"
        found = _control_problem(entry, known, config)
        if found:
            return f"arms ({entry['name']}).{found}"
    return None


def _named_problem(entry: Config, known: dict[str, Config]) -> str | None:
    """Error in the arm that `pseudo_labels_from` names, or None."""
    name = entry[FROM]
    if "method" in entry:
        if arm_choices.METHODS[entry["method"]].second_source != "pseudo_labelled":
            return f"is given, but the method {entry['method']!r} learns from no pseudo-labels"
    elif not generator_choices.pseudo_labels(entry):
        return f"is given, but the generator sees no pseudo-labels: say sees: {generator_choices.PSEUDO_LABELLED}"
    if name not in known:
        return f"= {name!r} is not among the arms: {', '.join(known)}"
    if known[name].get("regime") != entry.get("regime"):
        return f"= {name!r} has another regime: {known[name].get('regime')!r} instead of {entry.get('regime')!r}"
    return None


def _control_problem(entry: Config, known: dict[str, Config], config: Config) -> str | None:
    """Error in a control by pseudo-labels that are others than those of the arm's generator, or None."""
    control = known.get(entry.get("control", ""))
    if control is None or arm_choices.METHODS[control["method"]].second_source != "pseudo_labelled":
        return None
    taught = [one for one in asking(entry, config) if generator_choices.pseudo_labels(one)]
    names = {answering(one, config) for one in taught} - {answering(control, config)}
    if names:
        return (
            f"control = {control['name']!r} has the pseudo-labels of {answering(control, config)!r}, the arm's "
            f"generator those of {sorted(map(str, names))[0]!r}: give the control {FROM} too"
        )
    return None
