# The soak and the benchmark are programs of their own, which no test runner starts: each is built, told where the servers
# are, and ended before anything else.

# driver NAME CARGO-OPTIONS…: builds it, and prints its path.
driver() {
    local name=$1 messages
    shift
    messages=$(cargo test --locked --quiet --no-run "$@" --test "$name" --message-format=json) || fail "the $name did not build"
    grep -oE "\"executable\":\"[^\"]*/$name-[0-9a-f]+\"" <<<"$messages" | cut -d'"' -f4
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
