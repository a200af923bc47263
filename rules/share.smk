# What leaves a run, for other tools and other people:
#
#   snakemake --cores 2 export --config 'export={format: ome_tiff}'
#   snakemake --cores 2 crate
#
# Needs:  images.h5 and synthetic sets; for the crate, the finished run
# Makes:  results/{run}/export/: images/, labels.csv, mixloc.yaml
#         results/{run}/ro-crate-metadata.json, results/{run}/workflow/


rule export_images:
    """Generated images as files with a table, in the layout that the source `folder` reads."""
    input:
        images="results/{run}/images.h5",
        synthetic=lambda wildcards: every_fold("synthetic/{set}.h5", set=from_config(views.exported_sets)(wildcards)),
    output:
        directory("results/{run}/export"),
    params:
        python=python,
        code=code("export_images"),
        places=PLACES,
        synthetic=lambda wildcards: of_each(
            from_config(views.exported_sets)(wildcards), "repeat{repeat}/fold{fold}/synthetic/{name}.h5"
        )(wildcards),
        settings=lambda wildcards: as_json(stage_views.export_settings(CONFIG)),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/export_images/export_images.log",
    benchmark:
        "results/{run}/benchmarks/export_images/export_images.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.export_images"
        " --places {params.places:q}"
        " --images {input.images:q}"
        " --synthetic {params.synthetic:q}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule export:
    """Export generated images."""
    input:
        in_run("export"),


rule write_crate:
    """Metadata that make the folder of a run an RO-Crate, and a copy of the workflow."""
    input:
        # Each file is read once for its checksum: minutes where a run has many images. So no part of every run.
        unpack(from_config(given_images.crate_tables)),
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        arms=all_arms,
        generators=every_fold("generators/{generator}.safetensors", generator=USED_GENERATORS),
        synthetic=every_fold("synthetic/{set}.h5", set=USED_SETS),
        metrics="results/{run}/metrics.csv",
        comparisons="results/{run}/comparisons.csv",
        analysis="results/{run}/analysis.json",
        thresholds="results/{run}/thresholds.csv",
        declaration="results/{run}/declaration.json",
        leaks="results/{run}/leaks.csv",
        report="results/{run}/report.html",
        report_tables="results/{run}/tables",
    output:
        metadata="results/{run}/ro-crate-metadata.json",
        workflow=directory("results/{run}/workflow"),
    params:
        python=python,
        code=code("write_crate"),
        folder=lambda wildcards, output: str(Path(output.metadata).parent),
        places=PLACES,
        arms=at_places("arms/job{job}.json", job=range(len(JOBS))),
        generators=at_places("generators/{generator}.safetensors", generator=USED_GENERATORS),
        synthetic=at_places("synthetic/{set}.h5", set=USED_SETS),
        tables=lambda wildcards, input: [f"{name}={input[name]}" for name in given_images.crate_tables(CONFIG)],
        settings=lambda wildcards: as_json(stage_views.crate_settings(CONFIG)),
    log:
        "results/{run}/logs/write_crate/write_crate.log",
    benchmark:
        "results/{run}/benchmarks/write_crate/write_crate.tsv"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.write_crate"
        " --run-dir {params.folder:q}"
        " --places {params.places:q}"
        " --folds {input.folds:q}"
        " --arms {params.arms:q}"
        " --generators {params.generators:q}"
        " --synthetic {params.synthetic:q}"
        " --tables {params.tables:q}"
        " --workflow {output.workflow:q}"
        " --out {output.metadata:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule crate:
    """Make the folder of the run an RO-Crate."""
    input:
        in_run("ro-crate-metadata.json"),
