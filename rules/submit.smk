# Submission table of an arm's predictions for the Kaggle 2018 competition:
#
#   snakemake --configfile presets/hpa.yaml --cores 8 submission
#
# Needs:  the arms of the run, thresholds.csv, and the competition's test images with its sample_submission.csv
# Makes:  results/{run}/submission.csv


rule write_submission:
    """Predictions of an arm for the unlabelled test images, averaged over its folds and repeats."""
    input:
        unpack(from_config(given_images.test_images)),
        arms=submitted_arms,
        thresholds="results/{run}/thresholds.csv",
        leaks="results/{run}/leaks.csv",
    output:
        "results/{run}/submission.csv",
    params:
        python=python,
        code=code("write_submission"),
        images=lambda wildcards, input: input.get("images") or given_images.fetched_folder(CONFIG, "test"),
        sample=lambda wildcards, input: input.get("sample")
        or given_images.fetched_folder(CONFIG, "sample_submission.csv"),
        classes=lambda wildcards, input: f"--classes {shlex.quote(input.classes)}" if input.get("classes") else "",
        settings=lambda wildcards: as_json(stage_views.submission_settings(CONFIG), threads=THREADS),
    log:
        "results/{run}/logs/write_submission/write_submission.log",
    benchmark:
        "results/{run}/benchmarks/write_submission/write_submission.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.write_submission"
        " --arms {input.arms:q}"
        " --thresholds {input.thresholds:q}"
        " --images-dir {params.images:q}"
        " --sample {params.sample:q}"
        " {params.classes}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"


rule submission:
    """Make the submission table."""
    input:
        in_run("submission.csv"),
