#!/bin/sh
# Invites a visitor over HTTP, and joins and ends the session as an agent would, with openssl and curl:
#
#     INVITE_API_KEY=… ./invite.sh 111-000-0000
#
# The Idempotency-Key is your own id of the invite: after a lost connection or a 504, the same request gets the first's
# answer, and nobody is texted twice. To try things by hand: the API key stands on openssl's command line, where other
# users of the machine can read it.
set -eu

gateway=${PUBLIC_URL:-http://127.0.0.1:8080}/api/SessionInvitation
group=${INVITE_GROUP:-72}
user=${INVITE_USER:-12345} # URL-encode it in the credential if it is more than letters and digits
id=example-$(date +%s)-$$

expiry=$(($(date +%s) + 600))
signature=$(printf '%s' "${group}${user}1${expiry}" |
    openssl dgst -sha256 -hmac "$INVITE_API_KEY" -binary | base64 | tr '+/' '-_' | tr -d '=\n')

# ask PATH [DATA]: fails for anything but a 2xx, and shows the problem. Tries again what is worth it.
ask() {
    curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --max-time 40 \
        --header "Authorization: Bearer GKEY $group&$user&\$1\$$expiry\$$signature" \
        --header 'Content-Type: application/json' --header "Idempotency-Key: $id" \
        ${2:+--data "$2"} "$gateway/$1"
    echo
}

sent=$(ask "smsInvite/?groupid=$group" \
    '{"sessiontype": 1, "smsPhone": "'"$1"'", "sessionParams": {"camera": "back", "resolution": "352x288"}}')
printf '%s\n' "$sent"
key=$(printf '%s' "$sent" | sed -n 's/.*"sessionKey":"\([0-9]*\)".*/\1/p')

ask "session/?groupid=$group&sessionKey=$key" >&2
ask "session/join/?groupid=$group" '{"sessionKey": "'"$key"'"}' >&2
ask "session/end/?groupid=$group" '{"sessionKey": "'"$key"'"}' >&2
