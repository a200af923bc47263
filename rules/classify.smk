# Training and prediction of the arms. Training an arm takes seconds to minutes, and importing torch takes seconds too.
# So one job trains several arms of a fold: `job` numbers these jobs (compute.arms_per_job). The declared output of a
# job lists its arms. When the job runs again, arms whose settings, inputs and code are unchanged are kept.
#
# The first job of a fold holds the baseline. Arms whose method or synthetic set needs the trained baseline are in later
# jobs.
#
# Needs:  images.h5, folds.csv, the synthetic sets and the generators that the arms name
# Makes:  .../fold{fold}/arms/job{job}.json, and beside it {arm}/classifier.safetensors, {arm}/predictions.h5


rule train_classifier:
    """Train and predict the arms of a job of one fold."""
    input:
        unpack(asked_by_arms),
        images=FOLD_IMAGES,
        folds="results/{run}/repeat{repeat}/folds.csv",
        synthetic=lambda wildcards: [
            f"results/{wildcards.run}/repeat{wildcards.repeat}/fold{wildcards.fold}/synthetic/{name}.h5"
            for name in views.sets_of(JOBS[int(wildcards.job)])
        ],
        generators=lambda wildcards: [
            in_fold(wildcards, f"generators/{name}.safetensors")
            for name in views.generators_of(JOBS[int(wildcards.job)])
        ],
        embeddings=lambda wildcards: [
            in_fold(wildcards, f"synthetic/{name}.embeddings.h5") if name else in_run("images.embeddings.h5")
            for name in views.embedded_sets(CONFIG, JOBS[int(wildcards.job)])
        ],
        # Published weights that arms start from, where the config names some.
        weights=lambda wildcards: views.weights_of(CONFIG, JOBS[int(wildcards.job)]),
    output:
        "results/{run}/repeat{repeat}/fold{fold}/arms/job{job}.json",
    params:
        python=python,
        code=code("train_classifier"),
        arms="results/{run}/repeat{repeat}/fold{fold}/arms",
        synthetic=lambda wildcards, input: [
            f"{name}={path}"
            for name, path in zip(views.sets_of(JOBS[int(wildcards.job)]), input.synthetic, strict=True)
        ],
        generators=lambda wildcards, input: [
            f"{name}={path}"
            for name, path in zip(views.generators_of(JOBS[int(wildcards.job)]), input.generators, strict=True)
        ],
        embeddings=lambda wildcards, input: [
            f"{name}={path}"
            for name, path in zip(views.embedded_sets(CONFIG, JOBS[int(wildcards.job)]), input.embeddings, strict=True)
        ],
        baseline=baseline_flag,
        settings=lambda wildcards: as_json(stage_views.job_settings(CONFIG, JOBS[int(wildcards.job)]), threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/train_classifier/repeat{repeat}_fold{fold}_job{job}.log",
    benchmark:
        "results/{run}/benchmarks/train_classifier/repeat{repeat}_fold{fold}_job{job}.tsv"
    threads: THREADS * PROCESSES * AT_ONCE
    resources:
        mem_mb=growing(6000 * PROCESSES),  # 4,500 MB at the study's size
        runtime=720,
        launcher=LAUNCHER,
        arms_at_once=AT_ONCE,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m {resources.launcher}workflow_scripts.train_classifier"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --synthetic {params.synthetic:q}"
        " --generators {params.generators:q}"
        " --embeddings {params.embeddings:q}"
        " {params.baseline}"
        " --arms-dir {params.arms:q}"
        " --manifest {output:q}"
        " --seed {params.seed}"
        " --at-once {resources.arms_at_once}"
        " --progress results/{wildcards.run}/progress"
        " --settings {params.settings:q}"
        " --log {log:q}"
