# syntax=docker/dockerfile:1.10
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the image of classify for CPUs. From the repository's root:
#   docker build --file deploy/classify-cpu.Dockerfile --tag classify-cpu .
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
ARG FEATURES=cloud,flex
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --locked --release --package classify --no-default-features --features "$FEATURES" \
        --recipe-path recipe.json
COPY . .
COPY --from=model /src/models models
# With these variables the build fails if the model is missing, instead of using another model.
RUN CLASSIFY_MODEL="$MODEL" CLASSIFY_MODEL_FETCH=never \
    cargo build --locked --release --package classify --no-default-features --features "$FEATURES"

# This image contains glibc and certificates for TLS, but no shell. The service runs as the
# unprivileged user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION=unknown
LABEL org.opencontainers.image.title="classify-cpu" \
      org.opencontainers.image.description="Classifies images on the CPU." \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /src/target/release/classify /usr/local/bin/classify
USER 65532:65532
# The service listens on $PORT, which Cloud Run sets, or on port 8001 if $PORT is not set.
ENTRYPOINT ["/usr/local/bin/classify"]
