# The lockbox: images that nothing was fitted or chosen on (make_folds.fractions.lockbox), scored once, at the very end:
#
#   snakemake --cores 2 lockbox
#   snakemake --cores 2             # makes the report again, with the result
#
# No other target needs it, so it is never opened unasked. Every opening, of whatever run, is a line of
# results/lockbox_openings.jsonl, which is nobody's declared output, so that Snakemake never deletes it.
#
# Needs:  the finished run: the arms, declaration.json, analysis.json, thresholds.csv, leaks.csv
# Makes:  results/{run}/lockbox.csv, lockbox.json, a line of the ledger


rule open_lockbox:
    """The primary arm, its control and its baseline on the lockbox, and a line in the ledger of openings."""
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        arms=arms_for_lockbox,
        declaration="results/{run}/declaration.json",
        analysis="results/{run}/analysis.json",
        thresholds="results/{run}/thresholds.csv",
        leaks="results/{run}/leaks.csv",
    output:
        table=report(
            "results/{run}/lockbox.csv",
            caption="../captions/lockbox.rst",
            category="Tables",
        ),
        found="results/{run}/lockbox.json",
    params:
        python=python,
        code=code("open_lockbox"),
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in zip(REPEATS, input.folds, strict=True)],
        arms=at_places("arms/job{job}.json", job=range(len(JOBS))),
        places=PLACES,
        ledger=LEDGER,
        settings=lambda wildcards: as_json(
            {"analysis": stage_views.analysis(CONFIG), "arms": CONFIG["arms"]}, run=CONFIG["run"], threads=THREADS
        ),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/open_lockbox/open_lockbox.log",
    benchmark:
        "results/{run}/benchmarks/open_lockbox/open_lockbox.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.open_lockbox"
        " --images {input.images:q}"
        " --folds {params.folds:q}"
        " --arms {params.arms:q}"
        " --places {params.places:q}"
        " --declaration {input.declaration:q}"
        " --analysis {input.analysis:q}"
        " --thresholds {input.thresholds:q}"
        " --leaks {input.leaks:q}"
        " --ledger {params.ledger:q}"
        " --table {output.table:q}"
        " --out {output.found:q}"
        " --seed {params.seed}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule lockbox:
    """Open the lockbox; a second opening is allowed, and reported."""
    input:
        in_run("lockbox.csv"),
