# `./dev soak`: private servers, which the soak's driver (tests/soak) ends and starts again by scripts/soak-service.

# All arguments but --series are the driver's.
command_soak() {
    local driver status=0
    local -a driver_args=()
    while (($#)); do
        case $1 in
            --series)
                choose_series "${2-}"
                shift
                ;;
            --series=*) choose_series "${1#*=}" ;;
            *) driver_args+=("$1") ;;
        esac
        shift
    done
    need_build_tools
    build_program
    driver=$(soak_driver)
    # Help and wrong options come before anything is started.
    SOAK_RUN_DIR=none "$driver" --check "${driver_args[@]}" || exit $?
    begin_run
    SERVICES=private
    find_services
    make_database session_invite_soak database
    declare -p COMMANDS AS_ROOT >"$RUN_DIR/commands"
    # The driver ends these, and bash would say so.
    disown -a
    # In a session of its own, so that a ctrl-C reaches it only through us; in the background, since `wait` lets a
    # signal through at once.
    # shellcheck disable=SC2153 # dev sets SERIES
    SOAK_RUN_DIR=$RUN_DIR SOAK_REPORTS=$DEV_DIR SOAK_SERIES=$SERIES DATABASE_URL=$DATABASE_URL AMQP_URL=$AMQP_URL \
        SESSION_INVITE_BIN=$(program) setsid "$driver" "${driver_args[@]}" </dev/null &
    SOAK_DRIVER=$!
    SOAK_BEGUN=$(process_start "$SOAK_DRIVER")
    note process soak "$SOAK_DRIVER" "$SOAK_BEGUN"
    trap 'end_soak $?' EXIT
    wait "$SOAK_DRIVER" || status=$?
    exit "$status"
}

# The driver ends before all else: it would start again what is stopped.
end_soak() {
    trap '' INT TERM HUP
    stop_process soak "$SOAK_DRIVER" "$SOAK_BEGUN"
    set +e
    (exit "$1")
    end_run
}

# Builds it, and prints its path.
soak_driver() {
    local messages
    messages=$(cargo test --locked --quiet --no-run --test soak --message-format=json) || fail "the soak did not build"
    grep -oE '"executable":"[^"]*/soak-[0-9a-f]+"' <<<"$messages" | cut -d'"' -f4
}
