# What all rules share: the checked config, the names that paths are made of, and input functions. No rules.
import json
import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
# Stages run with the Python that runs Snakemake, activated or not; with --sdm conda the environment's comes before it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

from workflow_scripts.lib import code as source_code
from workflow_scripts.lib import settings as run_settings

try:
    CONFIG = run_settings.check(config, Path(workflow.basedir) / "schemas" / "config.schema.json")
except run_settings.ConfigError as error:
    sys.exit(f"MixLoc config: {error}")

RUN = f"results/{CONFIG['run']}"
REPEATS = range(CONFIG["make_folds"]["repeats"])
FOLDS = range(CONFIG["make_folds"]["folds"])
GENERATORS = run_settings.by_name(CONFIG, "generators")
PLANS = run_settings.by_name(CONFIG, "plans")
STRATEGIES = run_settings.by_name(CONFIG, "strategies")
USED_PLANS = run_settings.used_plans(CONFIG)
USED_GENERATORS = sorted({PLANS[plan]["generator"] for plan in USED_PLANS})
JUDGE = "independent" if CONFIG["data"]["source"] == "simulated" else CONFIG["analysis"]["baseline"]
BATCHES = run_settings.batches(CONFIG)
THREADS = CONFIG["compute"]["threads"]


wildcard_constraints:
    run=re.escape(CONFIG["run"]),
    repeat=r"\d+",
    fold=r"\d+",
    batch=r"\d+",
    generator="|".join(GENERATORS),
    plan="|".join(PLANS) or "none",
    strategy="|".join(STRATEGIES),


def in_run(path):
    """A path of this run."""
    return f"{RUN}/{path}"


def code(stage):
    """The files that a stage consists of, so that editing one re-runs the stages that use it, and no others."""
    root = Path(workflow.basedir)
    return [str(path.relative_to(root)) for path in source_code.sources(stage, root)]


def as_json(section, **more):
    """A stage's settings as one line of JSON. Called by a function in `params`, because Snakemake would read the braces
    of a plain text as wildcards."""
    return json.dumps(section | more, sort_keys=True, ensure_ascii=False)


def every_fold(pattern, **more):
    """A path in every fold of every repeat."""
    return expand("results/{run}/repeat{repeat}/fold{fold}/" + pattern, run=CONFIG["run"], repeat=REPEATS, fold=FOLDS, **more)


def plans_of(batch):
    """The plans whose synthetic sets the arms of a batch need."""
    return sorted({entry["plan"] for entry in BATCHES[int(batch)] if entry.get("plan")})
