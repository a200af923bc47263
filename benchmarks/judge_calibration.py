"""The judge on trial: how often it claims a difference where there is none, and whether it finds what it says it can.

    OMP_NUM_THREADS=1 python -m benchmarks.judge_calibration --pool results/judge_pool.npz \\
        --out benchmarks/judge_calibration.json

Worlds without an effect, each judged anew in every repetition by the code that judges a run:
  fresh     simulated proteins, labels, folds and predictions; arms are the baseline under other names
  lucky     the same with twice the luck of training
  varied    effects that differ by class and by fold, and by protein, with a mean of exactly zero
  trained   copies of one arm that were really trained on simulated cells, dealt to arms at random, groups resampled
  swapped   the same copies, some of them worse; each group's predictions are swapped among the arms at random
  opened    as fresh, but the primary arm is always found to gain; the others, tested after it, gain nothing
A repetition is wrong if any comparison of the family that has no effect claims anything, confirmed by the order of
testing: that an arm helps or hurts, or does more or less than its control. Beside the share stand its 95 % upper limit
(Clopper and Pearson) and the aim.

`trained` and `swapped` rest on one set of cells and one pool of networks (trained first where --pool is no file): they
show that the judge bears with predictions as networks make them, not how it fares on other data.

Power: an arm gains as much as the judge says it could find with a power of 80 % (the mean of what it says in a world
of that size); counted is how often the arm then `helps`, control included.

--out keeps what was measured, for the page, and for the same command when it was stopped."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.judge_worlds import Fresh, Pool, PoolSettings, Shape, balance, pool
from workflow_scripts.lib.base.files import write_json
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge import comparisons, inference, scoring
from workflow_scripts.lib.judge.fold_scores import FoldScores
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.thresholds import Rule
from workflow_scripts.lib.page.sections import error_rate_section

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("macro_f1", "map")
CONTROLS = {"mix": "mix_real", "pool": "resample_real"}
ARMS = ("real_only", "mix", "mix_real", "synthetic_only")
ANALYSIS = {"primary_arm": "mix", "baseline": "real_only", "confidence": 0.95, "smallest_effect": 0.02}
ANALYSIS |= {"family": "all", "level": "image"}
RULE = Rule("calibrated", 10)
CLAIMS = (inference.HELPS, inference.NO_MORE, inference.HURTS, inference.MORE, inference.LESS)
MOST_WRONG, POWER_AIM = 0.08, (0.7, 0.9)
GAINS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
FOUND_ALWAYS = 2.0  # gain, in logits, of the primary arm in the world `opened`
VARIED = replace(Shape(), class_luck=0.6)
LUCKY = replace(Shape(), luck=0.3, class_luck=0.5)

HEAD = (
    "world     metric    repeats thresholds repetitions  wrong  share %  upper %  at most 8 %   helps/hurts     mean"
    "  spread  half-width"
)

Arms = dict[str, list[FoldScores]]
# Makes the arms of one repetition, from the number of repeats, the metric that is judged, and random numbers.
Maker = Callable[[int, str, np.random.Generator], Arms]


def judge(arms: Arms, draws: int, seed: int, refit: bool = True) -> dict[str, list[dict[str, Any]]]:
    """The rows of the family for each metric: the whole rule, as aggregate_metrics applies it."""
    return rows_of(summarise(arms, draws, seed, refit), draws, seed)


def summarise(arms: Arms, draws: int, seed: int, refit: bool = True) -> dict[str, scoring.Summary]:
    """Scores of all arms, and their bootstrap draws."""
    groups = group_count(arms["real_only"])
    weights = scoring.group_weights(seed, groups, draws)
    judged, rule = judged_classes(arms["real_only"]), replace(RULE, refit=refit)
    return {name: scoring.summarise(cells, rule, weights, judged) for name, cells in arms.items()}


def group_count(cells: list[FoldScores]) -> int:
    """Groups of a world."""
    return 1 + max(int(table.groups.max()) for cell in cells for table in (cell.calibration, cell.test))


def rows_of(summaries: dict[str, scoring.Summary], draws: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """What the judge says of the family, by each metric."""
    arms = [{"name": name} | ({"control": CONTROLS[name]} if name in CONTROLS else {}) for name in summaries]
    question = Question(ANALYSIS | {"draws": draws}, arms, seed)
    return {name: comparisons.family_rows(question, summaries, name, "image") for name in METRICS}


def judged_classes(cells: list[FoldScores], minimum: int = 5) -> np.ndarray:
    """Classes with enough positive test groups, bool (K,)."""
    found: dict[int, np.ndarray] = {}
    for cell in cells:  # test parts of a repeat share no group
        found[cell.repeat] = found.get(cell.repeat, 0) + cell.test.positive_groups()
    return scoring.judged_classes(np.stack(list(found.values())), minimum)


def fresh(shape: Shape, names: Sequence[str] = ARMS, gain: float = 0.0) -> Maker:
    """The baseline under other names, in a world of this shape; the arm mix gains something in skill."""

    def make(repeats: int, metric: str, rng: np.random.Generator) -> Arms:
        world = Fresh(shape, repeats, rng)
        return {name: world.arm(rng, gain if name == "mix" else 0.0) for name in names}

    return make


def varied(curves: dict[str, np.ndarray]) -> Maker:
    """Every arm gains in some classes and loses in others, so that its mean score stays what it was."""

    def make(repeats: int, metric: str, rng: np.random.Generator) -> Arms:
        world = Fresh(VARIED, repeats, rng)
        arms = {"real_only": world.arm(rng, persistent=0.5)}
        judged = judged_classes(arms["real_only"])
        for name in ARMS[1:]:
            signs = rng.permutation(np.arange(VARIED.classes) % 2 * 2 - 1)
            gain = balance(curves[metric], GAINS, signs, judged, rng.uniform(0.2, 0.7))
            arms[name] = world.arm(rng, gain, persistent=0.5)
        return arms

    return make


def of_pool(found: Pool, swapped: bool) -> Maker:
    """Copies that were really trained, dealt or swapped."""

    def make(repeats: int, metric: str, rng: np.random.Generator) -> Arms:
        hands = (found.swapped if swapped else found.deal)(rng, len(ARMS), repeats)
        return dict(zip(ARMS, hands, strict=True))

    return make


def plain_scores(cells: list[FoldScores], metric: str) -> np.ndarray:
    """Scores of the classes (K,), mean over repeats, without any resampling."""
    weights = np.ones((group_count(cells), 1))
    scores = scoring.score_arm(cells, RULE, weights, f1=metric != "map", ap=metric == "map")
    return scoring.mean((scores.ap() if metric == "map" else scores.f1())[..., 0], axis=0)


def curve(shape: Shape, metric: str, worlds: int, seed: int, persistent: float = 0.0) -> np.ndarray:
    """Mean score of each class at each of GAINS (S, K), from so many worlds."""
    found = []
    for number in range(worlds):
        own = derive(seed, "curve", number)
        world = Fresh(shape, 1, np.random.default_rng(own))
        # The same luck at every gain: what differs is the gain.
        arms = [world.arm(np.random.default_rng(derive(own, "arm")), gain, persistent) for gain in GAINS]
        found.append([plain_scores(arm, metric) for arm in arms])
    return np.nanmean(found, axis=0)


def upper_limit(wrong: int, repetitions: int) -> float:
    """95 % upper limit of a share (Clopper and Pearson)."""
    return float(stats.beta.ppf(0.95, wrong + 1, repetitions - wrong)) if wrong < repetitions else 1.0


def claims(rows: list[dict[str, Any]], kinds: Sequence[str] = CLAIMS) -> list[str]:
    """The arms of which any difference is claimed and confirmed."""
    said = [row for row in rows if row["standing"] == inference.CONFIRMED]
    return sorted({row["arm"] for row in said if row["verdict"] in kinds})


def error_rates(
    make: Maker,
    metrics: Sequence[str],
    repeats: int,
    numbers: range,
    draws: int,
    seed: int,
    refit: bool = True,
    better: str = "",
) -> dict[str, dict[str, Any]]:
    """Judge these repetitions of a world without an effect, but for that of the arm `better`, by each of the metrics,
    and count the wrong ones."""
    judged: dict[str, list[list[dict[str, Any]]]] = {metric: [] for metric in metrics}
    for number in numbers:
        rng = np.random.default_rng(derive(seed, "world", *metrics, repeats, number))
        rows = judge(make(repeats, metrics[0], rng), draws, derive(seed, number), refit)
        for metric in metrics:
            judged[metric].append(rows[metric])
    return {metric: counted(found, better) for metric, found in judged.items()}


def counted(judged: list[list[dict[str, Any]]], better: str = "") -> dict[str, Any]:
    """Wrong repetitions of those given, which have no effect but that of `better`; and mean and spread of what was
    estimated."""
    stated = [row["detectable"] for rows in judged for row in rows if _of_mix(row)]
    judged = [[row for row in rows if row["arm"] != better] for rows in judged]
    kinds = (inference.HELPS, inference.HURTS)
    errors = [[row["difference"] for row in rows] for rows in judged]
    return {
        "repetitions": len(judged),
        "wrong": sum(bool(claims(rows)) for rows in judged),
        "helps_or_hurts": sum(bool(claims(rows, kinds)) for rows in judged),
        "mean": float(np.mean(errors)),
        "spread": float(np.std(errors)),
        "detectable": float(np.mean(stated)),
        "half_width": float(np.mean([(row["high"] - row["low"]) / 2 for rows in judged for row in rows])),
    }


def _of_mix(row: dict[str, Any]) -> bool:
    # The arm that gains something where any does.
    return (row["arm"], row["relation"]) == ("mix", "baseline")


def power(make: Maker, metric: str, repeats: int, numbers: range, draws: int, seed: int) -> dict[str, Any]:
    """How often the arm mix is found to help, what the judge says it could find, and what the arm truly gains."""
    found, stated, change = 0, [], []
    for number in numbers:
        arms = make(repeats, metric, np.random.default_rng(derive(seed, "power", metric, repeats, number)))
        rows = judge(arms, draws, derive(seed, number))[metric]
        row = next(row for row in rows if _of_mix(row))
        found += row["verdict"] == inference.HELPS  # of the primary arm, which nothing comes before
        stated.append(row["detectable"])
        change.append(row["difference"])
    means = {"detectable": float(np.mean(stated)), "effect": float(np.mean(change))}
    return {"repetitions": len(numbers), "found": found} | means


def gain_of(size: float, metric: str, seed: int, worlds: int = 40, shape: Shape | None = None) -> float:
    """The gain, in logits, that raises the score by `size`."""
    scores = curve(shape or Shape(), metric, worlds, seed)
    effect = np.nanmean(scores - scores[GAINS.index(0.0)], axis=1)
    return float(np.interp(size, effect, GAINS))


def added(row: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """A row with further repetitions."""
    before, after = row.get("repetitions", 0), block["repetitions"]
    out = dict(row)
    for name, value in block.items():
        if isinstance(value, int):
            out[name] = row.get(name, 0) + value
        elif name != "spread":
            out[name] = (before * row.get(name, 0.0) + after * value) / (before + after)
    if "spread" in block:
        squares = [part["spread"] ** 2 + part["mean"] ** 2 for part in (row, block) if "spread" in part]
        both = np.average(squares, weights=[before, after][-len(squares) :])
        out["spread"] = math.sqrt(max(0.0, both - out["mean"] ** 2))
    if "wrong" in out:
        out |= {"fraction": out["wrong"] / out["repetitions"], "upper": upper_limit(out["wrong"], out["repetitions"])}
    return out


def worlds(chosen: Sequence[str], kept: Path | None, settings: PoolSettings, seed: int) -> dict[str, Maker]:
    """The worlds by name; trains the pool where it is needed."""
    made: dict[str, Maker] = {"fresh": fresh(Shape()), "lucky": fresh(LUCKY)}
    made["opened"] = fresh(Shape(), gain=FOUND_ALWAYS)
    if "varied" in chosen:
        made["varied"] = varied({metric: curve(VARIED, metric, 40, seed, 0.5) for metric in METRICS})
    if {"trained", "swapped"} & set(chosen):
        found = pool(kept, settings)
        print(f"pool: {len(found.scores)} copies in {found.scores.shape[1]} folds, {found.seconds:.0f} s of training")
        made |= {"trained": of_pool(found, False), "swapped": of_pool(found, True)}
    return {name: made[name] for name in chosen}


class Trial:
    """What has been measured so far, kept in a file, so that a command that was stopped goes on where it was."""

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path, self.record = path, about | {"worlds": [], "power": []}
        if path is not None and path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {name: kept.get(name) for name in about} == json.loads(json.dumps(about)):
                self.record = kept
            else:
                print(f"{path} was measured with other code or settings: starting anew")

    def row(self, table: str, **key: Any) -> dict[str, Any]:
        """A row of a table by its key; made where there is none."""
        for row in self.record[table]:
            if all(row[name] == value for name, value in key.items()):
                return row
        self.record[table].append(dict(key))
        return self.record[table][-1]

    def save(self) -> None:
        """Write what there is; rows that have not begun stay out."""
        if self.path is not None:
            begun = {name: [row for row in self.record[name] if row.get("repetitions")] for name in ("worlds", "power")}
            write_json(self.path, self.record | begun)


def measure(trial: Trial, makers: dict[str, Maker], args: argparse.Namespace) -> None:
    """All worlds, a block of each at a time, so that a measurement that is stopped has seen all of them."""
    thresholds = "fixed" if args.fixed else "refit"
    for _ in range(-(-args.repetitions // args.block)):
        for repeats in args.repeats:
            for name, make in makers.items():
                # A world whose arms are balanced in one metric is no world without an effect for another.
                for metrics in [[one] for one in args.metrics] if name == "varied" else [args.metrics]:
                    keys = {"world": name, "repeats": repeats, "thresholds": thresholds}
                    rows = [trial.row("worlds", metric=metric, **keys) for metric in metrics]
                    done = min(row.get("repetitions", 0) for row in rows)
                    numbers = range(done, min(done + args.block, args.repetitions))
                    if not numbers:
                        continue
                    seed = derive(args.seed, name)  # or worlds would share their luck
                    better = "mix" if name == "opened" else ""
                    found = error_rates(make, metrics, repeats, numbers, args.draws, seed, not args.fixed, better)
                    for row in rows:
                        row.update(added(row, found[row["metric"]]))
                    trial.save()


def stated_size(trial: Trial, metric: str, repeats: int, args: argparse.Namespace) -> float:
    """What the judge says it could find in a fresh world, from the repetitions without an effect."""
    for row in trial.record["worlds"]:
        if (row["world"], row["metric"], row["repeats"]) == ("fresh", metric, repeats):
            return row["detectable"]
    found = error_rates(fresh(Shape()), [metric], repeats, range(100), args.draws, args.seed)
    return found[metric]["detectable"]


def measure_power(trial: Trial, args: argparse.Namespace) -> None:
    """The power at what the judge says it can find."""
    for _ in range(-(-args.power_repetitions // args.block)):
        for repeats in args.power_repeats:
            for metric in args.metrics:
                row = trial.row("power", metric=metric, repeats=repeats)
                done = row.get("repetitions", 0)
                numbers = range(done, min(done + args.block, args.power_repetitions))
                if not numbers:
                    continue
                if "gain" not in row:
                    row["gain"] = gain_of(stated_size(trial, metric, repeats, args), metric, args.seed)
                make = fresh(Shape(), gain=row["gain"])
                found = power(make, metric, repeats, numbers, args.draws, args.seed)
                row.update(added(row, found))
                trial.save()


def table(record: dict[str, Any]) -> str:
    """Both tables as text."""
    lines = [HEAD]
    for row in record["worlds"]:
        holds = "" if row["repeats"] < 3 else "holds" if row["upper"] <= MOST_WRONG else "DOES NOT HOLD"
        lines.append(
            f"{row['world']:9} {row['metric']:9} {row['repeats']:7} {row['thresholds']:10} {row['repetitions']:11} "
            f"{row['wrong']:6} {100 * row['fraction']:8.1f} {100 * row['upper']:8.1f}  {holds:13} "
            f"{row['helps_or_hurts']:11} {row['mean']:+8.4f} {row['spread']:7.4f} {row['half_width']:11.4f}"
        )
    for row in record["power"]:
        fraction = row["found"] / row["repetitions"]
        holds = "holds" if POWER_AIM[0] <= fraction <= POWER_AIM[1] else "DOES NOT HOLD"
        lines.append(
            f"power, {row['metric']}, repeats {row['repeats']}: stated detectable {row['detectable']:.4f}, true effect "
            f"{row['effect']:.4f}, found in {100 * fraction:.1f} % of {row['repetitions']} (aim 70 to 90 %: {holds})"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure, and print both tables."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("fresh", "lucky", "varied", "trained", "swapped", "opened")
    out.add_argument("--worlds", nargs="*", choices=names, default=list(names))
    out.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS))
    out.add_argument("--repeats", nargs="+", type=int, default=[3, 1])
    out.add_argument("--repetitions", type=int, default=500)
    out.add_argument("--power-repetitions", type=int, default=400, help="0: no power")
    out.add_argument("--power-repeats", nargs="+", type=int, default=[3])
    out.add_argument("--block", type=int, default=50, help="repetitions between two writes")
    out.add_argument("--draws", type=int, default=300)
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--fixed", action="store_true", help="thresholds fitted once, not in each draw")
    out.add_argument("--pool", type=Path, help="where the trained copies are kept (.npz)")
    out.add_argument("--out", type=Path, help=f"what was measured, for the page: {error_rate_section.RECORD}")
    args = out.parse_args(argv)
    settings = PoolSettings()
    about = {"code": error_rate_section.judge_digest(ROOT), "confidence": ANALYSIS["confidence"], "draws": args.draws}
    about |= {"seed": args.seed, "arms": list(ARMS), "shape": asdict(Shape()), "pool": asdict(settings)}
    trial = Trial(args.out, about)
    measure(trial, worlds(args.worlds, args.pool, settings, args.seed), args)
    measure_power(trial, args)
    print(table(trial.record))


if __name__ == "__main__":
    main()
