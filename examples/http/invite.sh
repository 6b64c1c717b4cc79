#!/bin/sh
# Invites a visitor over HTTP, then joins and ends the session like an agent, with openssl and curl:
#
#     INVITE_API_KEY=… ./invite.sh 111-000-0000
#
# The Idempotency-Key is your own id of the invite: after a lost connection or a 504, a repeat of the request gets the
# answer of the first, and the visitor gets no second text. Use this script for tests by hand only: other users of the
# machine can read the API key on openssl's command line.
set -eu

gateway=${PUBLIC_URL:-http://127.0.0.1:8080}/api/SessionInvitation
group=${INVITE_GROUP:-72}
user=${INVITE_USER:-12345} # URL-encode it in the credential if it has more than letters and digits
id=example-$(date +%s)-$$

expiry=$(($(date +%s) + 600))
signature=$(printf '%s' "${group}${user}1${expiry}" |
    openssl dgst -sha256 -hmac "$INVITE_API_KEY" -binary | base64 | tr '+/' '-_' | tr -d '=\n')

# request PATH [DATA]: fails unless the answer is 2xx, and shows the problem. Repeats after temporary failures.
request() {
    curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --max-time 40 \
        --header "Authorization: Bearer GKEY $group&$user&\$1\$$expiry\$$signature" \
        --header 'Content-Type: application/json' --header "Idempotency-Key: $id" \
        ${2:+--data "$2"} "$gateway/$1"
    echo
}

sent=$(request "smsInvite/?groupid=$group" \
    '{"sessiontype": 1, "smsPhone": "'"$1"'", "sessionParams": {"camera": "back", "resolution": "352x288"}}')
printf '%s\n' "$sent"
key=$(printf '%s' "$sent" | sed -n 's/.*"sessionKey":"\([0-9]*\)".*/\1/p')

request "session/?groupid=$group&sessionKey=$key" >&2
request "session/join/?groupid=$group" '{"sessionKey": "'"$key"'"}' >&2
request "session/end/?groupid=$group" '{"sessionKey": "'"$key"'"}' >&2
