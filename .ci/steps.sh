# shellcheck shell=bash
# Runs named steps in order and prints the time of each. `.ci/run` and `.ci/nightly` source this file.
#
# The sourcing script declares its steps with `step NAME 'sentence'` and a function `step_NAME`, in which each
# `-` of the name is a `_`. `extra NAME 'sentence'` declares a step that runs only when it is named. A step that
# accepts an argument is called as NAME:ARGUMENT. The script ends with `main "$@"`.

# All commands of a step run in the repository's root.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step_names=()
extra_names=()
declare -A sentences

step() { step_names+=("$1") && sentences[$1]=$2; }
extra() { extra_names+=("$1") && sentences[$1]=$2; }

fail() {
    printf 'FAILED: %s\n' "$1" >&2
    exit 1
}

# install_cargo_tool PROGRAM VERSION: installs a program from its published crate into target/tools. Optimising it
# would take longer than it then runs.
install_cargo_tool() {
    if ! "target/tools/bin/$1" --version 2>/dev/null | grep -qwF "$2"; then
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
            cargo install --locked --quiet --root target/tools --version "$2" "$1"
    fi
}

list_steps() {
    local name
    for name in "$@"; do printf '%-16s%s\n' "$name" "${sentences[$name]}"; done
}

usage() {
    printf 'usage: %s [--list | STEP...]\n\nWithout an argument, these steps run in order:\n' "$0"
    list_steps "${step_names[@]}"
    if ((${#extra_names[@]})); then
        printf '\nThese steps run only when they are named:\n'
        list_steps "${extra_names[@]}"
    fi
}

# print_output SKIPS: copies its input to its output and the lines with SKIPPED to the file SKIPS, too. Leaves
# out what passing tests printed under `--show-output`, except for those lines.
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

# run_step NAME[:ARGUMENT]: runs one step and adds its seconds to `times`. Ends the script if the step fails,
# or, in CI, if the step skips something that .ci/allowed-skips does not allow.
run_step() {
    local name=${1%%:*} argument=() skips status began=$SECONDS
    [[ $1 != *:* ]] || argument=("${1#*:}")
    printf '\n=== %s: %s (%d s so far)\n' "$1" "${sentences[$name]}" $((SECONDS - started))
    skips=$(mktemp)
    # A subshell with errexit of its own: `set -e` has no effect in a function that a condition calls.
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
            echo 'CI would fail here.'
        fi
    fi
    rm -f "$skips"
    times+=("$(printf '%6d s  %s' $((SECONDS - began)) "$1")")
    ((status == 0)) || failed=$1
}

print_times() {
    local line
    printf '\n=== seconds of each step\n'
    for line in "${times[@]}"; do printf '%s\n' "$line"; done
    printf '%6d s  in all\n' $((SECONDS - started))
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
        if [[ -z ${name%%:*} || -z ${sentences[${name%%:*}]:-} ]]; then
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
            fail "step $failed; '$0 $failed' runs it alone"
        fi
    done
    print_times
}
