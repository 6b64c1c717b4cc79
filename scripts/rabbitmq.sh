# RabbitMQ: the one that runs, a private one, and the queues on either.

# amqp_answers PORT: whether an AMQP broker speaks there. It answers the protocol header with a method frame, type 1.
amqp_answers() {
    local first
    {
        first=$(
            exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
            printf 'AMQP\0\0\11\1' >&3
            timeout 3 head -c 1 <&3 | od -An -tu1
        ) || return 1
    } 2>/dev/null
    ((${first:-0} == 1))
}

private_rabbitmq() {
    local begun port try
    RABBITMQ_SOURCE=private
    need_package "$SERVICE_ROOT/usr/lib/rabbitmq/bin/rabbitmq-server" rabbitmq-server
    begun=$(now_ms)
    service_directory rabbitmq
    # Another process can take a free port before we do, so a failure gets a second set of ports.
    for try in 1 2; do
        port=$(free_port)
        start_rabbitmq "$SERVICE_DIR" "$port"
        if wait_for 120 "$RUN_DIR/rabbitmq.log" amqp_answers "$port"; then
            AMQP_URL=amqp://guest:guest@127.0.0.1:$port/%2f
            make_rabbitmqctl "${AS_SERVICE[@]}" "${RABBITMQ_ENV[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl
            say "RabbitMQ: a private one, 127.0.0.1:$port ($(($(now_ms) - begun)) ms)"
            return
        fi
        stop_started rabbitmq
    done
    fail "the private RabbitMQ did not start in $try tries"
}

# Nothing of the system's broker is read: neither its configuration, plugins, cookie nor epmd.
start_rabbitmq() {
    local home=$1 port=$2 epmd_port dist_port name
    epmd_port=$(free_port)
    dist_port=$(free_port)
    # The data directory carries the node's name, so a kept one goes on under the name that it began with.
    [[ -f $home/node ]] || printf 'session-invite-dev-%s@localhost' "$(random_word)" >"$home/node"
    name=$(<"$home/node")
    mkdir -p "$home/conf.d"
    # The broker would start an epmd of its own, as a daemon that outlives it.
    start epmd "${AS_SERVICE[@]}" epmd -port "$epmd_port" -address 127.0.0.1
    wait_for 5 "$RUN_DIR/epmd.log" port_answers "$epmd_port" || fail "epmd did not start on port $epmd_port"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\nlog.console = true\nlog.console.level = warning\n' "$port" >"$home/rabbitmq.conf"
    printf '[].\n' >"$home/enabled_plugins"
    : >"$home/env.conf"
    give_to rabbitmq "$home"
    # What its rabbitmqctl needs too. env comes last, as sudo would drop its variables.
    RABBITMQ_ENV=(env -u RABBITMQ_NODE_PORT -u RABBITMQ_NODE_IP_ADDRESS
        "HOME=$home"
        "ERL_EPMD_PORT=$epmd_port"
        ERL_EPMD_ADDRESS=127.0.0.1
        "RABBITMQ_NODENAME=$name"
        "RABBITMQ_CONF_ENV_FILE=$home/env.conf")
    start rabbitmq "${AS_SERVICE[@]}" "${RABBITMQ_ENV[@]}" \
        ERL_CRASH_DUMP_SECONDS=0 \
        RABBITMQ_DIST_PORT="$dist_port" \
        RABBITMQ_MNESIA_BASE="$home/mnesia" \
        RABBITMQ_LOG_BASE="$home/log" \
        RABBITMQ_PID_FILE="$home/pid" \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq" \
        RABBITMQ_CONFIG_FILES="$home/conf.d" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
        /usr/lib/rabbitmq/bin/rabbitmq-server
}

# make_rabbitmqctl COMMAND…: a program that runs it with its own arguments, for tests that make users. RABBITMQCTL names it.
make_rabbitmqctl() {
    RABBITMQCTL=$RUN_DIR/rabbitmqctl
    printf '#!/bin/bash\nexec %s "$@"\n' "${*@Q}" >"$RABBITMQCTL"
    chmod 755 "$RABBITMQCTL"
    export RABBITMQCTL
}

# note_queues KIND PREFIX: only on a broker that outlives the run; ours takes its queues along.
note_queues() {
    if [[ $RABBITMQ_SOURCE == running ]]; then
        note "$1" "$AMQP_URL" "$2"
    fi
}

# delete_queues AMQP_URL PREFIX: every queue and exchange of ours under that prefix.
delete_queues() {
    [[ -x $(program) ]] || return 1
    AMQP_URL=$1 QUEUE_PREFIX=$2 timeout 20 env --chdir=/ "$(program)" topology delete </dev/null >/dev/null 2>&1
}
