#!/bin/sh
# Publishes one invite and prints its reply, with openssl and amqp-tools (apt install amqp-tools):
#
#     INVITE_API_KEY=… ./invite.sh 111-000-0000
#
# Use this script for tests by hand only. amqp-publish sets neither message_id nor timestamp, so two runs are two invites,
# whose age is not checked. Other users of the machine can read the API key on openssl's command line.
set -eu

url=${AMQP_URL:-amqp://guest:guest@127.0.0.1:5672/%2f}
prefix=${QUEUE_PREFIX:-session-invite}
group=${INVITE_GROUP:-72}
user=${INVITE_USER:-12345} # URL-encode it in the credential if it has more than letters and digits
replies=$prefix.example.$$

expiry=$(($(date +%s) + 600))
signature=$(printf '%s' "${group}${user}1${expiry}" |
    openssl dgst -sha256 -hmac "$INVITE_API_KEY" -binary | base64 | tr '+/' '-_' | tr -d '=\n')
credential="Bearer GKEY $group&$user&\$1\$$expiry\$$signature"

amqp-declare-queue --url="$url" --durable --queue="$replies" >/dev/null
trap 'amqp-delete-queue --url="$url" --queue="$replies" >/dev/null' EXIT

amqp-publish --url="$url" --routing-key="$prefix.requests" --reply-to="$replies" --persistent \
    --content-type=application/json --header="Authorization: $credential" \
    --body='{"groupid": '"$group"', "sessiontype": 1, "smsPhone": "'"$1"'", "sessionParams": {"camera": "back"}}'

reply=$(timeout 30 amqp-consume --url="$url" --queue="$replies" --count=1 cat) || {
    echo "no reply in 30 s; is a worker running?" >&2
    exit 1
}
printf '%s\n' "$reply"
case $reply in *'"status":"sent"'*) ;; *) exit 1 ;; esac
