# Shared by all rules: the checked config, wildcard values, and input functions. No rules.
# Functions of the config alone are in workflow_scripts/lib/config/views.py.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from workflow_scripts.lib.base import scheduler_timers, source_code
from workflow_scripts.lib.classify import network_choices
from workflow_scripts.lib.config import check as run_check
from workflow_scripts.lib.config import asked_arms, given_images, origins, snakemake_checks, stage_views, views
from workflow_scripts.lib.cost import job_costs
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.page import progress_page
from workflow_scripts.lib.study import switches

source_code.use_this_python()
if workflow.modifier.skip_configfile:  # a module with a config of its own, for which Snakemake leaves the defaults out
    given, config = config, load_configfile(str(ROOT / "config.yaml"))
    update_config(config, given)
try:
    CONFIG = run_check.check(config, conda="conda" in snakemake_checks.deployment(workflow))
except run_check.ConfigError as error:
    sys.exit(f"MixLoc config: {error}")
if problem := snakemake_checks.folder_problem(Path.cwd(), CONFIG["run"], ROOT / "Snakefile"):
    sys.exit(f"MixLoc: {problem}")

FOLDER = views.in_run(CONFIG, "report.html")
if workflow.modifier.path_modifier.replace_prefix(FOLDER) != FOLDER:
    raise WorkflowError(
        "MixLoc: commands name paths under results, so a module takes no prefix; set `run` in its config"
    )
REPEATS = range(CONFIG["make_folds"]["repeats"])
FOLDS = range(CONFIG["make_folds"]["folds"])
GENERATORS = views.by_name(CONFIG, "generators")
SYNTHETIC_SETS = views.by_name(CONFIG, "synthetic_sets")
ARMS = views.by_name(CONFIG, "arms")
USED_SETS = views.used_sets(CONFIG)
USED_GENERATORS = views.used_generators(CONFIG)
# Three stages make synthetic sets. The pattern of a stage without sets is a name that no synthetic set can have.
TOGETHER = views.sets_together(CONFIG)
SIMULATED_SETS = "|".join(views.sets_from(CONFIG, simulator=True)) or "-"
GENERATED_SETS = "|".join(name for name in views.sets_from(CONFIG, simulator=False) if name not in TOGETHER) or "-"
JOBS = views.job_lists(CONFIG)
THREADS = CONFIG["compute"]["threads"]
CORRUPTIONS = views.corruptions(CONFIG)  # of the stress test
FORENSICS = CONFIG["forensics"]
PROCESSES = CONFIG["compute"]["processes"]
AT_ONCE = CONFIG["compute"]["arms_at_once"]
STRIP_MINUTES = CONFIG["compute"]["strip_minutes"]
# A resource of the stages that train, not a param: another number re-trains nothing.
LAUNCHER = snakemake_checks.launcher(PROCESSES)
ENVIRONMENT = f"../envs/{CONFIG['compute']['environment']}.yaml"  # of the stages, with --sdm conda
DATA_FIGURES = ("classes", "cooccurrence", "groups", "intensity", "histograms", "samples")
# Images as the stages of a fold see them: the set, or the fold's view of it, normalised by its train part.
FOLD_VIEW = "results/{run}/repeat{repeat}/fold{fold}/images.h5"
BY_TRAIN_PART = views.by_train_part(CONFIG)
FOLD_IMAGES = FOLD_VIEW if BY_TRAIN_PART else "results/{run}/images.h5"
LEDGER = "results/lockbox_openings.jsonl"  # of all runs
# Repeats and folds, as stages take them (--places): {repeat} and {fold} in an argument then stand for each of them.
PLACES = f"{len(REPEATS)}x{len(FOLDS)}"
# The page of a run in progress; no output of a rule.
progress = progress_page.ProgressPage(
    Path(FOLDER).parent, ROOT / "workflow_scripts/lib/page/progress.html", stage_views.progress_settings(CONFIG)
)


wildcard_constraints:
    run=re.escape(CONFIG["run"]),
    repeat=r"\d+",
    fold=r"\d+",
    job=r"\d+",
    generator="|".join(GENERATORS),
    set="|".join(SYNTHETIC_SETS) or "none",
    arm="|".join(ARMS),


# Called by functions in `params`, because Snakemake would read the braces of a plain text as wildcards.
as_json = views.as_json


def from_config(view, *more):
    """Input function of the config alone; its errors end the run in one line."""

    def given(wildcards):
        try:
            return view(CONFIG, *more)
        except run_check.ConfigError as error:
            raise WorkflowError(f"MixLoc: {error}") from None

    return given


def in_run(path):
    """A path of this run."""
    return views.in_run(CONFIG, path)


# A number format that is forced (lib/compute/device.py), and the stages whose files depend on it.
NUMBER_FORMAT = os.environ.get("MIXLOC_DTYPE", "")
FORMATTED = (
    "train_ddpm",
    "sample_ddpm",
    "sample_fold",
    "train_judge",
    "train_classifier",
    "replay_study",
    "embed_images",
)
BASE_STYLES = "workflow_scripts/lib/page/base.css"  # of all pages


def code(stage, *data):
    """Digest of a stage's code, for its params: where it changes, Snakemake re-runs this rule and no other.

    `data` names further files of MixLoc that the stage reads, where they are. Where a number format is forced, it is a
    part of the digest of what is computed in it."""
    digest = source_code.stage_digest(stage, ROOT, [ROOT / name for name in data if (ROOT / name).is_file()])
    return f"{digest} {NUMBER_FORMAT}" if NUMBER_FORMAT and stage in FORMATTED else digest


