# A look at one's own images before anything trains:
#
#   snakemake --cores 2 check --configfile yeast.yaml
#
# Needs:  the folder of images and its tables (simulated or fetched images are made first), cost.json
# Makes:  results/{run}/check.html, whatever is found; check.json where the run could be judged


rule check_images:
    """Columns, channels, groups, near-duplicates, classes that can be judged, and cost, on one page."""
    input:
        unpack(from_config(given_images.raw_images)),
        cost="results/{run}/cost.json",
    output:
        "results/{run}/check.json",
    params:
        python=python,
        code=code("check_images", "workflow_scripts/lib/page/check.html", BASE_STYLES),
        raw=raw_flags,
        template=lambda wildcards, input: own_path("workflow_scripts/lib/page/check.html"),
        # No output, because Snakemake would delete it where the check fails.
        page="results/{run}/check.html",
        settings=lambda wildcards: as_json(stage_views.check_settings(CONFIG)),
    log:
        "results/{run}/logs/check_images/check_images.log",
    benchmark:
        "results/{run}/benchmarks/check_images/check_images.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.check_images"
        " {params.raw}"
        " --cost {input.cost:q}"
        " --template {params.template:q}"
        " --page {params.page:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule check:
    """The look at one's own images alone."""
    input:
        in_run("check.json"),
