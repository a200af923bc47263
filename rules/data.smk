# From images to an image set and its folds.
#
# Needs:  nothing (data.source: simulated), or a folder of images and a label table
# Makes:  results/{run}/images.h5 and left_out.csv, results/{run}/repeat{repeat}/folds.csv; with intensity: train_part
#         also results/{run}/repeat{repeat}/fold{fold}/images.h5


rule simulate_cells:
    """Procedural four-channel fluorescence cells with known truth, as a folder in the Kaggle layout."""
    output:
        # Not temp: they are the data of the run, which one may want to see. Another size or other channels would
        # otherwise simulate them again.
        images=directory("results/{run}/simulated/train"),
        table="results/{run}/simulated/train.csv",
        metadata="results/{run}/simulated/metadata.csv",
        truth="results/{run}/simulated/truth.csv",
        classes="results/{run}/simulated/classes.csv",
    params:
        python=python,
        code=code("simulate_cells"),
        folder="results/{run}/simulated",
        # The number of processes changes no image, so it is no setting that would make them again.
        settings=lambda wildcards: as_json(stage_views.cells(CONFIG)),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/simulate_cells/simulate_cells.log",
    benchmark:
        "results/{run}/benchmarks/simulate_cells/simulate_cells.tsv"
    threads: CONFIG["simulate_cells"]["processes"]
    resources:
        mem_mb=growing(2000),
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.simulate_cells"
        " --out {params.folder:q}"
        " --seed {params.seed}"
        " --processes {threads:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule preprocess_shard:
    """A shard of the images, read by one of several jobs (preprocess_images.shards); preprocess_images joins them."""
    input:
        unpack(from_config(given_images.raw_images)),
    output:
        # Once the set is complete, its pieces and their records are deleted.
        temp("results/{run}/shards/{shard}of{shards}.json"),
    params:
        python=python,
        code=code("preprocess_shard"),
        raw=raw_flags,
        set="results/{run}/images.h5",
        settings=lambda wildcards: as_json(stage_views.reading(CONFIG), threads=THREADS),
    log:
        "results/{run}/logs/preprocess_shard/{shard}of{shards}.log",
    benchmark:
        "results/{run}/benchmarks/preprocess_shard/{shard}of{shards}.tsv"
    wildcard_constraints:
        shard=r"\d+",
        shards=r"\d+",
    threads: THREADS
    resources:
        mem_mb=growing(2000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.preprocess_shard"
        " {params.raw}"
        " --set {params.set:q}"
        " --shard {wildcards.shard}"
        " --shards {wildcards.shards}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule preprocess_images:
    """One image set from a folder of images, a label table and a table of groups."""
    input:
        unpack(from_config(given_images.raw_images)),
        shards=from_config(views.shard_files),
    output:
        images="results/{run}/images.h5",
        left_out="results/{run}/left_out.csv",
    params:
        python=python,
        code=code("preprocess_images"),
        raw=raw_flags,
        settings=lambda wildcards: as_json(stage_views.reading(CONFIG), threads=THREADS),
    log:
        "results/{run}/logs/preprocess_images/preprocess_images.log",
    benchmark:
        "results/{run}/benchmarks/preprocess_images/preprocess_images.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(2000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.preprocess_images"
        " {params.raw}"
        " --out {output.images:q}"
        " --left-out {output.left_out:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule make_folds:
    """The role of every group in every fold of one repeat."""
    input:
        images="results/{run}/images.h5",
    output:
        "results/{run}/repeat{repeat}/folds.csv",
    params:
        python=python,
        code=code("make_folds"),
        # What decides about the roles. Other regimes change none, and nothing is trained again for them alone: they
        # depend on `input`, so Snakemake does not compare them.
        roles=lambda wildcards: as_json(stage_views.roles_settings(CONFIG)),
        settings=lambda wildcards, input: as_json(stage_views.fold_settings(CONFIG)),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/make_folds/repeat{repeat}.log",
    benchmark:
        "results/{run}/benchmarks/make_folds/repeat{repeat}.tsv"
    priority: 20  # every other stage of a repeat waits for it, and it takes a second
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
        # A resource, not a param: another number changes no role, and trains nothing again.
        judged_from=CONFIG["analysis"]["minimum_positive_groups"],
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.make_folds"
        " --images {input.images:q}"
        " --out {output:q}"
        " --repeat {wildcards.repeat}"
        " --seed {params.seed}"
        " --minimum-positive-groups {resources.judged_from}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule normalise_images:
    """The images of a fold, normalised by its train part (preprocess_images.intensity: train_part)."""
    input:
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
    output:
        FOLD_VIEW,
    params:
        python=python,
        code=code("normalise_images"),
        settings=lambda wildcards: as_json(stage_views.limits_settings(CONFIG)),
    log:
        "results/{run}/logs/normalise_images/repeat{repeat}_fold{fold}.log",
    benchmark:
        "results/{run}/benchmarks/normalise_images/repeat{repeat}_fold{fold}.tsv"
    priority: 20  # every other stage of a fold waits for it
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.normalise_images"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
