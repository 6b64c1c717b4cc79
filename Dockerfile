# syntax=docker/dockerfile:1
# Stages: sources → builder → runtime (the default), and sources → tests.

FROM rust:1.95-slim-bookworm AS sources
WORKDIR /src
# Queries were checked against the committed .sqlx; the build has no database.
ENV SQLX_OFFLINE=true
COPY . .

FROM sources AS builder
# The target directory is a cache, gone after this step, so the program is copied out within it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && \
    cp target/release/session-invite /usr/local/bin/session-invite

# The suite, compiled when the image is built, run when a container starts.
FROM sources AS tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo test --locked --no-run
CMD ["cargo", "test", "--locked"]

# glibc and certificates, no shell, and not root (65532).
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
COPY --from=builder /usr/local/bin/session-invite /usr/local/bin/session-invite
EXPOSE 8080 8081 9464
# Asks /readyz at HTTP_ADDR: right for the worker. There is no curl in here, so the program asks itself.
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=6 \
    CMD ["/usr/local/bin/session-invite", "ready"]
ENTRYPOINT ["/usr/local/bin/session-invite"]
CMD ["worker"]
