# PostgreSQL and RabbitMQ from docker-compose.yml, as a project of this run's own on free ports.

# A developer's .env is not read. The file wants the key for its worker.
compose() {
    SECRETS_KEY=${SECRETS_KEY-unused} docker compose --env-file /dev/null --project-name "$COMPOSE_PROJECT" \
        --file docker-compose.yml "${COMPOSE_PORTS[@]}" "$@"
}

# The file with the servers' ports, where they are wanted on this machine.
COMPOSE_PORTS=()

compose_works() {
    docker compose version >/dev/null 2>&1 && timeout 10 docker info >/dev/null 2>&1
}

compose_postgres() {
    POSTGRES_SOURCE=compose
    POSTGRES_PORT=$(free_port)
    export POSTGRES_PORT
    compose_start postgres
    DATABASE_URL=postgres://session_invite:session_invite@127.0.0.1:$POSTGRES_PORT/postgres
    need_package psql postgresql-client
    say "PostgreSQL: Docker Compose, 127.0.0.1:$POSTGRES_PORT"
}

compose_rabbitmq() {
    RABBITMQ_SOURCE=compose
    RABBITMQ_PORT=$(free_port)
    RABBITMQ_UI_PORT=$(free_port)
    export RABBITMQ_PORT RABBITMQ_UI_PORT
    compose_start rabbitmq
    AMQP_URL=amqp://session_invite:session_invite@127.0.0.1:$RABBITMQ_PORT/%2f
    make_rabbitmqctl docker exec "$(compose ps --quiet rabbitmq)" rabbitmqctl
    say "RabbitMQ: Docker Compose, 127.0.0.1:$RABBITMQ_PORT"
}

compose_start() {
    local kind=compose
    if [[ $RUN_DIR == "$DEV_DIR/up" ]]; then
        kind=kept-compose
        COMPOSE_PROJECT=session-invite-up
    else
        COMPOSE_PROJECT=session-invite-dev-$(basename "$RUN_DIR")
    fi
    note "$kind" "$COMPOSE_PROJECT"
    say "Starting $1 with Docker Compose"
    COMPOSE_PORTS=(--file docker-compose.ports.yml)
    compose up --detach --wait "$1" >"$RUN_DIR/compose-$1.log" 2>&1 || {
        tail -n 10 "$RUN_DIR/compose-$1.log" | sed 's/^/    /' >&2
        fail "Docker Compose could not start $1"
    }
}

# compose_down PROJECT wipe|keep|caches: `keep` leaves the volumes, `caches` those that hold what was fetched and compiled.
compose_down() {
    COMPOSE_PROJECT=$1
    local -a volumes=()
    [[ $2 == wipe ]] && volumes=(--volumes)
    compose --profile '*' down "${volumes[@]}" --timeout 10 >/dev/null 2>&1 || true
    if [[ $2 == caches ]]; then
        docker volume rm --force "$1_postgres" "$1_rabbitmq" >/dev/null 2>&1 || true
    fi
}
