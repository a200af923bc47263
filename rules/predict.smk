# Predictions of an arm for new images:
#
#   snakemake --cores 2 predict --config 'predict={images: folder or table, arm: pool}'
#
# Needs:  the arms of the run, thresholds.csv, leaks.csv, images.h5, folds.csv, and a folder of new images
# Makes:  results/{run}/predicted/{name}/: images.csv, groups.csv, left_out.csv, about.json; of whole fields (data.cells)
#         before that results/{run}/new_cells/{name}/

NEW_CELLS = f"results/{{run}}/new_cells/{CONFIG['predict']['name']}"


rule cut_new_cells:
    """The cells of new whole fields, cut as those of the run were."""
    input:
        unpack(from_config(given_images.given_new_images)),
        about="results/{run}/cells/about.json",
    output:
        images=directory(f"{NEW_CELLS}/images"),
        table=f"{NEW_CELLS}/table.csv",
        nuclei=f"{NEW_CELLS}/nuclei.csv",
        left_out=f"{NEW_CELLS}/left_out.csv",
        page=f"{NEW_CELLS}/index.html",
    params:
        python=python,
        code=code("cut_cells", "workflow_scripts/lib/page/fields.html", BASE_STYLES),
        folder=NEW_CELLS,
        table=new_table,
        template=lambda wildcards, input: own_path("workflow_scripts/lib/page/fields.html"),
        settings=lambda wildcards: as_json(stage_views.cutting(CONFIG), threads=THREADS),
    log:
        "results/{run}/logs/cut_new_cells/cut_new_cells.log",
    benchmark:
        "results/{run}/benchmarks/cut_new_cells/cut_new_cells.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.cut_cells"
        " --like {input.about:q}"
        " --images-dir {input.new_images:q}"
        " {params.table:q}"
        " --template {params.template:q}"
        " --out {params.folder:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule predict_images:
    """Labels and probabilities of new images, averaged over the folds and repeats of an arm."""
    input:
        unpack(from_config(given_images.new_images)),
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        arms=lambda wildcards: arms_with(from_config(views.predicting_jobs)(wildcards)),
        thresholds="results/{run}/thresholds.csv",
        leaks="results/{run}/leaks.csv",
    output:
        directory(f"results/{{run}}/predicted/{CONFIG['predict']['name']}"),
    params:
        python=python,
        code=code("predict_images"),
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in zip(REPEATS, input.folds, strict=True)],
        table=new_table,
        left_out=lambda wildcards, input: ["--left-out", input.new_left_out] if input.get("new_left_out") else [],
        settings=lambda wildcards: as_json(stage_views.predict_settings(CONFIG), threads=THREADS),
    log:
        "results/{run}/logs/predict_images/predict_images.log",
    benchmark:
        "results/{run}/benchmarks/predict_images/predict_images.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.predict_images"
        " --images {input.images:q}"
        " --folds {params.folds:q}"
        " --arms {input.arms:q}"
        " --thresholds {input.thresholds:q}"
        " --images-dir {input.new_images:q}"
        " {params.table:q}"
        " {params.left_out:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule predict:
    """Predict new images."""
    input:
        from_config(given_images.predicted),


rule write_model_package:
    """Weights, network code, thresholds and model card of an arm, to be used without MixLoc."""
    input:
        images="results/{run}/images.h5",
        arms=lambda wildcards: arms_with(from_config(views.packed_jobs)(wildcards)),
        thresholds="results/{run}/thresholds.csv",
        metrics="results/{run}/metrics.csv",
        leaks="results/{run}/leaks.csv",
    output:
        directory(f"results/{{run}}/models/{views.packed_arm(CONFIG)}"),
    params:
        python=python,
        code=code("write_model_package"),
        licence=lambda wildcards, input: own_path("LICENSE"),
        settings=lambda wildcards: as_json(stage_views.package_settings(CONFIG)),
    log:
        "results/{run}/logs/write_model_package/write_model_package.log",
    benchmark:
        "results/{run}/benchmarks/write_model_package/write_model_package.tsv"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.write_model_package"
        " --images {input.images:q}"
        " --arms {input.arms:q}"
        " --thresholds {input.thresholds:q}"
        " --metrics {input.metrics:q}"
        " --leaks {input.leaks:q}"
        " --licence {params.licence:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule model_package:
    """Make the model package of an arm."""
    input:
        in_run(f"models/{views.packed_arm(CONFIG)}"),
