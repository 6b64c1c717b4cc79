# `./dev up` and `./dev down`: the same processes as the demo's, in the background, with data that stays.

# One of each for every checkout: two that share servers must not take each other's invites.
UP_ID=$(cksum <<<"$PWD")
UP_DATABASE=session_invite_up_${UP_ID%% *}
UP_PREFIX=session-invite-up-${UP_ID%% *}

command_up() {
    local line
    if [[ -f $DEV_DIR/up/undo ]] && line=$(grep '^process worker ' "$DEV_DIR/up/undo") && is_running_line "$line"; then
        fail "it is up already: ./dev down stops it"
    fi
    # What is left of one that crashed goes first.
    undo_run "$DEV_DIR/up" keep
    keep_run
    step "Build (minutes, the first time)" build_program
    step "PostgreSQL and RabbitMQ" find_services
    make_database "$UP_DATABASE" kept-database
    note_queues kept-queues "$UP_PREFIX"
    step "SMS provider: the sandbox" start_sandbox
    export_settings "$UP_PREFIX" "$(kept_key)"
    step "Worker, until http://$HTTP_ADDR/readyz says 200" start_worker
    step "Gateway, until $PUBLIC_URL/readyz says 200" start_gateway
    say ""
    say "Up. Inbox: $SANDBOX_URL/   gateway: $PUBLIC_URL/docs   readiness: http://$HTTP_ADDR/readyz   logs: .dev/up/*.log"
    say "For your shell:"
    print_exports
    say "Then, for example (the ports change with each ./dev up: export again after it):"
    say "    $(program) groups add 72"
    say "    $(program) send --group 72 --user 12345 --phone 111-000-0000"
}

command_down() {
    local mode=keep
    [[ $WIPE == yes ]] && mode=wipe
    if [[ ! -s $DEV_DIR/up/undo ]]; then
        say "Nothing is up"
        return
    fi
    # What is left then is data alone.
    if [[ $mode == keep ]] && ! grep -qv '^kept-' "$DEV_DIR/up/undo"; then
        say "Nothing is up; its data stays until ./dev down --wipe"
        return
    fi
    undo_run "$DEV_DIR/up" "$mode"
    if [[ $mode == wipe ]]; then
        rm -rf "$DEV_DIR/up" "$DEV_DIR/secrets-key"
        say "Stopped, and its data removed"
    else
        say "Stopped; its data stays until ./dev down --wipe"
    fi
}

is_running_line() {
    local -a words
    read -r -a words <<<"$1"
    is_running "${words[2]}" "${words[3]-}"
}

# Group keys in the database are sealed with it, so it lives as long as the data.
kept_key() {
    local file=$DEV_DIR/secrets-key
    [[ -s $file ]] || (umask 077 && random_key >"$file")
    cat "$file"
}

print_exports() {
    local name
    for name in DATABASE_URL AMQP_URL QUEUE_PREFIX SECRETS_KEY SMS_BASE_URL TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN SMS_FROM PUBLIC_URL; do
        printf '    export %s=%q\n' "$name" "${!name}"
    done
}
