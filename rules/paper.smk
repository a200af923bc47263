# The figures and the table of the reference study, from a run with presets/paper.yaml:
#
#   snakemake --configfile presets/paper.yaml --cores 2 paper
#
# Needs:  the arms, figures and report of the run
# Makes:  results/{run}/study.csv


rule tabulate_study:
    """The study's table, validation against test for each model, beside the published numbers."""
    input:
        arms=all_arms,
        leaks="results/{run}/leaks.csv",
        code=code("tabulate_study"),
    output:
        report(
            "results/{run}/study.csv",
            caption="../captions/study.rst",
            category="Reference study",
        ),
    params:
        arms=at_places("arms/batch{batch}.json", batch=range(len(BATCHES))),
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
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.tabulate_study"
        " --arms {params.arms:q}"
        " --places {params.places:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule paper:
    """Everything that the reference study shows: panel, generator loss, classifier curves, validation against test."""
    input:
        in_run("report.html"),
        in_run("study.csv"),
