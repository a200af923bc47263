# What leaves a run, for other tools and other people:
#
#   snakemake --cores 2 export --config 'export={format: ome_tiff}'
#
# Needs:  images.h5 and synthetic sets
# Makes:  results/{run}/export/: images/, labels.csv, mixloc.yaml


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
