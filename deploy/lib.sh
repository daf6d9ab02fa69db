# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034 # what is assigned here is used by the scripts that source this
# What up, smoke, logs and down share: settings, looking without changing, changing with a trace.
#
# Every resource is looked up before it is made, so a second run changes nothing. Reading goes
# through `look`, writing through `change`: --dry-run stops the second and leaves the first.

set -euo pipefail

deploy_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry_run=false
changes=0
answer=''
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

say() {
    printf '== %s\n' "$1"
}

# usage SCRIPT: prints the comment block at the head of SCRIPT, which is its manual.
usage() {
    sed -n '/^# Usage:/,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$1"
}

# load_settings: the environment wins; then deploy/env (or the file that DEPLOY_ENV names); then the
# defaults below, which docs/deploy.md explains.
load_settings() {
    local file=${DEPLOY_ENV:-$deploy_dir/env} line name
    if [[ -f $file ]]; then
        while IFS= read -r line || [[ -n $line ]]; do
            [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
            [[ $line =~ ^[A-Z][A-Z0-9_]*= ]] || die "$file: not a NAME=value line: $line"
            name=${line%%=*}
            [[ -v $name ]] || printf -v "$name" '%s' "${line#*=}"
        done <"$file"
    elif [[ -n ${DEPLOY_ENV:-} ]]; then
        die "$file, which DEPLOY_ENV names, is not there"
    fi

    [[ -n ${GOOGLE_CLOUD_PROJECT:-} ]] ||
        die "set GOOGLE_CLOUD_PROJECT, in the environment or in $file (see deploy/env.example)"
    : "${REGION:=us-central1}"
    : "${REPOSITORY:=image-pipeline}"
    : "${BUCKET:=$GOOGLE_CLOUD_PROJECT-images}"
    BUCKET=${BUCKET#gs://}

    : "${PREP_TOPIC:=preprocessed-images}"
    : "${PUSH_SUBSCRIPTION:=classify-push}"
    : "${DEAD_LETTER_TOPIC:=unclassified-images}"
    : "${DEAD_LETTER_SUBSCRIPTION:=unclassified-images-pull}"
    : "${ACK_DEADLINE:=60}"
    : "${RETRY_MIN:=10}"
    : "${RETRY_MAX:=600}"
    : "${MAX_DELIVERY_ATTEMPTS:=20}"
    : "${NOTIFY_PREFIX:=}"

    : "${PREPROCESS_SERVICE:=preprocess}"
    : "${PREPROCESS_ACCOUNT:=image-preprocess}"
    : "${PREPROCESS_PUBLIC:=false}"
    : "${PREPROCESS_CPU:=2}"
    : "${PREPROCESS_MEMORY:=2Gi}"
    : "${PREPROCESS_CONCURRENCY:=16}"
    : "${PREPROCESS_MIN_INSTANCES:=0}"
    : "${PREPROCESS_MAX_INSTANCES:=10}"
    : "${PREPROCESS_ENV:=}"

    : "${CLASSIFY_ON:=cpu}"
    : "${CLASSIFY_SERVICE:=classify}"
    : "${CLASSIFY_ACCOUNT:=image-classify}"
    : "${CLASSIFY_MIN_INSTANCES:=0}"
    : "${CLASSIFY_ENV:=}"
    case $CLASSIFY_ON in
        cpu)
            : "${CLASSIFY_CPU:=2}" "${CLASSIFY_MEMORY:=2Gi}" "${CLASSIFY_MAX_INSTANCES:=10}"
            : "${CLASSIFY_CONCURRENCY:=16}"
            ;;
        gpu)
            # As much as classify's queue holds by default (CLASSIFY_QUEUE_ITEMS): more would be
            # refused with 429, fewer would leave the batches small.
            : "${CLASSIFY_CPU:=4}" "${CLASSIFY_MEMORY:=16Gi}" "${CLASSIFY_MAX_INSTANCES:=1}"
            : "${CLASSIFY_CONCURRENCY:=64}"
            ;;
        *) die "CLASSIFY_ON is cpu or gpu, not $CLASSIFY_ON" ;;
    esac
    : "${PUSH_ACCOUNT:=image-push}"
    : "${CHECK_PUSH_TOKENS:=false}"
    [[ $CHECK_PUSH_TOKENS == true || $CHECK_PUSH_TOKENS == false ]] ||
        die "CHECK_PUSH_TOKENS is true or false, not $CHECK_PUSH_TOKENS"

    : "${RESULTS_TOPIC:=}"
    : "${RESULTS_SCHEMA:=prediction}"
    : "${BIGQUERY_DATASET:=}"
    : "${BIGQUERY_TABLE:=predictions}"
    : "${BIGQUERY_SUBSCRIPTION:=predictions-to-bigquery}"
    [[ -z $BIGQUERY_DATASET || -n $RESULTS_TOPIC ]] ||
        die 'BIGQUERY_DATASET is fed from RESULTS_TOPIC: set that too'

    registry=$REGION-docker.pkg.dev/$GOOGLE_CLOUD_PROJECT/$REPOSITORY
    : "${IMAGE_TAG:=latest}"
    : "${PREPROCESS_IMAGE:=$registry/preprocess:$IMAGE_TAG}"
    : "${CLASSIFY_IMAGE:=$registry/classify-$CLASSIFY_ON:$IMAGE_TAG}"

    here=(--project="$GOOGLE_CLOUD_PROJECT" --quiet)
}

