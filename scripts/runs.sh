# A run is a directory with an undo log: a line for each thing started or made, written as it happens and
# undone last first. The exit trap undoes this run's log; the next run undoes the logs of runs that were killed.

RUN_DIR=""

# begin_run: a throwaway run that ends with this shell.
begin_run() {
    mkdir -p "$DEV_DIR"
    clean_stale_runs
    RUN_DIR=$DEV_DIR/run-$$-$(random_word)
    make_run_directory
    printf '%s %s\n' $$ "$(process_start $$)" >"$RUN_DIR/owner"
    trap end_run EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# keep_run: the run that outlives this shell, until `down`. A failure half-way still stops what was started.
keep_run() {
    mkdir -p "$DEV_DIR"
    clean_stale_runs
    RUN_DIR=$DEV_DIR/up
    make_run_directory
    trap abandon_run EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

make_run_directory() {
    mkdir -p "$RUN_DIR"
    # URLs in the undo log may hold passwords. Others may pass through, to a service's own directory.
    chmod 711 "$RUN_DIR"
    touch "$RUN_DIR/undo"
    chmod 600 "$RUN_DIR/undo"
}

end_run() {
    local status=$?
    trap - EXIT
    name_failed_step "$status"
    # A second ctrl-C must not leave half of it running.
    trap '' INT TERM HUP
    undo_run "$RUN_DIR" wipe
    rm -rf "$RUN_DIR"
    exit "$status"
}

# Silent for a signal: whoever sent it knows.
name_failed_step() {
    if (($1 && $1 < 128)) && [[ -n $CURRENT_STEP ]]; then
        printf 'dev: failed at: %s\n' "$CURRENT_STEP" >&2
    fi
}

abandon_run() {
    local status=$?
    trap - EXIT
    name_failed_step "$status"
    trap '' INT TERM HUP
    if ((status)); then
        undo_run "$RUN_DIR" keep
    fi
    exit "$status"
}

clean_stale_runs() {
    local run pid start
    for run in "$DEV_DIR"/run-*; do
        [[ -d $run ]] || continue
        pid="" start=""
        [[ -f $run/owner ]] && read -r pid start <"$run/owner"
        if [[ -n $pid ]] && is_running "$pid" "$start"; then
            continue
        fi
        # A directory without an owner may be one that another shell is making right now.
        if [[ -z $pid && -z $(find "$run" -maxdepth 0 -mmin +1) ]]; then
            continue
        fi
        say "Cleaning up after a run that was killed (${run##*/})"
        undo_run "$run" wipe
        rm -rf "$run"
    done
}

# note KIND WORDS…: what undo_run will undo.
note() { printf '%s\n' "$*" >>"$RUN_DIR/undo"; }

# undo_run DIR wipe|keep: `keep` leaves the lines that begin with kept-, and their data, for a later wipe.
undo_run() {
    local run=$1 mode=$2 line
    local -a words lines
    [[ -f $run/undo ]] || return 0
    mapfile -t lines < <(tac "$run/undo")
    for line in "${lines[@]}"; do
        read -r -a words <<<"$line"
        case $mode:${words[0]} in
            *:compose | *:kept-compose) compose_down "${words[1]}" "$mode" ;;
            *:compose-tests) compose_down "${words[1]}" caches ;;
            *:container) docker rm --force "${words[1]}" >/dev/null 2>&1 || true ;;
            keep:kept-*) ;;
            *:process) stop_process "${words[@]:1}" ;;
            *:queues | *:kept-queues) delete_queues "${words[@]:1}" || true ;;
            *:database | *:kept-database) drop_database "${words[@]:1}" || true ;;
            *:root-directory) "${AS_ROOT[@]}" rm -rf "${words[1]}" ;;
            *:directory | *:kept-directory) rm -rf "${words[1]}" ;;
        esac
    done
    if [[ $mode == keep ]]; then
        printf '%s\n' "${lines[@]}" | { grep '^kept-' || true; } | tac >"$run/undo.kept"
        mv "$run/undo.kept" "$run/undo"
    else
        : >"$run/undo"
    fi
}

# The last command of each name that `start` has started.
declare -A COMMANDS=()

