# Commands for daily work. `just` is in Debian since version 13, in Homebrew, and on PyPI as `rust-just`. Every
# recipe is a single command, which also runs without `just`. `.ci/run --list` prints the steps of CI.

# Lists the recipes.
default:
    @just --list --unsorted

# Runs the whole pipeline on this machine: upload on port 8000, classification on port 8001.
run *ARGUMENTS:
    cargo run --locked --release -- {{ ARGUMENTS }}

# Runs the tests of one crate, or all tests of the default build.
test CRATE='':
    .ci/run test{{ if CRATE == '' { '' } else { ':' + CRATE } }}

# Checks the format and lints of changed files.
check:
    .ci/run check

# Measures the pipeline, or one benchmark package: peers, preprocess-peers, gpu-bench, cnn-kernels, jpeg-scaled.
bench PACKAGE='image-pipeline':
    .ci/run bench:{{ PACKAGE }}

# Runs the pipeline for 15 minutes under load, hostile clients and faults; `--help` lists the options.
soak *ARGUMENTS:
    cargo test --locked --release --test soak -- {{ ARGUMENTS }}

# Runs all checks that must pass before a change is merged, or only the named steps.
ci *STEPS:
    .ci/run {{ STEPS }}

# Runs the checks that take long and seldom find anything, or only the named steps.
nightly *STEPS:
    .ci/nightly {{ STEPS }}
