# MixLoc: does synthetic training data make a protein-localization classifier better on proteins it has never seen?
#
# The rules stand in the order of the data. Each has the name of its script under workflow_scripts/, of its folder of
# logs and of its folder of benchmarks. Settings: config.yaml, then a preset (--configfile), then --config.
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")


include: "rules/location.smk"  # ROOT, the folder of MixLoc's own files; no rules


configfile: ROOT / "config.yaml"


include: "rules/common.smk"  # validation of the config, names, input functions; no rules


snakemake_checks.share_devices(workflow)  # one machine with several GPUs
scheduler_timers.mend()  # otherwise Snakemake itself takes more and more of a core in a long run


onstart:
    problem = snakemake_checks.submission_problem(workflow)
    problem = problem or snakemake_checks.devices_problem(workflow, PROCESSES, ("train_ddpm", "train_classifier"))
    if problem:
        raise WorkflowError(f"MixLoc: {problem}")
    warning = snakemake_checks.cores_warning(workflow, THREADS * PROCESSES)
    if warning:
        logger.warning(f"MixLoc: {warning}")
    if not workflow.remote_exec:
        if problem := snakemake_checks.held_elsewhere(workflow, CONFIG["run"]):
            raise WorkflowError(f"MixLoc: {problem}")
        logs = [path for job in workflow.dag.needrun_jobs() for path in job.log]
        # Where jobs run on this machine, their logs and clock are here, and the time left can be told.
        here = workflow.resource_settings.nodes is None
        progress.start(
            logs, workflow.resource_settings.cores if here else None, logger.info if here else logger.debug
        )


onsuccess:
    progress.end("done")


onerror:
    progress.end("stopped")
    for line in snakemake_checks.killed_jobs(workflow):
        logger.error(f"MixLoc: {line}")


rule all:
    """The verdict: results/{run}/report.html with everything it rests upon."""
    input:
        in_run("report.html"),
    default_target: True


include: "rules/cost.smk"  # predict_cost
include: "rules/rehearse.smk"  # rehearse_run
include: "rules/fetch.smk"  # fetch_images, fetch_weights
include: "rules/cells.smk"  # cut_cells
include: "rules/check.smk"  # check_images
include: "rules/data.smk"  # simulate_cells, preprocess_images, make_folds
include: "rules/generate.smk"  # train_ddpm, sample_ddpm, assess_synthetic
include: "rules/embed.smk"  # embed_images
include: "rules/classify.smk"  # train_classifier
include: "rules/judge.smk"  # aggregate_metrics, certify_leaks
include: "rules/stress.smk"  # stress_test, aggregate_stress
include: "rules/show.smk"  # plot_*, report
include: "rules/gallery.smk"  # make_gallery
include: "rules/lockbox.smk"  # open_lockbox
include: "rules/paper.smk"  # the figures of the reference study
include: "rules/submit.smk"  # write_submission
include: "rules/predict.smk"  # predict_images, write_model_package
include: "rules/compare.smk"  # compare_runs
include: "rules/share.smk"  # export_images, write_crate
include: "rules/clean.smk"  # clean_run
