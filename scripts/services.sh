# Where PostgreSQL and RabbitMQ come from: the first source that works, for each by itself.

# Sets and exports DATABASE_URL and AMQP_URL, and sets POSTGRES_SOURCE and RABBITMQ_SOURCE.
find_services() {
    if [[ $SERIES == new ]]; then
        use_new_series
    fi
    find_postgres
    find_rabbitmq
    export DATABASE_URL AMQP_URL
}

find_postgres() {
    if may_use running; then
        if [[ -n ${DATABASE_URL-} ]]; then
            POSTGRES_SOURCE=running
            say "PostgreSQL: DATABASE_URL, $(without_password "$DATABASE_URL")"
            return
        fi
        if DATABASE_URL=$(running_postgres); then
            POSTGRES_SOURCE=running
            say "PostgreSQL: the one on the default port, $(without_password "$DATABASE_URL")"
            return
        fi
    fi
    if may_use compose && compose_works; then
        compose_postgres
    elif may_use private; then
        private_postgres
    else
        fail "no PostgreSQL: $(why_none DATABASE_URL 5432)"
    fi
}

find_rabbitmq() {
    if may_use running; then
        if [[ -n ${AMQP_URL-} ]]; then
            RABBITMQ_SOURCE=running
            say "RabbitMQ: AMQP_URL, $(without_password "$AMQP_URL")"
            return
        fi
        if amqp_answers 5672; then
            RABBITMQ_SOURCE=running
            AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f
            say "RabbitMQ: the one on the default port, $(without_password "$AMQP_URL")"
            return
        fi
    fi
    if may_use compose && compose_works; then
        compose_rabbitmq
    elif may_use private; then
        private_rabbitmq
    else
        fail "no RabbitMQ: $(why_none AMQP_URL 5672)"
    fi
}

may_use() { [[ $SERVICES == auto || $SERVICES == "$1" ]]; }

why_none() {
    case $SERVICES in
        running) say "$1 is not set, and nothing usable answers on 127.0.0.1:$2" ;;
        compose) say "no Docker engine with Compose answers here" ;;
    esac
}

# service_directory USER: makes a place for that service's files. Sets SERVICE_DIR, and AS_SERVICE: the words that run
# a command as that system user when we are root (PostgreSQL refuses to be), and as ourselves otherwise.
# `up` keeps the directory, other runs remove it. Where the user cannot pass through to .dev/, as in a home
# directory, it is in /var/tmp; the run's name in it is what finds it again for the next `up`.
service_directory() {
    local user=$1 kind=directory
    SERVICE_DIR=$RUN_DIR/$user
    AS_SERVICE=("${WITHIN[@]}")
    if ((!EUID)); then
        AS_SERVICE+=(setpriv "--reuid=$user" "--regid=$user" --init-groups --)
        if ! "${AS_SERVICE[@]}" test -x "$RUN_DIR"; then
            SERVICE_DIR=/var/tmp/session-invite-dev-$(cksum <<<"$RUN_DIR" | cut -d' ' -f1)-$user
        fi
    fi
    [[ $RUN_DIR == "$DEV_DIR/up" ]] && kind=kept-directory
    note "$kind" "$SERVICE_DIR"
    mkdir -p "$SERVICE_DIR"
    chmod 700 "$SERVICE_DIR"
    give_to "$user" "$SERVICE_DIR"
}

# give_to USER DIRECTORY: a user of the system that the service is installed in.
give_to() { ((EUID)) || "${WITHIN[@]}" chown --recursive "$1:" "$2"; }
