# `./dev browser`: the gateway's pages in a real Chromium, which is installed if it is missing.

# All arguments but --services, --series and --pictures are the test runner's.
command_browser() {
    local pictures=""
    local -a runner_args=()
    while (($#)); do
        case $1 in
            --services)
                choose_services "${2-}"
                shift
                ;;
            --services=*) choose_services "${1#*=}" ;;
            --pictures) pictures=$PWD/docs ;;
            *) runner_args+=("$1") ;;
        esac
        shift
    done
    need_build_tools
    need_package chromedriver chromium chromium-driver fonts-dejavu-core
    begin_run
    find_services
    if [[ -n $pictures ]]; then
        export PICTURES=$pictures
    fi
    cargo test --locked --quiet --test browser -- "${runner_args[@]}"
}