def growing(megabytes):
    """Memory that grows with each attempt: a job that ran out of it gets more (see `retries` of a profile)."""
    return lambda wildcards, attempt: megabytes * attempt


def every_fold(pattern, **more):
    """A path in every fold of every repeat."""
    return expand(in_run(f"repeat{{repeat}}/fold{{fold}}/{pattern}"), repeat=REPEATS, fold=FOLDS, **more)


def at_places(pattern, **more):
    """Files of every fold as few arguments, because a list of all could exceed the limit of a command line.

    A function, because Snakemake would read the braces of a plain text as wildcards."""
    paths = expand(in_run(f"repeat{{{{repeat}}}}/fold{{{{fold}}}}/{pattern}"), **more)
    return lambda wildcards: paths


def of_each(names, pattern):
    """Values name/repeat/fold=path of a flag for every fold, as few arguments likewise."""
    values = [f"{name}/{{repeat}}/{{fold}}={in_run(pattern.replace('{name}', name))}" for name in names]
    return lambda wildcards: values


def beside(*figures):
    """The other formats of figures, whose svg is the one declared by name."""
    return [f"results/{{run}}/figures/{figure}.{kind}" for figure in figures for kind in ("pdf", "png")]


def all_arms(wildcards):
    """The lists of arms of the whole run."""
    return every_fold("arms/job{job}.json", job=range(len(JOBS)))


def submitted_arms(wildcards):
    """The lists of arms that include the submitted one."""
    return arms_with(from_config(views.submitted_jobs)(wildcards))


def arms_with(jobs):
    """The lists of arms of some jobs, in every fold of every repeat."""
    return every_fold("arms/job{job}.json", job=jobs)


def arms_for_lockbox(wildcards):
    """The lists of arms, where there is a lockbox to evaluate them on."""
    from_config(views.require_lockbox)(wildcards)
    return all_arms(wildcards)


def in_fold(wildcards, path):
    """A path in the fold of a job."""
    return in_run(f"repeat{wildcards.repeat}/fold{wildcards.fold}/{path}")


def generator_of(wildcards):
    """The generator that a synthetic set is drawn from."""
    return in_fold(wildcards, f"generators/{SYNTHETIC_SETS[wildcards.set]['generator']}.safetensors")


def baseline(wildcards):
    """The list of arms with the fold's own baseline; it is in the first job of the fold."""
    return in_fold(wildcards, "arms/job0.json")


def baseline_of(wildcards, entry):
    """The list of arms that begins with the arm which an entry of the config asks: mostly its regime's baseline."""
    return in_fold(wildcards, f"arms/job{views.asked_job(CONFIG, entry)}.json")


def asked_by_generator(wildcards):
    """The baseline and the file of another run, as inputs of generators that need them."""
    entry = GENERATORS[wildcards.generator]
    asked = {"baseline": baseline_of(wildcards, entry)} if generator_choices.pseudo_labels(entry) else {}
    if entry.get(origins.FROM):
        asked["origin"] = origins.place(entry, wildcards.repeat, wildcards.fold)
    return asked


def origin_flag(wildcards, input):
    """The flag by which train_ddpm gets the file that a generator comes from, if it comes from one."""
    return f"--origin {shlex.quote(input.origin)}" if input.get("origin") else ""


def origin_digest(wildcards):
    """Digest of the generator that another one comes from: a copied file may be older than what was made from it."""
    entry = GENERATORS[wildcards.generator]
    return origins.header(entry, wildcards.repeat, wildcards.fold).digest if entry.get(origins.FROM) else ""


def asked_by_set(wildcards):
    """The baseline and the weaker generator, as inputs of synthetic sets that need them."""
    entry, asked = SYNTHETIC_SETS[wildcards.set], {}
    if generator_choices.asks_baseline(entry):
        asked["baseline"] = baseline_of(wildcards, entry)
    if weaker := generator_choices.weaker_generator(entry):
        asked["weaker"] = in_fold(wildcards, f"generators/{weaker}.safetensors")
    return asked


def asked_by_arms(wildcards):
    """The baseline, as an input of jobs with arms whose method needs it; these all ask the same one."""
    arms = [entry for entry in JOBS[int(wildcards.job)] if asked_arms.asks_baseline([entry])]
    return {"baseline": baseline_of(wildcards, arms[0])} if arms else {}


def baseline_flag(wildcards, input):
    """The flag by which a stage gets the baseline, if it needs one."""
    return f"--baseline {shlex.quote(input.baseline)}" if input.get("baseline") else ""


def weaker_flag(wildcards, input):
    """The flag by which sample_ddpm gets a weaker generator, if the set is guided by one."""
    return f"--weaker {shlex.quote(input.weaker)}" if input.get("weaker") else ""


def judge(wildcards):
    """Classifier that judges generated images: an independent one for simulated cells, else the fold's baseline."""
    return in_run("judge.safetensors") if CONFIG["data"]["source"] == "simulated" else baseline(wildcards)


def new_table(wildcards, input):
    """The flag by which a stage gets the table of new images, if there is one."""
    return ["--table", input.new_table] if input.get("new_table") else []


def raw_flags(wildcards, input):
    """The flags by which a stage gets the raw images and their tables."""
    return given_images.raw_flags(CONFIG, dict(input.items()))
