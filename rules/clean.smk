# Disk use of a finished run by stage, and what of it can be deleted without losing the answer:
#
#   snakemake --cores 1 clean                          # shows it
#   snakemake --cores 1 clean --config clean=yes       # deletes what is made again without training
#   snakemake --cores 1 clean --config clean=all       # deletes models and predictions as well
#
# Needs:  the folder of the run, whatever is in it
# Makes:  results/{run}/clean.json: what was there, and what was deleted
import time


rule clean_run:
    """Disk use by stage, and the deletion that `clean` asks for."""
    output:
        "results/{run}/clean.json",
    params:
        python=python,
        code=code("clean_run"),
        run_dir="results/{run}",
        # Another time each time, so that it runs whenever it is asked for.
        asked=lambda wildcards: time.time_ns(),
        settings=lambda wildcards: as_json({"clean": CONFIG["clean"]}),
    log:
        "results/{run}/logs/clean_run/clean_run.log",
    benchmark:
        "results/{run}/benchmarks/clean_run/clean_run.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.clean_run"
        " --run-dir {params.run_dir:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule clean:
    """Disk use by stage, shown in its log; deletes when `clean` says so."""
    input:
        in_run("clean.json"),
