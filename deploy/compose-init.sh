#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Creates the bucket, topics and subscriptions of compose.yaml in the two emulators, unless they
# exist. Needs PROJECT, PUBSUB and STORAGE (the addresses of the emulators) and PUSH_ENDPOINT.
set -eu

# wait_for URL: waits until a server responds at URL. Fails after about a minute.
wait_for() {
    tries=0
    until curl --silent --output /dev/null --max-time 2 "$1"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 60 ]; then
            echo "compose-init: no server responds at $1" >&2
            exit 1
        fi
        sleep 1
    done
}

# create METHOD URL BODY: creates a resource. The status 409 means that the resource exists already.
create() {
    status=$(curl --silent --show-error --max-time 10 --output /tmp/response --write-out '%{http_code}' \
        --request "$1" --header 'content-type: application/json' --data "$3" "$2")
    case $status in
        200 | 409) echo "compose-init: $2 ($status)" ;;
        *)
            echo "compose-init: creating $2 failed with status $status: $(cat /tmp/response)" >&2
            exit 1
            ;;
    esac
}

wait_for "$PUBSUB/"
wait_for "$STORAGE/storage/v1/b"
topics=projects/$PROJECT/topics
subscriptions=$PUBSUB/v1/projects/$PROJECT/subscriptions

create POST "$STORAGE/storage/v1/b?project=$PROJECT" '{"name":"images"}'
for topic in preprocessed-images unclassified-images predictions; do
    create PUT "$PUBSUB/v1/$topics/$topic" '{}'
done
# A topic without a subscription drops its messages. These subscriptions keep them.
create PUT "$subscriptions/unclassified-images-pull" "{\"topic\":\"$topics/unclassified-images\"}"
create PUT "$subscriptions/predictions-pull" "{\"topic\":\"$topics/predictions\"}"
create PUT "$subscriptions/classify-push" "{
    \"topic\": \"$topics/preprocessed-images\",
    \"pushConfig\": {\"pushEndpoint\": \"$PUSH_ENDPOINT\"},
    \"ackDeadlineSeconds\": 60,
    \"retryPolicy\": {\"minimumBackoff\": \"1s\", \"maximumBackoff\": \"60s\"},
    \"deadLetterPolicy\": {\"deadLetterTopic\": \"$topics/unclassified-images\", \"maxDeliveryAttempts\": 100}
}"
