# What all rules share: the checked config, the names that paths are made of, and input functions. No rules.
import hashlib
import json
import re
import shlex
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from workflow_scripts.lib.base import source_code
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.config import check as run_settings
from workflow_scripts.lib.config import snakemake_checks
from workflow_scripts.lib.cost import job_costs
from workflow_scripts.lib.download import http_client
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.study import switches

source_code.use_this_python()
if workflow.modifier.skip_configfile:  # a module with a config of its own, for which Snakemake leaves the defaults out
    given, config = config, load_configfile(str(ROOT / "config.yaml"))
    update_config(config, given)
try:
    CONFIG = run_settings.check(config, ROOT / "schemas" / "config.schema.json")
except run_settings.ConfigError as error:
    sys.exit(f"MixLoc config: {error}")

RUN = f"results/{CONFIG['run']}"
REPEATS = range(CONFIG["make_folds"]["repeats"])
FOLDS = range(CONFIG["make_folds"]["folds"])
GENERATORS = run_settings.by_name(CONFIG, "generators")
SYNTHETIC_SETS = run_settings.by_name(CONFIG, "synthetic_sets")
ARMS = run_settings.by_name(CONFIG, "arms")
USED_SETS = run_settings.used_sets(CONFIG)
SIMULATOR = generator_choices.SIMULATOR  # stands in a synthetic set for no generator: the simulator itself
USED_GENERATORS = sorted({SYNTHETIC_SETS[name]["generator"] for name in USED_SETS} - {SIMULATOR})
# A plan has one of two stages; a name that no synthetic set can have where one of them has none.
SIMULATED_SETS = "|".join(name for name in SYNTHETIC_SETS if SYNTHETIC_SETS[name]["generator"] == SIMULATOR) or "-"
GENERATED_SETS = "|".join(name for name in SYNTHETIC_SETS if SYNTHETIC_SETS[name]["generator"] != SIMULATOR) or "-"
JUDGE = "independent" if CONFIG["data"]["source"] == "simulated" else CONFIG["analysis"]["baseline"]
JOBS = run_settings.job_lists(CONFIG)
THREADS = CONFIG["compute"]["threads"]
FORENSICS = CONFIG["forensics"]
PROCESSES = CONFIG["compute"]["processes"]
AT_ONCE = CONFIG["compute"]["arms_at_once"]
# Among the resources of the stages that train, and not in their params: another number trains nothing again.
LAUNCHER = snakemake_checks.launcher(PROCESSES)
ENVIRONMENT = f"../envs/{CONFIG['compute']['environment']}.yaml"  # of the stages, with --sdm conda
SUBMITTED = CONFIG["write_submission"]["arm"] or CONFIG["analysis"]["primary_arm"]
LEDGER = "results/lockbox_openings.jsonl"  # of all runs


wildcard_constraints:
    run=re.escape(CONFIG["run"]),
    repeat=r"\d+",
    fold=r"\d+",
    job=r"\d+",
    generator="|".join(GENERATORS),
    set="|".join(SYNTHETIC_SETS) or "none",
    arm="|".join(ARMS),


def in_run(path):
    """A path of this run."""
    return f"{RUN}/{path}"


def code(stage, *data):
    """Digest of what a stage does, for its params: where it changes Snakemake runs the rule again, and no other.

    `data` names further files of MixLoc that the stage reads, where they are."""
    return source_code.stage_digest(stage, ROOT, [ROOT / name for name in data if (ROOT / name).is_file()])


def as_json(section, **more):
    """A stage's settings as one line of JSON. Called by a function in `params`, because Snakemake would read the braces
    of a plain text as wildcards."""
    return json.dumps(section | more, sort_keys=True, ensure_ascii=False)


def growing(megabytes):
    """Memory that grows with each attempt: a job that was killed for want of it gets more (see `retries` of a profile)."""
    return lambda wildcards, attempt: megabytes * attempt


def every_fold(pattern, **more):
    """A path in every fold of every repeat."""
    return expand(in_run(f"repeat{{repeat}}/fold{{fold}}/{pattern}"), repeat=REPEATS, fold=FOLDS, **more)


