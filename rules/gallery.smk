# Generated images beside real ones of train parts, to be browsed:
#
#   snakemake --cores 2 gallery
#
# No other target needs it. It waits for the declaration, so that nobody looks first and declares then.
#
# Needs:  images.h5, tables of roles, synthetic sets and what assess_synthetic says of each image, declaration.json
# Makes:  results/{run}/gallery/index.html, which loads nothing


GALLERY = ("workflow_scripts/lib/page/gallery.html", "workflow_scripts/lib/page/gallery.js")


rule make_gallery:
    """Generated images beside their nearest training images, on one page with filters, channels and contrast."""
    input:
        images="results/{run}/images.h5",
        folds=expand("results/{{run}}/repeat{repeat}/folds.csv", repeat=REPEATS),
        sets=lambda wildcards: every_fold(
            "synthetic/{set}.{kind}", set=from_config(views.gallery_sets)(wildcards), kind=["h5", "images.csv"]
        ),
        declaration="results/{run}/declaration.json",
    output:
        "results/{run}/gallery/index.html",
    params:
        python=python,
        code=code("make_gallery", *GALLERY, BASE_STYLES),
        template=lambda wildcards, input: own_path(GALLERY[0]),
        script=lambda wildcards, input: own_path(GALLERY[1]),
        folds=lambda wildcards, input: [f"{repeat}={path}" for repeat, path in zip(REPEATS, input.folds, strict=True)],
        places=PLACES,
        synthetic=of_each(USED_SETS, "repeat{repeat}/fold{fold}/synthetic/{name}.h5"),
        each=of_each(USED_SETS, "repeat{repeat}/fold{fold}/synthetic/{name}.images.csv"),
        settings=lambda wildcards: as_json(stage_views.gallery_settings(CONFIG)),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/make_gallery/make_gallery.log",
    benchmark:
        "results/{run}/benchmarks/make_gallery/make_gallery.tsv"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.make_gallery"
        " --places {params.places:q}"
        " --images {input.images:q}"
        " --folds {params.folds:q}"
        " --synthetic {params.synthetic:q}"
        " --each {params.each:q}"
        " --seed {params.seed}"
        " --template {params.template:q}"
        " --script {params.script:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule gallery:
    """The page alone."""
    input:
        in_run("gallery/index.html"),
