# syntax=docker/dockerfile:1.10
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Builds the image of preprocess. From the repository's root:
#   docker build --file deploy/preprocess.Dockerfile --tag preprocess .
#
# Base images are pinned by tag and not by digest, because the digests were not available during
# development.

# This image contains the C compiler that aws-lc (TLS), SQLite, libjpeg-turbo and libwebp need.
# libjpeg-turbo also needs cmake and nasm, and the decoder of AVIF needs nasm. All these libraries
# are linked into the program.
FROM rust:1.95.0-bookworm AS chef
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake nasm \
    && rm -rf /var/lib/apt/lists/*
# Selects the toolchain of the image. rust-toolchain.toml would download components that a build does
# not need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_INCREMENTAL=0
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --locked --release --package preprocess --features turbo,avif --recipe-path recipe.json
COPY . .
RUN cargo build --locked --release --package preprocess --features turbo,avif

# This image contains glibc and certificates for TLS, but no shell. The service runs as the
# unprivileged user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION=unknown
LABEL org.opencontainers.image.title="preprocess" \
      org.opencontainers.image.description="Converts uploads to upright RGB JPEGs and announces them." \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /src/target/release/preprocess /usr/local/bin/preprocess
USER 65532:65532
# The service listens on $PORT, which Cloud Run sets, or on port 8000 if $PORT is not set.
ENTRYPOINT ["/usr/local/bin/preprocess"]
