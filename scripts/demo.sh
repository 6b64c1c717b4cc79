# `./dev demo`: one invite, from the queue to the text, and one over HTTP.

DEMO_GROUP=72
# The request of the service that this one stands in for.
DEMO_PATH="/api/SessionInvitation/smsInvite/?groupid=$DEMO_GROUP"

command_demo() {
    local name begun
    begun=$(now_ms)
    begin_run
    name=demo-$(random_word)
    step "Build (minutes, the first time)" build_program
    step "PostgreSQL and RabbitMQ" find_services
    make_database "session_invite_${name/-/_}" database
    note_queues queues "session-invite-$name"
    step "SMS provider: the sandbox" start_sandbox
    export_settings "session-invite-$name" "$(random_key)"
    step "Migrate ${DATABASE_URL##*/}, a database for this demo" invite migrate
    step "Add group $DEMO_GROUP" add_demo_group
    step "Worker, until http://$HTTP_ADDR/readyz says 200" start_worker
    step "Gateway, until $PUBLIC_URL/readyz says 200" start_gateway
    step "Invite on the queue $QUEUE_PREFIX.requests, and its reply" send_sample
    step "The row in sessions" invite sessions list
    step "The text, as the provider got it" show_inbox
    step "The same over HTTP: POST $PUBLIC_URL$DEMO_PATH" ask_over_http
    step "Its receipt came by $PUBLIC_URL/webhooks/twilio/status/…" wait_for_receipt
    if [[ $KEEP == yes ]]; then
        keep_running
    fi
    step "Stop, and remove what the demo made" undo_run "$RUN_DIR" wipe
    printf '\nDone in %d s.\n' $((($(now_ms) - begun) / 1000))
}

# The key goes in by standard input: on a command line, every user of the machine could read it.
add_demo_group() {
    invite groups add "$DEMO_GROUP" --api-key - <<<"demo-$(random_word)$(random_word)"
}

send_sample() {
    invite send --group "$DEMO_GROUP" --user 12345 --phone 111-000-0000 --camera back --resolution 352x288
}

ask_over_http() {
    local gkey
    gkey=$(invite tokens issue gkey --group "$DEMO_GROUP" --user 12345)
    post_invite "$gkey"
}

# post_invite GKEY: to the gateway at GATEWAY_ADDR.
post_invite() {
    http_post "${GATEWAY_ADDR##*:}" "$DEMO_PATH" "Authorization: Bearer GKEY $1" \
        '{"sessiontype": 1, "smsPhone": "212-555-0123", "sessionParams": {"camera": "back", "resolution": "352x288"}}' |
        sed -E 's/,("[A-Za-z]+":)/,\n  \1/g'
}

wait_for_receipt() {
    wait_for 10 "$RUN_DIR/gateway.log" was_delivered || fail "no receipt came"
    invite sessions list
}

was_delivered() { [[ $(invite sessions list --status delivered --json) == *'"delivered"'* ]]; }

# A field a line. A quote inside a value has a backslash before it, so only names match.
show_inbox() { http_get "${SANDBOX_URL##*:}" /sandbox/messages | sed -E 's/,("[a-z_]+":)/,\n  \1/g'; }

keep_running() {
    say ""
    say "Running until Enter or ctrl-C. The inbox: $SANDBOX_URL/   the gateway: $PUBLIC_URL/docs"
    say "To send another from a second terminal:"
    print_exports
    say "    $(program) send --group $DEMO_GROUP --user 12345 --phone 212-555-0123"
    if [[ -t 0 ]]; then
        read -r
    else
        # Without a terminal there is no Enter. `wait`, unlike a foreground sleep, lets a signal through at once.
        start sleep sleep infinity
        wait "$STARTED"
    fi
}
