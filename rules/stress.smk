# Scores under stress, where the config asks for them (stress_test.corruptions). Nothing is trained.
#
# Needs:  the trained arms of every fold, images.h5, folds.csv
# Makes:  .../fold{fold}/stress.h5, results/{run}/stress.csv, stress_areas.csv, figures/stress.{svg,pdf,png}


rule stress_test:
    """Answers of the arms of a fold for corrupted test images."""
    input:
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
        arms=lambda wildcards: [in_fold(wildcards, f"arms/job{job}.json") for job in range(len(JOBS))],
    output:
        "results/{run}/repeat{repeat}/fold{fold}/stress.h5",
    params:
        python=python,
        code=code("stress_test"),
        settings=lambda wildcards: as_json({"corruptions": views.corruptions(CONFIG)}, threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/stress_test/repeat{repeat}_fold{fold}.log",
    benchmark:
        "results/{run}/benchmarks/stress_test/repeat{repeat}_fold{fold}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.stress_test"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --arms {input.arms:q}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule aggregate_stress:
    """Scores of all arms by corruption and strength, and the areas under these curves, with intervals."""
    input:
        arms=all_arms,
        declaration="results/{run}/declaration.json",
        stress=every_fold("stress.h5"),
    output:
        beside("stress"),
        scores=report(
            "results/{run}/stress.csv",
            caption="../captions/stress.rst",
            category="Tables",
        ),
        areas=report(
            "results/{run}/stress_areas.csv",
            caption="../captions/stress_areas.rst",
            category="Tables",
        ),
        figure=report(
            "results/{run}/figures/stress.svg",
            caption="../captions/stress_figure.rst",
            category="Arms",
            labels={"figure": "score under stress"},
        ),
    params:
        python=python,
        code=code("aggregate_stress"),
        arms=at_places("arms/job{job}.json", job=range(len(JOBS))),
        stress=at_places("stress.h5"),
        places=PLACES,
        settings=lambda wildcards: as_json(
            {"analysis": stage_views.analysis(CONFIG), "arms": CONFIG["arms"]}
            | {key: CONFIG["stress_test"][key] for key in ("declared", "draws")}
        ),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/aggregate_stress/aggregate_stress.log",
    benchmark:
        "results/{run}/benchmarks/aggregate_stress/aggregate_stress.tsv"
    threads: 4  # their number changes nothing but the time
    resources:
        mem_mb=growing(4000 + 3 * len(ARMS) * len(REPEATS) * len(FOLDS)),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.aggregate_stress"
        " --arms {params.arms:q}"
        " --stress {params.stress:q}"
        " --places {params.places:q}"
        " --scores {output.scores:q}"
        " --areas {output.areas:q}"
        " --figure {output.figure:q}"
        " --seed {params.seed}"
        " --threads {threads:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
