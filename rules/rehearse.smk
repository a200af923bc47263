# A rehearsal: every job of the run once through with a handful of steps, then a forecast of the run itself:
#
#   snakemake --cores 2 rehearse --configfile presets/hpa.yaml
#
# Needs:  what the run needs
# Makes:  results/{run}/rehearsal.json; the rehearsal is a run of its own, in results/{run}-rehearsal/
#
# It runs on the machine where it is started. On a cluster, start it in a job on a node like those of the run.

import time


rule rehearse_run:
    """A run of all jobs with few steps, and the forecast from what they took."""
    output:
        "results/{run}/rehearsal.json",
    params:
        python=python,
        code=code("rehearse_run"),
        # Another time each time: what is finished within is kept, so asking again costs seconds, and follows the data,
        # the machine and its cores.
        asked=lambda wildcards: time.time_ns(),
        # The Python that Snakemake runs in now, which need not be that of the stages.
        snakemake=shlex.join([sys.executable, "-m", "snakemake", *snakemake_checks.deployment(workflow)]),
        snakefile=lambda wildcards, input: str(ROOT / "Snakefile"),
        settings=lambda wildcards: as_json({"config": config}, gpus=snakemake_checks.room(workflow)[1], threads=THREADS),
    log:
        "results/{run}/logs/rehearse_run/rehearse_run.log",
    benchmark:
        "results/{run}/benchmarks/rehearse_run/rehearse_run.tsv"
    localrule: True
    threads: workflow.cores or 1
    resources:
        mem_mb=growing(2000),
        runtime=600,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.rehearse_run"
        " --snakemake {params.snakemake:q}"
        " --snakefile {params.snakefile:q}"
        " --cores {threads:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule rehearse:
    """Rehearse the run."""
    input:
        in_run("rehearsal.json"),
