# Commands for daily work. `just` is in Debian from 13 on, in Homebrew, and on PyPI as `rust-just`. Every recipe is
# one line, so each runs without it, too: `.ci/run --list` prints the steps.

# Lists the recipes.
default:
    @just --list --unsorted

# Runs the whole pipeline on this machine: upload on port 8000, classification on port 8001.
run *ARGUMENTS:
    cargo run --locked --release -- {{ ARGUMENTS }}

# Runs the tests of one crate, or of the default build.
test CRATE='':
    .ci/run test{{ if CRATE == '' { '' } else { ':' + CRATE } }}

# Checks format and lints of what changed against git.
check:
    .ci/run check

# Measures the pipeline, or a package of benchmarks: peers, preprocess-peers, gpu-bench, cnn-kernels, jpeg-scaled.
bench PACKAGE='image-pipeline':
    .ci/run bench:{{ PACKAGE }}

# Runs everything that must hold before a change lands, or the named steps of it.
ci *STEPS:
    .ci/run {{ STEPS }}

# Runs the checks that take long and seldom find anything, or the named steps of them.
nightly *STEPS:
    .ci/nightly {{ STEPS }}
