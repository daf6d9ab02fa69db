# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2034 # the scripts that source this file use its variables
# Functions that up, smoke, logs, replay and down share.
#
# The scripts look up every resource before they create it, so a second run changes nothing.
# Commands that only read run through `query`. Commands that change something run through `change`,
# which with --dry-run only prints them.

set -euo pipefail

deploy_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dry_run=false
# False if the API of a resource may be disabled. The resource does not exist then.
apis_are_enabled=true
change_count=0
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

# usage SCRIPT: prints the comment block at the head of SCRIPT, which is the text of --help.
usage() {
    sed -n '/^# Usage:/,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$1"
}

# load_settings: sets one variable per setting. The environment takes precedence over deploy/env (or
# the file that DEPLOY_ENV names), and deploy/env over the defaults below. docs/deploy.md explains
# the settings.
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
        die "DEPLOY_ENV names $file, which does not exist"
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
    # The defaults are the maximum that Pub/Sub accepts.
    : "${MAX_DELIVERY_ATTEMPTS:=100}"
    : "${MESSAGE_RETENTION_DAYS:=31}"
    [[ $MESSAGE_RETENTION_DAYS =~ ^([1-9]|[12][0-9]|3[01])$ ]] ||
        die "MESSAGE_RETENTION_DAYS must be 1 to 31, not $MESSAGE_RETENTION_DAYS"
    : "${ALERT_CHANNELS:=}"
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
            # classify accepts 48 pushes at a time: the images of its queue (CLASSIFY_QUEUE_ITEMS, 64) less
            # the quarter that is reserved for requests (CLASSIFY_QUEUE_RESERVE). It would refuse further
            # pushes with 429, and Pub/Sub counts a refusal as one of MAX_DELIVERY_ATTEMPTS. A lower
            # concurrency would make the batches smaller.
            : "${CLASSIFY_CPU:=4}" "${CLASSIFY_MEMORY:=16Gi}" "${CLASSIFY_MAX_INSTANCES:=1}"
            : "${CLASSIFY_CONCURRENCY:=48}"
            ;;
        *) die "CLASSIFY_ON must be cpu or gpu, not $CLASSIFY_ON" ;;
    esac
    : "${PUSH_ACCOUNT:=image-push}"
    : "${CHECK_PUSH_TOKENS:=false}"
    [[ $CHECK_PUSH_TOKENS == true || $CHECK_PUSH_TOKENS == false ]] ||
        die "CHECK_PUSH_TOKENS must be true or false, not $CHECK_PUSH_TOKENS"

    : "${RESULTS_TOPIC:=}"
    : "${RESULTS_SCHEMA:=prediction}"
    : "${BIGQUERY_DATASET:=}"
    : "${BIGQUERY_TABLE:=predictions}"
    : "${BIGQUERY_SUBSCRIPTION:=predictions-to-bigquery}"
    [[ -z $BIGQUERY_DATASET || -n $RESULTS_TOPIC ]] ||
        die 'BIGQUERY_DATASET needs RESULTS_TOPIC: set both'

    registry=$REGION-docker.pkg.dev/$GOOGLE_CLOUD_PROJECT/$REPOSITORY
    : "${IMAGE_TAG:=latest}"
    : "${PREPROCESS_IMAGE:=$registry/preprocess:$IMAGE_TAG}"
    : "${CLASSIFY_IMAGE:=$registry/classify-$CLASSIFY_ON:$IMAGE_TAG}"

    alert_name="Image pipeline: dead letters in $DEAD_LETTER_SUBSCRIPTION"
    project_flags=(--project="$GOOGLE_CLOUD_PROJECT" --quiet)
}

# account_email NAME: prints the email address of a service account of this project.
account_email() {
    printf '%s@%s.iam.gserviceaccount.com' "$1" "$GOOGLE_CLOUD_PROJECT"
}

