# shellcheck shell=bash
# Runs named steps in order and prints the time of each step. `.ci/run` and `.ci/nightly` source this file.
#
# The sourcing script declares each step with `step NAME 'description'` and defines a function `step_NAME`, with
# `_` in place of each `-`. `extra NAME 'description'` declares a step that runs only if it is named.
# NAME:ARGUMENT runs a step with an argument. The script ends with `main "$@"`.

# The commands of all steps run in the root of the repository.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step_names=()
extra_names=()
declare -A descriptions

step() { step_names+=("$1") && descriptions[$1]=$2; }
extra() { extra_names+=("$1") && descriptions[$1]=$2; }

fail() {
    printf 'FAILED: %s\n' "$1" >&2
    exit 1
}

# install_cargo_tool PROGRAM VERSION: installs a program from its published crate into target/tools. The program is
# compiled without optimisation, because optimising it would take longer than running it.
install_cargo_tool() {
    if ! "target/tools/bin/$1" --version 2>/dev/null | grep -qwF "$2"; then
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
            cargo install --locked --quiet --root target/tools --version "$2" "$1"
    fi
}

# The features of the decoders in C and of AVIF.
# shellcheck disable=SC2034 # The sourcing scripts use it.
optional_decoders='preprocess/turbo,preprocess/avif,jpeg-scaled/compare'

# Succeeds if these decoders can be built.
install_c_tools() {
    .ci/install cmake cmake && .ci/install nasm nasm
}

list_steps() {
    local name
    for name in "$@"; do printf '%-16s%s\n' "$name" "${descriptions[$name]}"; done
}

usage() {
    printf 'usage: %s [--list | STEP...]\n\nWithout an argument, these steps run in order:\n' "$0"
    list_steps "${step_names[@]}"
    if ((${#extra_names[@]})); then
        printf '\nThese steps run only when they are named:\n'
        list_steps "${extra_names[@]}"
    fi
}

# print_output SKIPS: copies standard input to standard output, and every line with SKIPPED also to the file SKIPS.
# Leaves out other lines that passed tests printed under `--show-output`.
print_output() {
    local line hidden=false
    while IFS= read -r line || [[ -n $line ]]; do
        case $line in
            'successes:') hidden=true ;;
            'failures:' | 'test result: '*) hidden=false ;;
        esac
        if [[ $line =~ (^|' ... ')SKIPPED ]]; then
            printf '%s\n' "$line" | tee -a "$1"
        elif ! $hidden; then
            printf '%s\n' "$line"
        fi
    done
}

# run_step NAME[:ARGUMENT]: runs one step and appends its time to $times. Sets $failed if the step fails. In CI, a
# step also fails if it skips a check and .ci/allowed-skips does not allow that.
run_step() {
    local name=${1%%:*} argument=() skips status began=$SECONDS
    [[ $1 != *:* ]] || argument=("${1#*:}")
    printf '\n=== %s: %s (%d s so far)\n' "$1" "${descriptions[$name]}" $((SECONDS - started))
    skips=$(mktemp)
    # The step runs in a subshell with `set -e`. If a condition called the function, `set -e` would have no effect
    # in it.
    set +e
    (
        set -e
        "step_${name//-/_}" "${argument[@]}"
    ) 2>&1 | print_output "$skips"
    status=${PIPESTATUS[0]}
    set -e
    if ((status == 0)) && ! .ci/skip --check "$skips"; then
        if [[ -n ${CI:-} ]]; then
            status=1
        else
            echo 'In CI this step would fail.'
        fi
    fi
    rm -f "$skips"
    times+=("$(printf '%6d s  %s' $((SECONDS - began)) "$1")")
    ((status == 0)) || failed=$1
}

print_times() {
    local line
    printf '\n=== time of each step\n'
    for line in "${times[@]}"; do printf '%s\n' "$line"; done
    printf '%6d s  in total\n' $((SECONDS - started))
}

# main [--list | STEP...]
main() {
    local name
    started=$SECONDS
    times=()
    failed=''
    case ${1:-} in
        --list) list_steps "${step_names[@]}" && list_steps "${extra_names[@]}" && return ;;
        --help | -h) usage && return ;;
    esac
    for name in "$@"; do
        if [[ -z ${name%%:*} || -z ${descriptions[${name%%:*}]:-} ]]; then
            printf 'unknown step %s\n\n' "$name" >&2
            usage >&2
            exit 64
        fi
    done
    (($#)) || set -- "${step_names[@]}"
    for name in "$@"; do
        run_step "$name"
        if [[ -n $failed ]]; then
            print_times
            fail "step $failed; run '$0 $failed' to repeat only this step"
        fi
    done
    print_times
}
