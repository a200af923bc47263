# Embeddings: features of real and of synthetic images, for arms whose backbone is embedding_*.
#
# Needs:  images.h5, the synthetic sets that such arms mix in
# Makes:  images.embeddings.h5, .../synthetic/{set}.embeddings.h5


rule embed_images:
    """Features of the images of one set, from the user's table or by a network."""
    input:
        of=lambda wildcards: in_run(f"{wildcards.embedded}.h5"),
        given=from_config(views.embedding_files),
    output:
        "results/{run}/{embedded}.embeddings.h5",
    params:
        python=python,
        code=code("embed_images"),
        settings=lambda wildcards: as_json(stage_views.embedding_settings(CONFIG), threads=THREADS),
    wildcard_constraints:
        embedded=rf"images|repeat\d+/fold\d+/synthetic/({'|'.join(SYNTHETIC_SETS) or '-'})",
    log:
        "results/{run}/logs/embed_images/{embedded}.log",
    benchmark:
        "results/{run}/benchmarks/embed_images/{embedded}.tsv"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=240,
    conda:
        ENVIRONMENT
    shell:
        "{params.python} -m workflow_scripts.embed_images"
        " --of {input.of:q}"
        " --out {output:q}"
        " --settings {params.settings:q}"
        " --log {log:q}"
