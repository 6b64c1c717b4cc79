# `./dev soak`: private servers, which the soak's driver (tests/soak) ends and starts again by scripts/soak-service.

# All arguments are the driver's.
command_soak() {
    local driver status=0
    need_build_tools
    build_program
    driver=$(soak_driver)
    # Help and wrong options come before anything is started.
    SOAK_RUN_DIR=none "$driver" --check "$@" || exit $?
    begin_run
    private_postgres
    private_rabbitmq
    make_database session_invite_soak database
    # The driver ends these, and bash would say so.
    disown -a
    # In a session of its own, so that a ctrl-C reaches it only through us; in the background, since `wait` lets a
    # signal through at once.
    SOAK_RUN_DIR=$RUN_DIR SOAK_REPORTS=$DEV_DIR DATABASE_URL=$DATABASE_URL AMQP_URL=$AMQP_URL \
        SESSION_INVITE_BIN=$(program) setsid "$driver" "$@" </dev/null &
    STARTED=$!
    note process soak "$STARTED" "$(process_start "$STARTED")"
    wait "$STARTED" || status=$?
    exit "$status"
}

# Builds it, and prints its path.
soak_driver() {
    local messages
    messages=$(cargo test --locked --quiet --no-run --test soak --message-format=json) || fail "the soak did not build"
    grep -oE '"executable":"[^"]*/soak-[0-9a-f]+"' <<<"$messages" | cut -d'"' -f4
}
