# `./dev check`, and the suite of `./dev test`. Each check runs even when one before it has failed.

CARGO_DENY_VERSION=0.20.2

command_check() {
    local -a failed=()
    need_build_tools
    PATH=$DEV_DIR/tools/bin:$PATH
    if [[ $INSTALL == yes ]] && ! cargo deny --version >/dev/null 2>&1; then
        say "Installing cargo-deny $CARGO_DENY_VERSION into .dev/tools (two to three minutes on two cores)"
        cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --quiet --root "$DEV_DIR/tools" ||
            fail "cargo-deny could not be installed"
    fi
    if [[ $INSTALL == yes ]]; then
        need_package shellcheck shellcheck
    fi
    try_check "format" check_format
    try_check "clippy" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
    try_check "docs" check_docs
    try_check "committed queries" check_queries
    try_check "dependencies" check_dependencies
    try_check "fuzz/Cargo.lock" check_fuzz_lock
    try_check "shell scripts" check_scripts
    try_check "docker-compose.yml" check_compose
    ((${#failed[@]} == 0)) || fail "failed: $(IFS=,; echo "${failed[*]}")"
    say "All checks passed"
}

# try_check NAME COMMAND…: a check that cannot be made here says why and passes.
try_check() {
    local name=$1 status
    shift
    say "— $name"
    # Neither `||` nor `if`: either would switch errexit off within the check.
    set +e
    (
        set -e
        "$@"
    )
    status=$?
    set -e
    if ((status)); then
        failed+=("$name")
    fi
}

# The crate of the fuzzing targets is no member of a workspace: what builds them is nightly (docs/FUZZING.md).
check_format() { cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check; }

check_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet; }

check_dependencies() {
    if ! cargo deny --version >/dev/null 2>&1; then
        say "  skipped: cargo-deny is not installed (./dev check --install)"
        return
    fi
    cargo deny --log-level error check bans licenses sources || return
    # These come from a git repository, and are news: they say nothing of this change.
    if [[ $ADVISORIES == yes ]]; then
        cargo deny --log-level error check advisories
    fi
}

# Another dependency of the program's is one of theirs.
check_fuzz_lock() {
    cargo metadata --locked --quiet --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null ||
        fail "fuzz/Cargo.lock is not up to date: cargo update --workspace --manifest-path fuzz/Cargo.toml"
}

# Every committed query must still be what the code and the migrations say. Needs a server for a throwaway database.
check_queries() {
    if [[ ! -d .sqlx ]]; then
        say "  skipped: there is no .sqlx"
        return
    fi
    if [[ -z ${DATABASE_URL-} ]] && ! DATABASE_URL=$(running_postgres 2>/dev/null); then
        say "  skipped: no PostgreSQL here (DATABASE_URL, or one on the default port)"
        return
    fi
    POSTGRES_SOURCE=running
    begin_run
    local fresh=$RUN_DIR/sqlx migration
    make_database "session_invite_check_$(random_word)" database
    for migration in migrations/*.sql; do
        [[ $migration == *.down.sql ]] && continue
        psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$DATABASE_URL" --file "$migration" >/dev/null
    done
    mkdir "$fresh"
    # The macros write what they find as they expand, so the crate must be compiled anew: its own artefacts, not its
    # dependencies'. Tests hold queries too.
    touch src/lib.rs src/main.rs
    SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh cargo check --locked --quiet --all-targets
    diff --recursive --brief .sqlx "$fresh" || {
        say "  .sqlx is not what the code says: mkdir -p .sqlx && SQLX_OFFLINE=false SQLX_OFFLINE_DIR=\$PWD/.sqlx DATABASE_URL=… cargo check --all-targets"
        return 1
    }
}

check_scripts() {
    if ! command -v shellcheck >/dev/null; then
        say "  skipped: shellcheck is not installed"
        return
    fi
    # A sourced file's variables are another's, so shellcheck sees one without its use.
    shellcheck --shell bash --exclude SC2034,SC2154 dev .ci/run .ci/engine scripts/*
}

check_compose() {
    if ! docker compose version >/dev/null 2>&1; then
        say "  skipped: no Docker Compose here"
        return
    fi
    SECRETS_KEY=unused docker compose --file docker-compose.yml --file docker-compose.ports.yml config --quiet
}

# run_tests ARGS…: nothing is printed after the runner's own summary.
run_tests() {
    # Doc tests come first, and with arguments, which choose tests, they are not asked for: nextest runs none.
    if (($# == 0)); then
        cargo test --locked --workspace --doc --quiet
    fi
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --workspace "$@"
        return
    fi
    (($#)) || set -- --no-fail-fast --lib --bins --tests
    # As many at a time as in .config/nextest.toml.
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-6} cargo test --locked --workspace "$@"
}
