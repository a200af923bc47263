# The environment of MixLoc as an image: Python, and what requirements.txt and constraints.txt pin. The checkout stays
# outside and is mounted, so settings, code and results are those on disk, and only new pins need a new image. In it:
#
#   docker build -t mixloc .
#   docker run --rm --init --user "$(id -u):$(id -g)" -v "$PWD:/mixloc" mixloc --cores 4
#
# What follows the name of the image is told to Snakemake. Images elsewhere: -v /their/folder:/their/folder:ro as well.
# NVIDIA GPUs: --gpus all. Podman: --userns=keep-id in place of --user.
#
# Which build of torch the image gets, pip decides as it does without a container: on Linux usually the one with the
# CUDA libraries, which also runs without a GPU. For the CPU build, smaller by gigabytes, or for another CUDA, give the
# address of PyTorch's wheels of that build (its installation page has them):
#
#   docker build -t mixloc --build-arg PIP_EXTRA_INDEX_URL=... .
FROM python:3.11-slim

# Read by pip where they are given. They stay in the history of the image: no passwords in them.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

COPY requirements.txt constraints.txt /opt/mixloc/
RUN python -m pip install --no-cache-dir --root-user-action=ignore \
        -r /opt/mixloc/requirements.txt -c /opt/mixloc/constraints.txt \
    && python -m pip check

# For any user: a home to write to, a name, and no packages from elsewhere.
RUN useradd --no-create-home mixloc
ENV HOME=/tmp USER=mixloc PYTHONNOUSERSITE=1
USER mixloc
WORKDIR /mixloc
ENTRYPOINT ["snakemake"]
CMD ["--help"]
