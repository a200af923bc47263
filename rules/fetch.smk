# Downloads of images and published weights.
#
# Needs:  data.source: public with a manifest (data.table), or kaggle2018 or kaggle2021 without data.images
# Makes:  the images under fetch_images.folder, which is kept between runs and so declared by no rule, and
#         results/{run}/fetched/table.csv, checksums.csv
#
# Needs:  weights: imagenet in train_classifier or in an arm
# Makes:  the weights under fetch_weights.folder, likewise kept, and results/{run}/fetched/weights/{backbone}.csv


rule fetch_images:
    """The images of a public source and the table of those that are complete."""
    input:
        unpack(from_config(given_images.image_manifest)),
    output:
        table="results/{run}/fetched/table.csv",
        checksums="results/{run}/fetched/checksums.csv",
    params:
        python=python,
        code=code("fetch_images"),
        source=CONFIG["data"]["source"],
        # A function, because Snakemake would read braces in a plain text as wildcards.
        folder=lambda wildcards: CONFIG["fetch_images"]["folder"],
        manifest=lambda wildcards, input: ["--manifest", input.manifest] if input.get("manifest") else [],
        # What decides which images there are. Of the other settings, which depend on `input`, none is compared.
        images=lambda wildcards: as_json(stage_views.fetched_images(CONFIG)),
        settings=lambda wildcards, input: as_json(stage_views.fetch_settings(CONFIG)),
    log:
        "results/{run}/logs/fetch_images/fetch_images.log",
    benchmark:
        "results/{run}/benchmarks/fetch_images/fetch_images.tsv"
    localrule: True  # where Snakemake itself runs: the nodes of many clusters reach no server
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=2880,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.fetch_images"
        " --source {params.source:q}"
        " {params.manifest:q}"
        " --folder {params.folder:q}"
        " --table {output.table:q}"
        " --checksums {output.checksums:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule fetch_weights:
    """The ImageNet weights that torchvision publishes for a backbone, with their checksum."""
    output:
        "results/{run}/fetched/weights/{backbone,\w+}.csv",
    params:
        python=python,
        code=code("fetch_weights"),
        # Functions, because Snakemake would read braces in a plain text as wildcards.
        folder=lambda wildcards: str(network_choices.weights_path(CONFIG["fetch_weights"]["folder"])),
        settings=lambda wildcards, input: as_json(stage_views.fetch_weights_settings(CONFIG)),
    log:
        "results/{run}/logs/fetch_weights/{backbone}.log",
    benchmark:
        "results/{run}/benchmarks/fetch_weights/{backbone}.tsv"
    localrule: True
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=720,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.fetch_weights"
        " --backbone {wildcards.backbone}"
        " --folder {params.folder:q}"
        " --record {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