# start NAME COMMAND…: in a session of its own, so that a ctrl-C reaches it only through us, once.
# Its output goes to NAME.log; sets STARTED to its process id.
start() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$RUN_DIR/$name.log" 2>&1 &
    STARTED=$!
    note process "$name" "$STARTED" "$(process_start "$STARTED")"
    COMMANDS[$name]=${*@Q}
}

# start_again NAME: the same command, so a server's data and port too. wait_for tells when it is ready.
start_again() {
    local -a command
    eval "command=(${COMMANDS[$1]})"
    start "$1" "${command[@]}"
}

# stop_started NAME [SIGNAL]: what was last started under that name. KILL is a crash.
stop_started() {
    local -a words
    read -r -a words < <(grep "^process $1 " "$RUN_DIR/undo" | tail -n 1)
    stop_process "$1" "${words[2]}" "${words[3]-}" "${2-}"
}

# stop_process NAME PID START [SIGNAL]: ends the whole session that `start` made; kills it after 30 s.
stop_process() {
    local name=$1 pid=$2 start=${3-} signal=${4-} waited=0
    is_running "$pid" "$start" || return 0
    # Silent, as bash would report here a job that was killed.
    {
        signal_session "${signal:-$(ending_signal "$name")}" "$pid"
        while is_running "$pid" "$start"; do
            if ((++waited > 300)); then
                say "Killing $name, which does not stop"
                break
            fi
            sleep 0.1
        done
        signal_session KILL "$pid"
        wait "$pid" || true
    } 2>/dev/null
}

ending_signal() {
    case $1 in
        # PostgreSQL's TERM waits for clients that may never leave; INT is its fast shutdown.
        postgres) printf INT ;;
        # As the first process of its namespace it gets no other.
        debootstrap) printf KILL ;;
        *) printf TERM ;;
    esac
}

# signal_session SIGNAL PID: what sudo has started for us is root's.
signal_session() {
    local -a as_owner=()
    [[ ! -e /proc/$2 || -O /proc/$2 ]] || as_owner=("${AS_ROOT[@]}")
    "${as_owner[@]}" kill -s "$1" -- "-$2" || true
}

# A process id is reused, so it counts only with the start time that it had (in clock ticks since boot).
process_start() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    # The command's name, in parentheses, may hold spaces.
    read -r -a stat <<<"${stat##*) }"
    printf '%s' "${stat[19]}"
}

is_running() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -r -a stat <<<"${stat##*) }"
    [[ ${stat[0]} != Z && ${stat[19]} == "$2" ]]
}

# wait_for SECONDS LOG COMMAND…: fails with the end of the log when it takes longer, or when STARTED has ended.
wait_for() {
    local deadline=$((SECONDS + $1)) log=$2 pid=$STARTED
    shift 2
    until "$@"; do
        if ((SECONDS >= deadline)) || [[ ! -e /proc/$pid ]]; then
            tail -n 15 "$log" | sed 's/^/    /' >&2
            return 1
        fi
        sleep 0.1
    done
}

# A port of 127.0.0.1 that nothing listens on, from below the range that outgoing connections use.
free_port() {
    local port
    while :; do
        port=$((20000 + SRANDOM % 12000))
        port_answers "$port" || break
    done
    printf '%s' "$port"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# http_get PORT PATH: the body, and success only for a 2xx. Spares a bare machine curl.
http_get() { http_ask "$1" "$(printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n\r\n.' "$2" "$1")"; }

# http_post PORT PATH HEADER JSON
http_post() {
    http_ask "$1" "$(printf 'POST %s HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s.' \
        "$2" "$1" "$3" ${#4} "$4")" 40
}

# http_ask PORT REQUEST [SECONDS]: the request ends with a dot, which keeps its last line from being cut off.
http_ask() {
    local answer
    {
        answer=$(
            exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
            printf '%s' "${2%.}" >&3
            timeout "${3-5}" cat <&3
        ) || return 1
    } 2>/dev/null
    [[ $answer == "HTTP/1."?" 2"* ]] || return 1
    printf '%s\n' "${answer#*$'\r\n\r\n'}"
}
