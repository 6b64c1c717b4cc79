# What runs in containers: `./dev images`, `./dev compose` and `./dev bare`.

IMAGE=session-invite
# What the program may add to the runtime image's base.
IMAGE_LIMIT_MIB=60
# Its volumes keep the crates and what was compiled of them, for `./dev compose --tests` and `./dev bare`.
TESTS_PROJECT=session-invite-tests

# base_image STAGE: what that stage of the Dockerfile begins from.
base_image() { sed -nE "s/^FROM ([^ ]+) AS $1\$/\\1/p" Dockerfile; }

need_engine() { compose_works || fail "no Docker engine with Compose answers here"; }

command_images() {
    need_engine
    begin_run
    # The builder that the command-line tool of Debian 12 takes by itself knows no cache mounts.
    export DOCKER_BUILDKIT=1
    step "Build the image of the program" docker build --quiet --target runtime --tag "$IMAGE" .
    step "It has the program, no shell and no root, in $IMAGE_LIMIT_MIB MiB at most" check_image
    step "Build the image of the tests" docker build --quiet --target tests .
}

check_image() {
    local base user size files added
    base=$(base_image runtime)
    user=$(docker image inspect --format '{{.Config.User}}' "$IMAGE")
    [[ -n $user && ! $user =~ ^(0|root)(:|$) ]] || fail "the image runs as root"
    size=$((($(image_size "$IMAGE") - $(image_size "$base")) / 1048576))
    ((size < IMAGE_LIMIT_MIB)) || fail "the image has $size MiB more than $base"
    files=$(image_files "$IMAGE")
    ! grep -E '(^|/)bin/(sh|ash|bash|dash|busybox)$' <<<"$files" || fail "there is a shell in the image"
    added=$(comm -13 <(image_files "$base") - <<<"$files")
    [[ $added == usr/local/bin/session-invite ]] || fail "the image has other files than the program: $added"
    say "$IMAGE: user $user, $size MiB more than $base"
}

image_size() { docker image inspect --format '{{.Size}}' "$1"; }

# image_files IMAGE: their paths, without directories.
image_files() {
    local container
    container=$(docker create "$1" none)
    note container "$container"
    docker export "$container" | tar --list | grep -v '/$' | LC_ALL=C sort
}

command_compose() {
    local tests=no
    if [[ ${1-} == --tests ]]; then
        tests=yes
        shift
    fi
    need_engine
    begin_run
    if [[ $tests == yes ]]; then
        compose_tests "$@"
        return
    fi
    (($# == 0)) || wrong_usage "compose does not take \"$1\""
    COMPOSE_PROJECT=session-invite-dev-$(basename "$RUN_DIR")
    GATEWAY_PORT=$(free_port)
    SANDBOX_PORT=$(free_port)
    SECRETS_KEY=$(random_key)
    export GATEWAY_PORT SANDBOX_PORT SECRETS_KEY
    # The file takes these from the environment, for a real provider.
    unset SMS_BASE_URL PUBLIC_URL TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN SMS_FROM
    note compose "$COMPOSE_PROJECT"
    step "docker compose up --build --wait" compose --progress quiet up --detach --build --wait
    step "The policy that lifts RabbitMQ 4's delivery limit holds for three queues" check_policy
    step "Add group $DEMO_GROUP" in_worker groups add "$DEMO_GROUP"
    step "Invite over the queue, and its reply" \
        in_worker send --group "$DEMO_GROUP" --user 12345 --phone 111-000-0000 --camera back --resolution 352x288
    step "The same over HTTP" ask_over_compose
    step "The texts, as the provider got them" wait_for_deliveries
    step "Stop, and remove what was made" undo_run "$RUN_DIR" wipe
}

# The image has no shell, and needs none for this.
in_worker() { compose exec -T worker session-invite "$@" </dev/null; }

check_policy() {
    local policies
    policies=$(compose exec -T rabbitmq rabbitmqctl --quiet list_queues policy </dev/null)
    (($(grep -cx session-invite <<<"$policies") == 3)) || fail "it does not"
}

ask_over_compose() {
    local gkey
    gkey=$(in_worker tokens issue gkey --group "$DEMO_GROUP" --user 12345)
    GATEWAY_ADDR=127.0.0.1:$GATEWAY_PORT post_invite "$gkey"
}

wait_for_deliveries() {
    local deadline=$((SECONDS + 20))
    until (($(in_worker sessions list --status delivered --json | grep -o '"delivered"' | wc -l) == 2)); do
        ((SECONDS < deadline)) || fail "two texts are not delivered in 20 s"
        sleep 0.5
    done
    SANDBOX_URL=http://127.0.0.1:$SANDBOX_PORT show_inbox
}

# The tests' profile; arguments replace its command. Nothing is printed after the runner's own summary.
compose_tests() {
    COMPOSE_PROJECT=$TESTS_PROJECT
    note compose-tests "$COMPOSE_PROJECT"
    compose --progress quiet --profile tests run --build --rm tests "$@" </dev/null &
    wait "$!"
}

# The README's two commands, or another one, in a container that has cargo and nothing else: a clean checkout, no variable
# set, and none of this machine's services. Nothing is printed after the runner's own summary.
command_bare() {
    local commands="./dev demo && ./dev test"
    (($# == 0)) || commands="./dev ${*@Q}"
    need_engine
    begin_run
    local name=${RUN_DIR##*/}
    note container "$name"
    # The files are as git has them, with changes that are not committed yet. Their times are those of their arrival (--touch),
    # as cargo goes by them, and other checkouts fill the volume too.
    git ls-files -z | tar --create --null --files-from - |
        docker run --rm --interactive --init --name "$name" \
            --volume "${TESTS_PROJECT}_cargo:/usr/local/cargo/registry" --volume "${TESTS_PROJECT}_target:/src/target" \
            "$(base_image sources)" bash -c "cd /src && tar --extract --touch && exec </dev/null && $commands" &
    # Unlike a command in the foreground, `wait` lets a signal through at once; what it ends is the container.
    wait "$!"
}
