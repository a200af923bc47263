# Scores, comparisons and the leak certificate.
#
# Needs:  the lists of arms of every fold (arms/job{job}.json)
# Makes:  results/{run}/declaration.json before arms are trained; metrics.csv, comparisons.csv, thresholds.csv,
#         strata.csv, analysis.json, leaks.csv


rule declare_analysis:
    """Declaration of the analysis, hashed and written to a ledger before the first test prediction."""
    output:
        "results/{run}/declaration.json",
    params:
        python=python,
        code=code("declare_analysis"),
        folder="results/{run}",
        ledger="results/{run}/declarations.jsonl",
        settings=lambda wildcards: as_json(
            stage_views.analysis(CONFIG), arms=CONFIG["arms"], experiment=stage_views.experiment(CONFIG)
        ),
    log:
        "results/{run}/logs/declare_analysis/declare_analysis.log",
    benchmark:
        "results/{run}/benchmarks/declare_analysis/declare_analysis.tsv"
    priority: 100  # before any arm, which needs nothing of it: a change of the analysis trains nothing again
    localrule: True  # shorter than any queue
    threads: 1
    resources:
        mem_mb=growing(500),
        runtime=10,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.declare_analysis"
        " --run-folder {params.folder:q}"
        " --ledger {params.ledger:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule aggregate_metrics:
    """Scores of every arm, and its comparisons with baseline and control, with intervals."""
    input:
        arms=all_arms,
        declaration="results/{run}/declaration.json",
        images="results/{run}/images.h5",
    output:
        metrics=report(
            "results/{run}/metrics.csv",
            caption="../captions/metrics.rst",
            category="Tables",
        ),
        comparisons=report(
            "results/{run}/comparisons.csv",
            caption="../captions/comparisons.rst",
            category="Tables",
        ),
        thresholds="results/{run}/thresholds.csv",
        strata=report(
            "results/{run}/strata.csv",
            caption="../captions/strata.rst",
            category="Tables",
        ),
        analysis="results/{run}/analysis.json",
    params:
        python=python,
        code=code("aggregate_metrics"),
        arms=at_places("arms/job{job}.json", job=range(len(JOBS))),
        places=PLACES,
        settings=lambda wildcards: as_json(
            stage_views.analysis(CONFIG),
            arms=CONFIG["arms"],
            generators_saw=stage_views.generators_saw(CONFIG),
            leaves_out=CONFIG["make_folds"]["leave_out"] is not None,
        ),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/aggregate_metrics/aggregate_metrics.log",
    benchmark:
        "results/{run}/benchmarks/aggregate_metrics/aggregate_metrics.tsv"
    threads: 4  # their number changes nothing but the time
    resources:
        mem_mb=growing(4000 + 3 * len(ARMS) * len(REPEATS) * len(FOLDS)),  # the logits of every arm in every fold
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.aggregate_metrics"
        " --arms {params.arms:q}"
        " --places {params.places:q}"
        " --declaration {input.declaration:q}"
        " --metrics {output.metrics:q}"
        " --comparisons {output.comparisons:q}"
        " --thresholds {output.thresholds:q}"
        " --images {input.images:q}"
        " --strata {output.strata:q}"
        " --analysis {output.analysis:q}"
        " --seed {params.seed}"
        " --threads {threads:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule certify_leaks:
    """Leak certificate: by the loaders' records no test image was fitted on; a leak fails the run."""
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        limits=every_fold("images.h5") if BY_TRAIN_PART else [],
        generators=every_fold("generators/{generator}.safetensors", generator=USED_GENERATORS),
        synthetic=every_fold("synthetic/{set}.h5", set=USED_SETS),
        arms=all_arms,
        stress=every_fold("stress.h5") if CORRUPTIONS else [],
        analysis="results/{run}/analysis.json",
    output:
        report(
            "results/{run}/leaks.csv",
            caption="../captions/leaks.rst",
            category="Tables",
        ),
    params:
        python=python,
        code=code("certify_leaks"),
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in zip(REPEATS, input.folds, strict=True)],
        artefacts=lambda wildcards: [
            *(at_places("images.h5")(wildcards) if BY_TRAIN_PART else []),
            *at_places("generators/{generator}.safetensors", generator=USED_GENERATORS)(wildcards),
            *at_places("synthetic/{set}.h5", set=USED_SETS)(wildcards),
            *at_places("arms/job{job}.json", job=range(len(JOBS)))(wildcards),
            *(at_places("stress.h5")(wildcards) if CORRUPTIONS else []),
        ],
        places=PLACES,
        settings=lambda wildcards: as_json(stage_views.certificate_settings(CONFIG)),
    log:
        "results/{run}/logs/certify_leaks/certify_leaks.log",
    benchmark:
        "results/{run}/benchmarks/certify_leaks/certify_leaks.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.certify_leaks"
        " --images {input.images:q}"
        " --folds {params.folds:q}"
        " --artefacts {params.artefacts:q}"
        " --places {params.places:q}"
        " --thresholds {input.analysis:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