# query COMMAND...: runs a command that only reads, and stores its output in $answer. Returns 1 if
# the resource does not exist. Any other failure, such as a missing permission, ends the script.
# Otherwise the script would create a resource that may exist.
query() {
    local problem
    if answer=$("$@" 2>"$scratch/stderr"); then
        return 0
    fi
    # bq prints errors to stdout.
    problem=$(cat "$scratch/stderr")$answer
    answer=''
    if [[ ! $problem =~ PERMISSION_DENIED|[Pp]ermission.*denied|403 ]] &&
        [[ $problem =~ NOT_FOUND|[Nn]ot\ found|[Cc]annot\ find|could\ not\ be\ found|does\ not\ exist ]]; then
        return 1
    fi
    # A dry run does not enable the APIs.
    if { $dry_run || ! $apis_are_enabled; } && [[ $problem =~ SERVICE_DISABLED|has\ not\ been\ used|is\ not\ enabled ]]; then
        return 1
    fi
    die "cannot find out whether a resource exists: $*
$problem"
}

# change COMMAND...: prints a command that changes something, and runs it unless this is a dry run.
change() {
    change_count=$((change_count + 1))
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    $dry_run || "$@" || die "failed: $*"
}

# change_with_retries COMMAND...: runs `change`, and retries for half a minute. Google Cloud needs
# some seconds to make a new account known everywhere. Until then, granting a role to the account
# fails as if the account did not exist.
change_with_retries() {
    local try
    for try in 1 2 3 4 5; do
        if (change "$@"); then
            # `change` ran in a subshell, which cannot change the variable of this shell.
            change_count=$((change_count + 1))
            return 0
        fi
        say "attempt $try of 6 failed; waiting"
        sleep 6
    done
    change "$@"
}

# is_granted ROLE MEMBER GROUP NAME [FLAG...]: succeeds if MEMBER has ROLE on the resource NAME. GROUP is
# the gcloud command group of the resource, such as "pubsub topics".
is_granted() {
    local role=$1 member=$2 name=$4 group
    read -ra group <<<"$3"
    shift 4
    query gcloud "${group[@]}" get-iam-policy "$name" "$@" --flatten='bindings[].members' \
        --format='value(bindings.role,bindings.members)' "${project_flags[@]}" || answer=''
    grep -qxF "$role"$'\t'"$member" <<<"$answer"
}

# grant ROLE MEMBER GROUP NAME [FLAG...]: grants ROLE on the resource NAME to MEMBER, unless MEMBER
# has the role already.
grant() {
    local role=$1 member=$2 name=$4 group
    if is_granted "$@"; then return 0; fi
    read -ra group <<<"$3"
    shift 4
    change_with_retries gcloud "${group[@]}" add-iam-policy-binding "$name" "$@" \
        --member="$member" --role="$role" --format=none "${project_flags[@]}"
}

# find_project: sets $project_number. Ends the script if the project does not exist.
find_project() {
    query gcloud projects describe "$GOOGLE_CLOUD_PROJECT" --format='value(projectNumber)' ||
        die "there is no project $GOOGLE_CLOUD_PROJECT"
    project_number=$answer
}

# find_bucket: returns 1 if the bucket does not exist. All projects share the names of buckets, so
# somebody else can create a bucket with the name that this project would use. If the bucket belongs
# to another project, the script ends. Otherwise strangers would receive the photos.
find_bucket() {
    query gcloud storage buckets describe "gs://$BUCKET" --raw --format='value(projectNumber)' \
        "${project_flags[@]}" || return 1
    [[ $answer == "$project_number" ]] ||
        die "the bucket $BUCKET belongs to another project (number ${answer:-unknown}): set BUCKET to another name"
}

# find_alert: sets $answer to the name and the label `settings` of the alert policy for dead letters,
# or to nothing if the policy does not exist.
find_alert() {
    query gcloud alpha monitoring policies list --format='json(name,displayName,userLabels)' \
        "${project_flags[@]}" || answer='[]'
    answer=$(python3 -c '
import json, sys
for policy in json.load(sys.stdin):
    if policy.get("displayName") == sys.argv[1]:
        print(policy["name"], policy.get("userLabels", {}).get("settings", ""))
        break' "$alert_name" <<<"$answer")
}

# finish: prints the number of changes.
finish() {
    if $dry_run; then
        say "dry run: $change_count change(s) would be made"
    else
        say "$change_count change(s) made"
    fi
}
