# `./dev soak`: private servers, which the soak's driver (crates/soak) ends and starts again by scripts/soak-service.

# All arguments but --series are the driver's.
command_soak() {
    local driver
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
    driver=$(driver soak debug)
    check_driver "$driver" "${driver_args[@]}"
    begin_run
    SERVICES=private
    find_services
    make_database session_invite_soak database
    declare -p COMMANDS AS_ROOT >"$RUN_DIR/commands"
    # The driver ends these, and bash would say so.
    disown -a
    # shellcheck disable=SC2153 # dev sets SERIES
    export SOAK_RUN_DIR=$RUN_DIR SOAK_REPORTS=$DEV_DIR SOAK_SERIES=$SERIES
    SESSION_INVITE_BIN=$(program)
    export SESSION_INVITE_BIN
    run_driver soak "$driver" "${driver_args[@]}"
}
