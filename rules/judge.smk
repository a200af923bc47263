# Scores, comparisons and the proof that no test image was learned from.
#
# Needs:  the lists of arms of every fold (arms/batch{batch}.json)
# Makes:  results/{run}/declaration.json before arms are trained; metrics.csv, comparisons.csv, thresholds.csv, analysis.json, leaks.csv


rule declare_analysis:
    """What will be judged, hashed and written to a ledger before the first test prediction."""
    input:
        code=code("declare_analysis"),
    output:
        "results/{run}/declaration.json",
    params:
        folder="results/{run}",
        ledger="results/{run}/declarations.jsonl",
        settings=lambda wildcards: as_json(CONFIG["analysis"], strategies=CONFIG["strategies"]),
    log:
        "results/{run}/logs/declare_analysis/declare_analysis.log",
    benchmark:
        "results/{run}/benchmarks/declare_analysis/declare_analysis.tsv"
    priority: 100  # before any arm, which needs nothing of it: a change of the analysis trains nothing again
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.declare_analysis"
        " --run-folder {params.folder:q}"
        " --ledger {params.ledger:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule aggregate_metrics:
    """Scores of every arm, and every arm beside its baseline and its control with intervals."""
    input:
        arms=all_arms,
        declaration="results/{run}/declaration.json",
        code=code("aggregate_metrics"),
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
        analysis="results/{run}/analysis.json",
    params:
        settings=lambda wildcards: as_json(CONFIG["analysis"], strategies=CONFIG["strategies"]),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/aggregate_metrics/aggregate_metrics.log",
    benchmark:
        "results/{run}/benchmarks/aggregate_metrics/aggregate_metrics.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.aggregate_metrics"
        " --arms {input.arms:q}"
        " --declaration {input.declaration:q}"
        " --metrics {output.metrics:q}"
        " --comparisons {output.comparisons:q}"
        " --thresholds {output.thresholds:q}"
        " --analysis {output.analysis:q}"
        " --seed {params.seed}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule certify_leaks:
    """The proof, from what every loader recorded, that no test image was fitted on; a leak fails the run."""
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        generators=every_fold("generators/{generator}.safetensors", generator=USED_GENERATORS),
        synthetic=every_fold("synthetic/{plan}.h5", plan=USED_PLANS),
        arms=all_arms,
        analysis="results/{run}/analysis.json",
        code=code("certify_leaks"),
    output:
        report(
            "results/{run}/leaks.csv",
            caption="../captions/leaks.rst",
            category="Tables",
        ),
    params:
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in zip(REPEATS, input.folds, strict=True)],
        settings=lambda wildcards: as_json({"violations": CONFIG["violations"]}),
    log:
        "results/{run}/logs/certify_leaks/certify_leaks.log",
    benchmark:
        "results/{run}/benchmarks/certify_leaks/certify_leaks.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.certify_leaks"
        " --images {input.images:q}"
        " --folds {params.folds:q}"
        " --artefacts {input.generators:q} {input.synthetic:q} {input.arms:q}"
        " --thresholds {input.analysis:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
