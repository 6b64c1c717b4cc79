# `./dev fuzz`: cargo-fuzz's targets (docs/FUZZING.md), each for a while, from the committed seeds.

CARGO_FUZZ_VERSION=0.13.2
# There is no unsafe code for a sanitizer to watch, and it would halve the speed. One unit for each crate, cargo-fuzz's own
# choice, takes longer to build than the runs gain by it.
FUZZ_BUILD=(--sanitizer none --codegen-units 16)

command_fuzz() {
    local seconds=20 target run
    local -a targets=() failed=()
    while (($#)); do
        case $1 in
            --seconds)
                seconds=${2-}
                shift
                ;;
            --seconds=*) seconds=${1#*=} ;;
            -*) wrong_usage "fuzz does not take \"$1\"" ;;
            *) targets+=("$1") ;;
        esac
        shift
    done
    [[ $seconds =~ ^[1-9][0-9]*$ ]] || wrong_usage "--seconds is a number, not \"$seconds\""
    need_build_tools
    cargo +nightly --version >/dev/null 2>&1 ||
        fail "fuzzing needs Rust's nightly toolchain, and there is none: rustup toolchain install nightly --profile minimal"
    PATH=$DEV_DIR/tools/bin:$PATH
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "Installing cargo-fuzz $CARGO_FUZZ_VERSION into .dev/tools"
        cargo install cargo-fuzz --version "$CARGO_FUZZ_VERSION" --locked --quiet --root "$DEV_DIR/tools" ||
            fail "cargo-fuzz could not be installed"
    fi
    local -a known
    mapfile -t known < <(cargo +nightly fuzz list)
    ((${#targets[@]})) || targets=("${known[@]}")
    for target in "${targets[@]}"; do
        [[ " ${known[*]} " == *" $target "* ]] || wrong_usage "there is no target \"$target\"; there are ${known[*]}"
    done
    # cargo fuzz takes no --locked.
    check_fuzz_lock
    say "Building the targets"
    cargo +nightly fuzz build "${FUZZ_BUILD[@]}" || fail "the targets do not build"
    local -a running=()
    for target in "${targets[@]}" ""; do
        # As many at a time as there are processors; the empty name waits for the last ones.
        if [[ -z $target ]] || ((${#running[@]} == $(nproc))); then
            for run in "${running[@]}"; do
                wait "${run%%:*}" || failed+=("${run#*:}")
            done
            running=()
        fi
        [[ -n $target ]] || break
        fuzz_one "$target" "$seconds" &
        running+=("$!:$target")
    done
    ((${#failed[@]} == 0)) || fail "failed: ${failed[*]}; what made it fail is in fuzz/artifacts"
    say "${#targets[@]} targets, $seconds s each: nothing found"
}

# What it learns goes to fuzz/corpus, which is not committed. A failure's output ends with the input.
fuzz_one() {
    local log=$DEV_DIR/fuzz-$1.log
    mkdir -p "$DEV_DIR" "fuzz/corpus/$1"
    if ! cargo +nightly fuzz run "${FUZZ_BUILD[@]}" "$1" "fuzz/corpus/$1" "fuzz/seeds/$1" -- -dict="fuzz/dictionaries/$1" \
        -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log"
        return 1
    fi
    # Its last line of progress begins so: #52133 DONE cov: 915 ft: 3021
    say "$1: $(sed -nE 's/^#([0-9]+)\tDONE +cov: ([0-9]+) .*/\1 inputs, \2 places of the code reached/p' "$log")"
}
