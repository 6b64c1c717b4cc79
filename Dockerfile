# Stages: sources → builder → runtime (the default), and sources → tests.

FROM rust:1.95-slim-bookworm AS sources
WORKDIR /src
# Queries were checked against the committed .sqlx; the build has no database.
ENV SQLX_OFFLINE=true
COPY . .

FROM sources AS builder
# CI sets them, for a program that is optimized less and built sooner.
ARG CARGO_PROFILE_RELEASE_LTO
ARG CARGO_PROFILE_RELEASE_OPT_LEVEL
ARG CARGO_PROFILE_RELEASE_CODEGEN_UNITS
# The target directory is a cache, gone after this step, so the program is copied out within it. cargo goes by the files' times,
# which say nothing about a cache that another checkout may have filled: `touch` makes it compile the project's own code each time.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=session-invite-target,target=/src/target \
    find . -name '*.rs' -not -path './target/*' -exec touch {} + && \
    cargo build --release --locked && \
    cp target/release/session-invite /usr/local/bin/session-invite

# The suite is compiled when a container starts, into the volume that docker-compose.yml mounts at /src/target. So an edit does
# not compile the dependencies again. For the `touch` see above.
FROM sources AS tests
ENTRYPOINT ["sh", "-c", "find . -name '*.rs' -not -path './target/*' -exec touch {} + && exec \"$@\"", "tests"]
CMD ["cargo", "test", "--locked", "--workspace"]

# glibc and certificates, no shell, and not root (65532).
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
COPY --from=builder /usr/local/bin/session-invite /usr/local/bin/session-invite
EXPOSE 8080 8081 9464
# Requests /readyz at HTTP_ADDR, which is right for the worker. The image has no curl, so the program makes the request.
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=6 \
    CMD ["/usr/local/bin/session-invite", "ready"]
ENTRYPOINT ["/usr/local/bin/session-invite"]
CMD ["worker"]
