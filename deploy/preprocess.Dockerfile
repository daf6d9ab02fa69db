# syntax=docker/dockerfile:1.10
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The image of preprocess. From the repository's root:
#   docker build --file deploy/preprocess.Dockerfile --tag preprocess .
#
# Base images are pinned by tag: their digests could not be looked up where this was written.

# Debian with its C compiler, which aws-lc (TLS), SQLite, libjpeg-turbo and libwebp are built with;
# libjpeg-turbo needs cmake and nasm, too. All of it ends up in the one program.
FROM rust:1.95.0-bookworm AS chef
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake nasm \
    && rm -rf /var/lib/apt/lists/*
# The image's own toolchain: rust-toolchain.toml would fetch components that a build does not need.
ENV RUSTUP_TOOLCHAIN=1.95.0 CARGO_INCREMENTAL=0
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=planner /src/recipe.json recipe.json
RUN cargo chef cook --locked --release --package preprocess --features turbo --recipe-path recipe.json
COPY . .
RUN cargo build --locked --release --package preprocess --features turbo

# glibc, the certificates for TLS and no shell; the user is 65532, who may write nothing.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION=unknown
LABEL org.opencontainers.image.title="preprocess" \
      org.opencontainers.image.description="An upload in, one upright RGB JPEG out, stored and announced." \
      org.opencontainers.image.licenses="GPL-3.0-or-later" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /src/target/release/preprocess /usr/local/bin/preprocess
USER 65532:65532
# The port is $PORT, 8000 where it is not set; Cloud Run sets it.
ENTRYPOINT ["/usr/local/bin/preprocess"]