def sets_of(job):
    """The synthetic sets that the arms of a job need."""
    return sorted({entry["synthetic_set"] for entry in JOBS[int(job)] if entry.get("synthetic_set")})


def fetched():
    """Whether the images lie elsewhere and fetch_images brings them."""
    return CONFIG["data"]["source"] in ("public", "kaggle2018", "kaggle2021") and not CONFIG["data"]["images"]


def fetched_folder(part="train"):
    """Where fetch_images puts the images. It outlives runs, so it is nobody's declared output; what it held
    when a run began stands in fetched/checksums.csv."""
    return f"{CONFIG['fetch_images']['folder']}/{CONFIG['data']['source']}/{part}"


def manifest(wildcards):
    """What fetch_images is to fetch; the Kaggle sets bring their own table."""
    return {"manifest": CONFIG["data"]["table"]} if CONFIG["data"]["source"] == "public" else {}


def raw_images(wildcards):
    """Where the raw images and their tables are, by data.source."""
    data = CONFIG["data"]
    if data["source"] == "simulated":
        return {
            "images": in_run("simulated/train"),
            "table": in_run("simulated/train.csv"),
            "groups": in_run("simulated/metadata.csv"),
            "classes": in_run("simulated/classes.csv"),
        }
    given = {name: data[name] for name in ("images", "table", "groups", "classes") if data[name]}
    if fetched():
        given |= {"table": in_run("fetched/table.csv"), "checksums": in_run("fetched/checksums.csv")}
    return given


def test_images(wildcards):
    """The competition's test images and sample table where the config names them; otherwise what fetches them."""
    section = CONFIG["write_submission"]
    given = {name: section[name] for name in ("images", "sample") if section[name]}
    if CONFIG["data"]["classes"]:
        given["classes"] = CONFIG["data"]["classes"]
    if "images" in given and "sample" in given:
        return given
    if not fetched():
        raise WorkflowError("MixLoc: the target submission needs write_submission.images and write_submission.sample")
    return given | {"checksums": in_run("fetched/checksums.csv")}


def submitted_arm(wildcards):
    """The lists of arms with the one that is handed in."""
    found = [index for index, arms in enumerate(JOBS) if any(arm["name"] == SUBMITTED for arm in arms)]
    if not found:
        raise WorkflowError(f"MixLoc: write_submission.arm = {SUBMITTED!r} is not among the arms: {', '.join(ARMS)}")
    return every_fold("arms/job{job}.json", job=found)


def arms_for_lockbox(wildcards):
    """The lists of arms, where there is a lockbox that they can be asked about."""
    if not CONFIG["make_folds"]["fractions"]["lockbox"] > 0:
        raise WorkflowError(
            "MixLoc: there is no lockbox: make_folds.fractions.lockbox is 0, so no image was set aside for it. Give it a "
            "share, such as 0.1, and train again"
        )
    return all_arms(wildcards)


def openings_so_far():
    """A digest of the ledger of the lockbox, so that the page is made again when a line was added."""
    ledger = Path(LEDGER)
    return hashlib.blake2b(ledger.read_bytes(), digest_size=8).hexdigest() if ledger.exists() else ""


def known_tables(wildcards):
    """The tables of one's own images, by which they can be counted before any is read."""
    data = CONFIG["data"]
    names = ("table", "groups", "classes") if data["source"] != "simulated" else ()
    return {name: data[name] for name in names if data[name]}


def raw_flags(wildcards, input):
    """The flags by which a stage gets the raw images and their tables."""
    given = {"images-dir": input.get("images") or fetched_folder(), "table": input.table}
    given |= {name: input[name] for name in ("groups", "classes") if input.get(name)}
    return " ".join(f"--{name} {shlex.quote(path)}" for name, path in given.items())


def shards(wildcards):
    """What the jobs that read a shard of the images leave, where there are several."""
    count = CONFIG["preprocess_images"]["shards"]
    return [in_run(f"shards/{shard}of{count}.json") for shard in range(count)] if count > 1 else []


def generator_of(wildcards):
    """The generator that a synthetic set samples from."""
    name = SYNTHETIC_SETS[wildcards.set]["generator"]
    return in_run(f"repeat{wildcards.repeat}/fold{wildcards.fold}/generators/{name}.safetensors")


