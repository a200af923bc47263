# Generators and the synthetic sets made from them, fold by fold.
#
# Needs:  results/{run}/images.h5, results/{run}/repeat{repeat}/folds.csv
# Makes:  .../fold{fold}/generators/{generator}.safetensors, .../fold{fold}/synthetic/{plan}.h5 and {plan}.assess.csv


rule train_ddpm:
    """A class-conditional diffusion model, fitted on the fold's train part alone."""
    input:
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        code=code("train_ddpm"),
    output:
        generator="results/{run}/repeat{repeat}/fold{fold}/generators/{generator}.safetensors",
        history="results/{run}/repeat{repeat}/fold{fold}/generators/{generator}.history.csv",
    params:
        settings=lambda wildcards: as_json(GENERATORS[wildcards.generator], threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/train_ddpm/repeat{repeat}_fold{fold}_{generator}.log",
    benchmark:
        "results/{run}/benchmarks/train_ddpm/repeat{repeat}_fold{fold}_{generator}.tsv"
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=720,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.train_ddpm"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output.generator:q}"
        " --history {output.history:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule sample_ddpm:
    """One synthetic set: a plan says which generator, labels, sampler and guidance."""
    input:
        generator=generator_of,
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        code=code("sample_ddpm"),
    output:
        "results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.h5",
    params:
        settings=lambda wildcards: as_json(PLANS[wildcards.plan], threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/sample_ddpm/repeat{repeat}_fold{fold}_{plan}.log",
    benchmark:
        "results/{run}/benchmarks/sample_ddpm/repeat{repeat}_fold{fold}_{plan}.tsv"
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=360,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.sample_ddpm"
        " --generator {input.generator:q}"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --seed {params.seed}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule train_judge:
    """An independent judge of generated cells: a classifier of freshly simulated cells of other proteins."""
    input:
        code=code("train_judge"),
    output:
        "results/{run}/judge.safetensors",
    params:
        settings=lambda wildcards: as_json(run_settings.judge_settings(CONFIG), threads=THREADS),
        seed=CONFIG["seed"],
    log:
        "results/{run}/logs/train_judge/train_judge.log",
    benchmark:
        "results/{run}/benchmarks/train_judge/train_judge.tsv"
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=240,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.train_judge"
        " --out {output:q}"
        " --seed {params.seed}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule assess_synthetic:
    """Do generated cells show what they were asked to show? A judge's scores on them, beside real held-out ones."""
    input:
        synthetic="results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.h5",
        images="results/{run}/images.h5",
        folds="results/{run}/repeat{repeat}/folds.csv",
        judge=judge,
        code=code("assess_synthetic"),
    output:
        report(
            "results/{run}/repeat{repeat}/fold{fold}/synthetic/{plan}.assess.csv",
            caption="../captions/assess.rst",
            category="Tables",
        ),
    params:
        settings=lambda wildcards: as_json({"judge": JUDGE}, threads=THREADS),
    log:
        "results/{run}/logs/assess_synthetic/repeat{repeat}_fold{fold}_{plan}.log",
    benchmark:
        "results/{run}/benchmarks/assess_synthetic/repeat{repeat}_fold{fold}_{plan}.tsv"
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../envs/mixloc.yaml"
    shell:
        "python -m workflow_scripts.assess_synthetic"
        " --synthetic {input.synthetic:q}"
        " --images {input.images:q}"
        " --folds {input.folds:q}"
        " --repeat {wildcards.repeat}"
        " --fold {wildcards.fold}"
        " --judge {input.judge:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