# account NAME: the address of one of this project's service accounts.
account() {
    printf '%s@%s.iam.gserviceaccount.com' "$1" "$GOOGLE_CLOUD_PROJECT"
}

# look COMMAND...: runs a command that only reads and leaves what it says in $answer. Fails when what
# it asks for is not there. Any other failure, such as a missing permission, ends the script: taking
# it for "not there" would go on to make things twice or in the wrong place.
look() {
    local problem
    if answer=$("$@" 2>"$scratch/stderr"); then
        return 0
    fi
    # bq tells of errors on stdout.
    problem=$(cat "$scratch/stderr")$answer
    answer=''
    if [[ ! $problem =~ PERMISSION_DENIED|[Pp]ermission.*denied|403 ]] &&
        [[ $problem =~ NOT_FOUND|[Nn]ot\ found|[Cc]annot\ find|could\ not\ be\ found|does\ not\ exist ]]; then
        return 1
    fi
    # Only a dry run comes here before the APIs are enabled.
    if $dry_run && [[ $problem =~ SERVICE_DISABLED|has\ not\ been\ used|is\ not\ enabled ]]; then
        return 1
    fi
    die "could not look something up: $*
$problem"
}

# change COMMAND...: shows a command that changes something and, unless this is a dry run, runs it.
change() {
    changes=$((changes + 1))
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    $dry_run || "$@" || die "failed: $*"
}

# insist COMMAND...: a change that is tried again for half a minute. A new account or role takes some
# seconds until every part of Google Cloud knows it; until then a binding fails as if it did not exist.
insist() {
    local try
    for try in 1 2 3 4 5; do
        if (change "$@"); then
            changes=$((changes + 1))
            return 0
        fi
        say "try $try of 6 failed; waiting"
        sleep 6
    done
    change "$@"
}

# grant ROLE MEMBER GROUP NAME [FLAG...]: binds MEMBER to ROLE on the resource NAME of a gcloud
# command group, such as "pubsub topics", unless it is bound.
grant() {
    local role=$1 member=$2 name=$4 group
    read -ra group <<<"$3"
    shift 4
    look gcloud "${group[@]}" get-iam-policy "$name" "$@" --flatten='bindings[].members' \
        --format='value(bindings.role,bindings.members)' "${here[@]}" || answer=''
    if ! grep -qxF "$role"$'\t'"$member" <<<"$answer"; then
        insist gcloud "${group[@]}" add-iam-policy-binding "$name" "$@" \
            --member="$member" --role="$role" --format=none "${here[@]}"
    fi
}

# finish: the last line of a script that changes things.
finish() {
    if $dry_run; then
        say "dry run: $changes change(s) would be made"
    else
        say "$changes change(s) made"
    fi
}
