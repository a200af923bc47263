# The figures and the table of the reference study, and which of its choices made its result, from a run with
# presets/paper.yaml:
#
#   snakemake --configfile presets/paper.yaml --cores 2 paper
#   snakemake --configfile presets/paper.yaml --cores 2 forensics
#
# Needs:  the arms, figures and report of the run; for forensics images.h5, folds.csv
# Makes:  results/{run}/study.csv; .../fold{fold}/replay/{shard}.csv and {shard}.fitted.json,
#         results/{run}/forensics.csv, forensics.json, forensics_leaks.csv, figures/forensics.*
#
# replay_study keeps generators, synthetic sets and finished units in .../fold{fold}/replay/, so that a job that was
# killed goes on where it was; they are nobody's declared output.


rule tabulate_study:
    """The study's table, validation against test for each model, beside the published numbers."""
    input:
        arms=all_arms,
        leaks="results/{run}/leaks.csv",
    output:
        report(
            "results/{run}/study.csv",
            caption="../captions/study.rst",
            category="Reference study",
        ),
    params:
        python=python,
        code=code("tabulate_study"),
        arms=at_places("arms/job{job}.json", job=range(len(JOBS))),
        places=PLACES,
        settings=lambda wildcards: as_json({}),
    log:
        "results/{run}/logs/tabulate_study/tabulate_study.log",
    benchmark:
        "results/{run}/benchmarks/tabulate_study/tabulate_study.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.tabulate_study"
        " --arms {params.arms:q}"
        " --places {params.places:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule replay_study:
    """The study's models in one fold, under a factorial design of its suspicious choices."""
    input:
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
    output:
        scores="results/{run}/repeat{repeat}/fold{fold}/replay/{shard,\d+}.csv",
        record="results/{run}/repeat{repeat}/fold{fold}/replay/{shard}.fitted.json",
    params:
        python=python,
        code=code("replay_study"),
        work="results/{run}/repeat{repeat}/fold{fold}/replay",
        settings=lambda wildcards: as_json(switches.stage_settings(CONFIG), threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/replay_study/repeat{repeat}_fold{fold}_{shard}.log",
    benchmark:
        "results/{run}/benchmarks/replay_study/repeat{repeat}_fold{fold}_{shard}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=1440,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.replay_study"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --shard {wildcards.shard}"
        " --seed {params.seed}"
        " --work {params.work:q}"
        " --scores {output.scores:q}"
        " --record {output.record:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


use rule certify_leaks as certify_leaks_of_replay with:
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=range(FORENSICS["repeats"])),
        records=from_config(views.replay_files, ".fitted.json"),
        analysis=[],
    output:
        report(
            "results/{run}/forensics_leaks.csv",
            caption="../captions/leaks.rst",
            category="Reference study",
        ),
    params:
        python=python,
        code=code("certify_leaks"),
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in enumerate(input.folds)],
        artefacts=lambda wildcards, input: input.records,
        places=f"{FORENSICS['repeats']}x{len(FOLDS)}",
        settings=lambda wildcards: as_json(
            # Rules that the replay breaks on purpose, each declared by its switch.
            {"violations": switches.violations(CONFIG), "encoder": "baseline"}
        ),
    log:
        "results/{run}/logs/certify_leaks/forensics.log",
    benchmark:
        "results/{run}/benchmarks/certify_leaks/forensics.tsv"


rule forensics:
    """Effects of the study's choices on validation, on test, and on the gap between them."""
    input:
        scores=from_config(views.replay_files, ".csv"),
        leaks=in_run("forensics_leaks.csv"),
    output:
        in_run("figures/forensics.pdf"),
        in_run("figures/forensics.png"),
        table=report(
            in_run("forensics.csv"),
            caption="../captions/forensics.rst",
            category="Reference study",
        ),
        facts=in_run("forensics.json"),
        figure=report(
            in_run("figures/forensics.svg"),
            caption="../captions/forensics.rst",
            category="Reference study",
            labels={"figure": "forensics"},
        ),
    params:
        python=python,
        code=code("forensics"),
        settings=lambda wildcards: as_json(switches.stage_settings(CONFIG)),
        seed=CONFIG["seed"],
    log:
        f"results/{CONFIG['run']}/logs/forensics/forensics.log",
    benchmark:
        f"results/{CONFIG['run']}/benchmarks/forensics/forensics.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.forensics"
        " --scores {input.scores:q}"
        " --leaks {input.leaks:q}"
        " --seed {params.seed}"
        " --table {output.table:q}"
        " --facts {output.facts:q}"
        " --figure {output.figure:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule paper:
    """All figures of the reference study: panel, generator loss, classifier curves, validation against test."""
    input:
        in_run("report.html"),
        in_run("study.csv"),
