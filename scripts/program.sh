# The program itself: built, and run as the processes of a demo or of `up`.

# The absolute path.
program() { realpath --canonicalize-missing "${SESSION_INVITE_BIN:-${CARGO_TARGET_DIR:-target}/debug/session-invite}"; }

# From another directory, so that a developer's .env does not mix in a second sender or somebody's real public address.
invite() { env --chdir=/ "$(program)" "$@"; }

# Builds with the profile that the tests share, so that what either has compiled serves both.
build_program() {
    if [[ -n ${SESSION_INVITE_BIN-} ]]; then
        [[ -x $SESSION_INVITE_BIN ]] || fail "SESSION_INVITE_BIN is no program: $SESSION_INVITE_BIN"
        return
    fi
    need_build_tools
    cargo build --locked --quiet || fail "the build failed"
}

# Starts the provider; sets SANDBOX_URL.
start_sandbox() {
    start sandbox env --chdir=/ "$(program)" sms-sandbox --port 0
    wait_for 10 "$RUN_DIR/sandbox.log" sandbox_listens || fail "the SMS sandbox did not start"
}

sandbox_listens() {
    SANDBOX_URL=$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$RUN_DIR/sandbox.log" | head -n 1) || return 1
    [[ -n $SANDBOX_URL ]]
}

# What every command of the program reads; DATABASE_URL and AMQP_URL are there already.
export_settings() {
    export QUEUE_PREFIX=$1 SECRETS_KEY=$2
    export SMS_BASE_URL=$SANDBOX_URL TWILIO_ACCOUNT_SID=ACdemo TWILIO_AUTH_TOKEN=demo SMS_FROM=+15005550006
    unset TWILIO_API_KEY TWILIO_API_SECRET SMS_MESSAGING_SERVICE_SID
    HTTP_ADDR=127.0.0.1:$(free_port)
    GATEWAY_ADDR=127.0.0.1:$(free_port)
    # Links lead to the gateway, and so do the sandbox's receipts.
    export HTTP_ADDR GATEWAY_ADDR PUBLIC_URL=http://$GATEWAY_ADDR
}

start_gateway() {
    # The worker has HTTP_ADDR.
    start gateway env --chdir=/ HTTP_ADDR=127.0.0.1:0 "$(program)" gateway
    wait_for 30 "$RUN_DIR/gateway.log" http_get "${GATEWAY_ADDR##*:}" /readyz >/dev/null || fail "the gateway did not become ready"
}

start_worker() {
    start worker env --chdir=/ "$(program)" worker
    wait_for 30 "$RUN_DIR/worker.log" http_get "${HTTP_ADDR##*:}" /readyz >/dev/null || fail "the worker did not become ready"
}
