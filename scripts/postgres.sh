# PostgreSQL: the one that runs, a private one, and the databases on either.

# sql URL STATEMENT: the bare answer.
sql() {
    PGCONNECT_TIMEOUT=5 psql --no-psqlrc --no-password --quiet --tuples-only --no-align \
        --set ON_ERROR_STOP=1 --dbname "$1" --command "$2"
}

# Prints the URL of the server on the default port, as the first user that may create databases.
running_postgres() {
    local user url may
    port_answers 5432 || return 1
    need_package psql postgresql-client >&2
    for user in "$(id -un)" postgres postgres:postgres; do
        url=postgres://$user@127.0.0.1:5432/postgres
        may=$(sql "$url" 'select rolcreatedb or rolsuper from pg_roles where rolname = current_user' 2>/dev/null) || continue
        if [[ $may == t ]]; then
            printf '%s' "$url"
            return
        fi
    done
    say "PostgreSQL answers on 127.0.0.1:5432, but not to us without a password (set DATABASE_URL to use it)" >&2
    return 1
}

private_postgres() {
    local bin begun port
    POSTGRES_SOURCE=private
    need_package "$SERVICE_ROOT/usr/lib/postgresql/*/bin/initdb" postgresql
    need_package psql postgresql-client
    begun=$(now_ms)
    bin=$(dirname "$(printf '%s\n' "$SERVICE_ROOT"/usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")
    bin=${bin#"$SERVICE_ROOT"}
    service_directory postgres
    local data=$SERVICE_DIR/data
    if [[ ! -f $data/PG_VERSION ]]; then
        "${AS_SERVICE[@]}" "$bin/initdb" --pgdata "$data" --username postgres --auth trust \
            --encoding UTF8 --locale C.UTF-8 >"$RUN_DIR/initdb.log" 2>&1 || {
            tail -n 5 "$RUN_DIR/initdb.log" >&2
            fail "initdb failed"
        }
    fi
    # Another process can take a free port before we do, so a failure gets a second port.
    local try
    for try in 1 2; do
        port=$(free_port)
        start postgres "${AS_SERVICE[@]}" "$bin/postgres" -D "$data" -p "$port" -h 127.0.0.1 \
            -c "unix_socket_directories=$SERVICE_DIR" -c max_connections=200
        DATABASE_URL=postgres://postgres@127.0.0.1:$port/postgres
        if wait_for 15 "$RUN_DIR/postgres.log" postgres_ready "$DATABASE_URL"; then
            say "PostgreSQL: a private one, 127.0.0.1:$port ($(($(now_ms) - begun)) ms)"
            return
        fi
    done
    fail "the private PostgreSQL did not start in $try tries"
}

postgres_ready() { sql "$1" 'select 1' >/dev/null 2>&1; }

# make_database NAME KIND: points DATABASE_URL at that database of its server, made if need be. KIND is how undo
# knows it, on a server that outlives the run; ours takes its databases along.
make_database() {
    local name=$1 kind=$2 server=$DATABASE_URL there
    need_package psql postgresql-client
    there=$(sql "$server" "select count(*) from pg_database where datname = '$name'" 2>&1) ||
        fail "cannot use $(without_password "$server"): $(first_line "${there##*:  }")"
    if ((!there)); then
        there=$(sql "$server" "create database \"$name\"" 2>&1) ||
            fail "cannot create a database on $(without_password "$server"): $(first_line "${there##*:  }")"
    fi
    if [[ $POSTGRES_SOURCE == running ]]; then
        note "$kind" "$server" "$name"
    fi
    DATABASE_URL=$(with_database "$server" "$name")
    export DATABASE_URL
}

drop_database() { sql "$1" "drop database if exists \"$2\" with (force)" >/dev/null 2>&1; }

# The same server's URL with another database; its options stay.
with_database() {
    local url=$1 name=$2 options=""
    if [[ $url == *\?* ]]; then
        options="?${url#*\?}"
    fi
    url=${url%%\?*}
    local authority=${url#*://}
    printf '%s://%s/%s%s' "${url%%://*}" "${authority%%/*}" "$name" "$options"
}
