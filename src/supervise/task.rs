//! The names of the tasks.

/// A process that runs until a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// `session-invite worker`.
    Worker,
    /// `session-invite gateway`.
    Gateway,
}

macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident = $name:literal in $($process:ident),+;)*) => {
        /// The tasks of the processes. Each has an entry here, by which the tests find it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Task {
            $($(#[$doc])* $task,)*
        }

        impl Task {
            /// Every task.
            pub const ALL: &[Self] = &[$(Self::$task),*];

            /// The name in the log, in the metrics and in `problems`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$task => $name,)* }
            }

            /// The processes that run it.
            pub const fn processes(self) -> &'static [Process] {
                match self { $(Self::$task => &[$(Process::$process),+],)* }
            }
        }
    };
}

tasks! {
    /// Waits for SIGTERM and SIGINT.
    Signals = "signals" in Worker, Gateway;
    /// Proves that the runtime runs its tasks.
    Runtime = "runtime" in Worker, Gateway;
    /// Keeps the histograms of `/metrics` small.
    MetricsUpkeep = "metrics upkeep" in Worker, Gateway;
    /// Answers `/healthz`, `/readyz` and `/metrics` on `HTTP_ADDR`.
    Operators = "answers to operators" in Worker, Gateway;
    /// Checks whether the database does what the process needs.
    Database = "watch of the database" in Worker, Gateway;
    /// Looks at the broker's nodes.
    BrokerNodes = "look at the broker's nodes" in Worker, Gateway;
    /// Reports in the table `processes` that the process runs.
    Heartbeat = "heartbeat" in Worker, Gateway;
    /// Reads the groups again when they have changed.
    Groups = "groups" in Worker, Gateway;
    /// Consumes new requests.
    Requests = "consumer of requests" in Worker;
    /// Consumes the messages that the broker dropped.
    Dropped = "consumer of the dropped" in Worker;
    /// Runs the statement that inserts the rows of several invites.
    InsertSessions = "insert sessions" in Worker;
    /// Runs the statement that records the results of several tries.
    RecordOutcomes = "record outcomes" in Worker;
    /// Publishes replies.
    Replies = "publisher of replies" in Worker;
    /// Publishes replies to direct reply-to.
    DirectReplies = "publisher of direct replies" in Worker;
    /// Publishes events from the outbox.
    Events = "publisher of events" in Worker;
    /// Compares the database with the broker's last marker, and advances the marker.
    Marker = "keeper of the marker" in Worker;
    /// Finds open invites whose message the broker has lost.
    Resume = "resumption of open invites" in Worker;
    /// Ends sessions whose time is over.
    Sweep = "sweep of sessions" in Worker;
    /// Blanks and deletes old rows.
    Retention = "retention" in Worker;
    /// Returns unused shares of limits, and deletes old limits.
    Limits = "upkeep of limits" in Worker;
    /// Measures queues and tables for `/metrics`.
    Measurements = "measurements" in Worker;
    /// Sends spans to the collector.
    Traces = "export of traces" in Worker;
    /// Accepts connections.
    Connections = "connections" in Gateway;
    /// Publishes the requests that come over HTTP.
    RpcRequests = "publisher of requests" in Gateway;
    /// For a publishing connection: notices that it is lost.
    PublisherWatch = "watch of a publishing connection" in Worker, Gateway;
    /// For a consumer's connection: acknowledges.
    Acks = "acknowledgements" in Worker;
    /// For a consumer's connection: marks acknowledgements that are sure.
    SureAcks = "marks of sure acknowledgements" in Worker;
    /// For the gateway's connection: consumes replies.
    ReplyReader = "reader of replies" in Gateway;
    /// For the gateway's connection: reads how many requests wait.
    Backlog = "look at the backlog" in Gateway;
}
