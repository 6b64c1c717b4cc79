# `./dev api`: schemathesis against the gateway's own OpenAPI document, with whatever that allows and does not allow.

SCHEMATHESIS_VERSION=4.32.5

# All arguments but --services are schemathesis's.
command_api() {
    local name gkey
    local -a schemathesis_args=()
    while (($#)); do
        case $1 in
            --services)
                choose_services "${2-}"
                shift
                ;;
            --services=*) choose_services "${1#*=}" ;;
            *) schemathesis_args+=("$1") ;;
        esac
        shift
    done
    begin_run
    name=api-$(random_word)
    step "schemathesis $SCHEMATHESIS_VERSION, in .dev/tools" need_schemathesis
    step "Build (minutes, the first time)" build_program
    step "PostgreSQL and RabbitMQ" find_services
    make_database "session_invite_${name/-/_}" database
    note_queues queues "session-invite-$name"
    step "SMS provider: the sandbox" start_sandbox
    export_settings "session-invite-$name" "$(random_key)"
    step "Migrate" invite migrate
    step "Add group $DEMO_GROUP, without limits" invite groups add "$DEMO_GROUP" --per-number 0 >/dev/null
    step "Worker" start_worker
    step "Gateway" start_gateway
    gkey=$(invite tokens issue gkey --group "$DEMO_GROUP" --ttl 2h)
    say ""
    run_driver schemathesis env --chdir="$RUN_DIR" SCHEMATHESIS_HOOKS="$PWD/tests/api/hooks.py" \
        "$PWD/.dev/tools/schemathesis/bin/schemathesis" --no-color run "$PUBLIC_URL/openapi.json" \
        --header "Authorization: Bearer GKEY $gkey" --checks all "${schemathesis_args[@]}"
}

need_schemathesis() {
    local venv=$DEV_DIR/tools/schemathesis
    [[ -x $venv/bin/schemathesis ]] && return
    command -v python3 >/dev/null || install_packages python3 python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv" 2>/dev/null || {
        install_packages python3-venv
        python3 -m venv "$venv"
    }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION" ||
        fail "schemathesis could not be installed"
}
