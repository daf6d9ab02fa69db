# syntax=docker/dockerfile:1.10
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The image of classify on an NVIDIA GPU, by Vulkan. From the repository's root:
#   docker build --file deploy/classify-gpu.Dockerfile --tag classify-gpu .
#
# Cloud Run mounts the driver's user space under /usr/local/nvidia but, as google/gvisor#12752 reports,
# not the file by which the Vulkan loader finds it: without that file the loader takes a software
# adapter and says nothing. So this image brings the loader and the file, and the service refuses a
# software adapter (CLASSIFY_GPU=require). None of this has been run on Cloud Run.
#
# The model becomes a part of the program, so an image runs the one it was built with.
# Base images are pinned by tag: their digests could not be looked up where this was written.

# Debian with its C compiler, which aws-lc (TLS) and SQLite are built with; neither needs cmake.
FROM rust:1.95.0-bookworm AS chef
# The image's own toolchain: rust-toolchain.toml would fetch components that a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_INCREMENTAL=0
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# Fetches the model and checks its size and sum. A stage of its own, from model-import alone: a change
# of the services does not fetch it again.
FROM chef AS model
ARG MODEL=mobilenetv2
COPY --from=planner /src/recipe.json recipe.json
# Lays the workspace out with empty crates and builds nothing.
RUN cargo chef cook --locked --no-build --recipe-path recipe.json
# The sources and not the manifests, which those of the layout would not fit.
COPY model-import/src model-import/src
COPY models models
# Optimised dependencies (the dev profile's setting) take minutes to build, to save milliseconds here.
RUN cargo run --locked --package model-import --config 'profile.dev.package."*".opt-level=0' -- fetch "$MODEL"

FROM chef AS build
ARG MODEL=mobilenetv2
# flex is the CPU backend that the results of the GPU are checked against.
ARG FEATURES=cloud,flex,wgpu,autotune
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --locked --release --package classify --no-default-features --features "$FEATURES" \
        --recipe-path recipe.json
COPY . .
COPY --from=model /src/models models
# Naming the model makes the build fail rather than take another one.
RUN CLASSIFY_MODEL="$MODEL" CLASSIFY_MODEL_FETCH=never \
    cargo build --locked --release --package classify --no-default-features --features "$FEATURES"

FROM debian:bookworm-slim
ARG REVISION=unknown
LABEL org.opencontainers.image.title="classify-gpu" \
      org.opencontainers.image.description="An image in, a prediction out, on an NVIDIA GPU." \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.revision="$REVISION"
# NVIDIA's Vulkan driver is in libGLX_nvidia.so.0, which needs the two X libraries even with no screen.
# Versions are not pinned: Debian keeps only the newest of a release, with its security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libvulkan1 libx11-6 libxext6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin nonroot \
    && install --directory --owner=65532 --group=65532 /var/cache/classify-gpu
COPY deploy/nvidia_icd.json /etc/vulkan/icd.d/nvidia_icd.json
# Where Cloud Run mounts the driver; the only driver that the loader may take; where the NVIDIA container
# toolkit mounts it instead, which of its parts; and where it is kept which kernels the GPU is fastest with.
# An image made from this one saves the first start minutes if it copies that folder, as a service on the
# same kind of GPU left it, to the same place (with --chown=65532:65532).
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    VK_DRIVER_FILES=/etc/vulkan/icd.d/nvidia_icd.json \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics \
    CLASSIFY_GPU_CACHE=/var/cache/classify-gpu
COPY --from=build /src/target/release/classify /usr/local/bin/classify
USER 65532:65532
# The port is $PORT, 8001 where it is not set; Cloud Run sets it.
ENTRYPOINT ["/usr/local/bin/classify"]
