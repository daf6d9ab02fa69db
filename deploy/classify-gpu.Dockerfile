# syntax=docker/dockerfile:1.10
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the image of classify for an NVIDIA GPU, which it uses through Vulkan. From the repository's root:
#   docker build --file deploy/classify-gpu.Dockerfile --tag classify-gpu .
#
# Cloud Run mounts the libraries of NVIDIA's driver under /usr/local/nvidia. According to
# google/gvisor#12752 it does not mount the file with which the Vulkan loader finds the driver. Without
# that file the loader silently selects a software adapter. So this image contains the loader and the
# file, and deploy/up sets CLASSIFY_GPU=require, with which the service refuses a software adapter. None
# of this has been run on Cloud Run.
#
# The model is compiled into the program, so an image always runs the model that it was built with.
# Base images are pinned by tag and not by digest, because the digests were not available during
# development.

# This image contains the C compiler that aws-lc (TLS) and SQLite need. They need no cmake.
FROM rust:1.95.0-bookworm AS chef
# Selects the toolchain of the image. rust-toolchain.toml would download components that a build does
# not need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_INCREMENTAL=0
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# Downloads the model and verifies its size and checksum. This stage depends only on model-import, so
# that a change of the services does not download the model again.
FROM chef AS model
ARG MODEL=mobilenetv2
COPY --from=planner /src/recipe.json recipe.json
# Creates a workspace of empty crates and builds nothing.
RUN cargo chef cook --locked --no-build --recipe-path recipe.json
# Copies no manifest, because all manifests must be those that cargo chef created for this workspace.
COPY crates/onnx-proto/src crates/onnx-proto/src
COPY model-import/src model-import/src
COPY models models
# The dev profile optimises dependencies. Here that would take minutes to save milliseconds.
RUN cargo run --locked --package model-import --config 'profile.dev.package."*".opt-level=0' -- fetch "$MODEL"

FROM chef AS build
ARG MODEL=mobilenetv2
# flex is the CPU backend whose results the service compares with those of the GPU.
ARG FEATURES=cloud,flex,wgpu,autotune
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --locked --release --package classify --no-default-features --features "$FEATURES" \
        --recipe-path recipe.json
COPY . .
COPY --from=model /src/models models
# With these variables the build fails if the model is missing, instead of using another model.
RUN CLASSIFY_MODEL="$MODEL" CLASSIFY_MODEL_FETCH=never \
    cargo build --locked --release --package classify --no-default-features --features "$FEATURES"

FROM debian:bookworm-slim
ARG REVISION=unknown
LABEL org.opencontainers.image.title="classify-gpu" \
      org.opencontainers.image.description="Classifies images on an NVIDIA GPU." \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.revision="$REVISION"
# NVIDIA's Vulkan driver is the library libGLX_nvidia.so.0. It needs the two X libraries even without a
# screen. Package versions are not pinned, because Debian keeps only the newest version of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libvulkan1 libx11-6 libxext6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin nonroot \
    && install --directory --owner=65532 --group=65532 /var/cache/classify-gpu
COPY deploy/nvidia_icd.json /etc/vulkan/icd.d/nvidia_icd.json
# - LD_LIBRARY_PATH: the folder in which Cloud Run mounts the driver
# - VK_DRIVER_FILES: the only driver that the Vulkan loader may use
# - NVIDIA_*: the GPUs and the parts of the driver that the NVIDIA container toolkit mounts, outside of
#   Cloud Run
# - CLASSIFY_GPU_CACHE: the folder in which the service stores which kernels are fastest on the GPU
# The first start measures the kernels, which takes minutes. A derived image can avoid that: it copies
# the cache folder of a service that ran on the same kind of GPU (with --chown=65532:65532).
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64 \
    VK_DRIVER_FILES=/etc/vulkan/icd.d/nvidia_icd.json \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics \
    CLASSIFY_GPU_CACHE=/var/cache/classify-gpu
COPY --from=build /src/target/release/classify /usr/local/bin/classify
USER 65532:65532
# The service listens on $PORT, which Cloud Run sets, or on port 8001 if $PORT is not set.
ENTRYPOINT ["/usr/local/bin/classify"]
