# The soak and the benchmark are programs of their own (crates/soak, crates/bench): each is built, told where the servers are,
# and ended before anything else.

# driver NAME debug|release: builds it, and prints its path. The program is built along with it, if it is wanted at all: so both
# have their dependencies with the same features, and cargo compiles those once.
driver() {
    local -a options=(--package "$1")
    [[ -n ${SESSION_INVITE_BIN-} ]] || options+=(--package session-invite)
    [[ $2 == debug ]] || options+=(--release)
    cargo build --locked --quiet "${options[@]}" || fail "the $1 did not build"
    realpath "${CARGO_TARGET_DIR:-target}/$2/$1"
}

# check_driver PATH OPTIONS…: help and wrong options come before anything is started, and end it.
check_driver() {
    "$@" --check || exit $?
    case " ${*:2} " in
        *" --help "* | *" -h "*) exit 0 ;;
    esac
}

# run_driver NAME COMMAND…: until it ends. In a session of its own, so that a ctrl-C reaches it only through us; in the
# background, since `wait` lets a signal through at once.
run_driver() {
    local name=$1 status=0
    shift
    setsid "$@" </dev/null &
    DRIVER=$!
    DRIVER_NAME=$name
    DRIVER_BEGUN=$(process_start "$DRIVER")
    note process "$name" "$DRIVER" "$DRIVER_BEGUN"
    trap 'end_driver $?' EXIT
    wait "$DRIVER" || status=$?
    exit "$status"
}

# The driver ends before all else: it would start again what is stopped.
end_driver() {
    trap '' INT TERM HUP
    stop_process "$DRIVER_NAME" "$DRIVER" "$DRIVER_BEGUN"
    set +e
    (exit "$1")
    end_run
}