def baseline(wildcards):
    """The list of arms with the fold's own baseline; it is in the first job of the fold."""
    return in_run(f"repeat{wildcards.repeat}/fold{wildcards.fold}/arms/job0.json")


def asked_by_set(wildcards):
    """The baseline, as an input of synthetic sets that ask it."""
    return {"baseline": baseline(wildcards)} if generator_choices.asks_baseline(SYNTHETIC_SETS[wildcards.set]) else {}


def asked_by_arms(wildcards):
    """The baseline, as an input of jobs with arms whose method asks it."""
    methods = arm_choices.METHODS
    asked = any(methods[entry["method"]].needs_baseline for entry in JOBS[int(wildcards.job)])
    return {"baseline": baseline(wildcards)} if asked else {}


def baseline_flag(wildcards, input):
    """The flag by which a stage gets the baseline, if it needs one."""
    return f"--baseline {shlex.quote(input.baseline)}" if input.get("baseline") else ""


def judge(wildcards):
    """Who judges generated images: where cells are simulated an independent judge, elsewhere the fold's baseline."""
    return in_run("judge.safetensors") if CONFIG["data"]["source"] == "simulated" else baseline(wildcards)


def weights_of(job):
    """The files of published weights that the arms of a job start from. Those that fetch_weights brings outlive runs,
    so they are nobody's declared output: their record of this run stands for them."""
    methods, found = arm_choices, set()
    for entry in JOBS[int(job)]:
        arm = methods.effective(entry, CONFIG["train_classifier"])
        if arm["weights"] == methods.published_path(CONFIG["fetch_weights"]["folder"], arm["backbone"]):
            found.add(in_run(f"fetched/weights/{arm['backbone']}.csv"))
        elif arm["weights"]:
            found.add(str(methods.weights_path(arm["weights"])))
    return sorted(found)


def encoder_weights():
    """The file of the user's own encoder, where the config names one."""
    encoder = CONFIG["assess_synthetic"]["encoder"]
    return [str(arm_choices.weights_path(encoder["weights"]))] if isinstance(encoder, dict) else []


def all_arms(wildcards):
    """The lists of arms of the whole run."""
    return every_fold("arms/job{job}.json", job=range(len(JOBS)))


def every_replay(pattern):
    """A file of every shard of the replay (target forensics), in every fold of its own number of repeats."""
    if not FORENSICS["models"]:
        raise WorkflowError("MixLoc: the target forensics needs forensics.models; presets/paper.yaml has some")
    places = expand(
        in_run("repeat{repeat}/fold{fold}/replay/{shard}"),
        repeat=range(FORENSICS["repeats"]),
        fold=FOLDS,
        shard=range(FORENSICS["shards"]),
    )
    return [f"{place}{pattern}" for place in places]


def beside(*figures):
    """The other formats of figures, whose svg is the one declared by name."""
    return [f"results/{{run}}/figures/{figure}.{kind}" for figure in figures for kind in ("pdf", "png")]


def forensics_flag():
    """The flag by which the report gets the replay's result, if there is one, and the digest of that."""
    path = Path(in_run("forensics.json"))
    if not path.exists():
        return [], ""
    return ["--forensics", str(path)], hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


# Repeats and folds, as stages take them (--places): {repeat} and {fold} in an argument then stand for each of them.
PLACES = f"{len(REPEATS)}x{len(FOLDS)}"


def at_places(pattern, **more):
    """The files of every fold as few arguments: a list of all would be longer than a command line may be. A function,
    because Snakemake would read the braces of a plain text as wildcards."""
    paths = expand(in_run(f"repeat{{{{repeat}}}}/fold{{{{fold}}}}/{pattern}"), **more)
    return lambda wildcards: paths


def of_each(names, pattern):
    """The values of a flag that takes something of every fold, name/repeat/fold=path, as few arguments likewise."""
    values = [f"{name}/{{repeat}}/{{fold}}={in_run(pattern.replace('{name}', name))}" for name in names]
    return lambda wildcards: values
