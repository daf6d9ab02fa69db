#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Makes the bucket, topics and subscriptions of compose.yaml on the two emulators; what is there
# already stays. Needs PROJECT, PUBSUB and STORAGE (addresses of the emulators) and PUSH_ENDPOINT.
set -eu

# wait_for URL: until something answers there, for at most a minute.
wait_for() {
    tries=0
    until curl --silent --output /dev/null --max-time 2 "$1"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 60 ]; then
            echo "compose-init: nothing answers at $1" >&2
            exit 1
        fi
        sleep 1
    done
}

# make METHOD URL BODY: 409 says that it is there already.
make() {
    status=$(curl --silent --show-error --max-time 10 --output /tmp/answer --write-out '%{http_code}' \
        --request "$1" --header 'content-type: application/json' --data "$3" "$2")
    case $status in
        200 | 409) echo "compose-init: $2 ($status)" ;;
        *)
            echo "compose-init: $2 was answered with $status: $(cat /tmp/answer)" >&2
            exit 1
            ;;
    esac
}

wait_for "$PUBSUB/"
wait_for "$STORAGE/storage/v1/b"
topics=projects/$PROJECT/topics
subscriptions=$PUBSUB/v1/projects/$PROJECT/subscriptions

make POST "$STORAGE/storage/v1/b?project=$PROJECT" '{"name":"images"}'
for topic in preprocessed-images unclassified-images predictions; do
    make PUT "$PUBSUB/v1/$topics/$topic" '{}'
done
# Nobody would see what these topics get if nothing kept it.
make PUT "$subscriptions/unclassified-images-pull" "{\"topic\":\"$topics/unclassified-images\"}"
make PUT "$subscriptions/predictions-pull" "{\"topic\":\"$topics/predictions\"}"
make PUT "$subscriptions/classify-push" "{
    \"topic\": \"$topics/preprocessed-images\",
    \"pushConfig\": {\"pushEndpoint\": \"$PUSH_ENDPOINT\"},
    \"ackDeadlineSeconds\": 60,
    \"retryPolicy\": {\"minimumBackoff\": \"1s\", \"maximumBackoff\": \"60s\"},
    \"deadLetterPolicy\": {\"deadLetterTopic\": \"$topics/unclassified-images\", \"maxDeliveryAttempts\": 20}
}"
