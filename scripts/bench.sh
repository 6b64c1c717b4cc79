# `./dev bench`: the release build under load, on whatever servers are there; crates/bench is the driver.

# All arguments but --services and --series are the driver's. Standard output is its report's alone.
command_bench() {
    local driver name
    local -a driver_args=()
    while (($#)); do
        case $1 in
            --services)
                choose_services "${2-}"
                shift
                ;;
            --services=*) choose_services "${1#*=}" ;;
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
    say "Building the release and its benchmark (minutes, the first time)" >&2
    driver=$(driver bench release)
    build_release
    check_driver "$driver" "${driver_args[@]}"
    begin_run
    find_services >&2
    name=bench-$(random_word)
    make_database "session_invite_${name/-/_}" database >&2
    note_queues queues "session-invite-$name"
    # A connection for each request in hand over HTTP.
    ulimit -Sn "$(ulimit -Hn)"
    export BENCH_RUN_DIR=$RUN_DIR BENCH_REPORTS=$DEV_DIR QUEUE_PREFIX=session-invite-$name
    run_driver bench "$driver" "${driver_args[@]}"
}

build_release() {
    if [[ -n ${SESSION_INVITE_BIN-} ]]; then
        build_program
    else
        cargo build --locked --quiet --release || fail "the build failed"
        SESSION_INVITE_BIN=${CARGO_TARGET_DIR:-target}/release/session-invite
    fi
    SESSION_INVITE_BIN=$(program)
    export SESSION_INVITE_BIN
}

# `./dev profile`: the same build with frame pointers and symbols, under perf. In a directory of its own, since other flags
# compile everything anew.
command_profile() {
    command -v perf >/dev/null || fail "perf is not installed (Debian and Ubuntu: linux-perf, linux-tools-generic)"
    need_build_tools
    say "Building the program with frame pointers and symbols (minutes, the first time)" >&2
    local built=$DEV_DIR/profile
    CARGO_TARGET_DIR=$built RUSTFLAGS="-C force-frame-pointers=yes" CARGO_PROFILE_RELEASE_STRIP=none \
        CARGO_PROFILE_RELEASE_DEBUG=line-tables-only cargo build --locked --quiet --release || fail "the build failed"
    SESSION_INVITE_BIN=$built/release/session-invite
    command_bench --only throughput --profile "$@"
}
