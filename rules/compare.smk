# Two finished runs on one page:
#
#   snakemake --cores 1 compare --config 'runs=[demo, second]'
#
# Needs:  two finished runs under results/; whatever their configs were, nothing of them is made again
# Makes:  results/compare/{a}_{b}.html


rule compare_runs:
    """Settings that differ, verdicts, scores and pictures of two runs."""
    output:
        f"results/compare/{views.compared_name(CONFIG)}.html",
    params:
        python=python,
        code=code("compare_runs", "workflow_scripts/lib/page/comparison.html", BASE_STYLES),
        template=lambda wildcards, input: own_path("workflow_scripts/lib/page/comparison.html"),
        runs=lambda wildcards: [f"{name}={path}" for name, path in from_config(views.compared_runs)(wildcards).items()],
        # The runs are no inputs, because they may have other settings than this config has.
        results=lambda wildcards: from_config(views.compared_digests)(wildcards),
        settings=lambda wildcards: as_json({}),
    log:
        "results/compare/logs/compare_runs/compare_runs.log",
    benchmark:
        "results/compare/benchmarks/compare_runs/compare_runs.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=10,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.compare_runs"
        " --runs {params.runs:q}"
        " --template {params.template:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule compare:
    """Compare two runs."""
    input:
        f"results/compare/{views.compared_name(CONFIG)}.html",
