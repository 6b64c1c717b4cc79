//! The tasks of the processes, by name.

/// A process that goes on until a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Worker,
    Gateway,
}

macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident = $name:literal in $($process:ident),+;)*) => {
        /// The tasks of the processes. A new one needs an entry here, and so the tests know it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Task {
            $($(#[$doc])* $task,)*
        }

        impl Task {
            pub const ALL: &[Self] = &[$(Self::$task),*];

            /// As the log and `problems` name it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$task => $name,)* }
            }

            /// The processes that it belongs to.
            pub const fn processes(self) -> &'static [Process] {
                match self { $(Self::$task => &[$(Process::$process),+],)* }
            }
        }
    };
}

tasks! {
    /// Waits for SIGTERM and SIGINT.
    Signals = "signals" in Worker, Gateway;
    /// Shows that the runtime runs its tasks.
    Runtime = "runtime" in Worker, Gateway;
    MetricsUpkeep = "metrics upkeep" in Worker, Gateway;
    /// Answers `/healthz`, `/readyz` and `/metrics` on `HTTP_ADDR`.
    Operators = "answers to operators" in Worker, Gateway;
    /// Looks whether the database does what the process needs.
    Database = "watch of the database" in Worker, Gateway;
    /// Reads the groups again when they have changed.
    Groups = "groups" in Worker, Gateway;
    /// Take the new messages of a queue.
    Requests = "consumer of requests" in Worker;
    Dropped = "consumer of the dropped" in Worker;
    /// Each statement that invites share has a task.
    InsertSessions = "insert sessions" in Worker;
    RecordOutcomes = "record outcomes" in Worker;
    Replies = "publisher of replies" in Worker;
    DirectReplies = "publisher of direct replies" in Worker;
    Events = "publisher of events" in Worker;
    Sweep = "sweep of sessions" in Worker;
    Retention = "retention" in Worker;
    Limits = "upkeep of limits" in Worker;
    /// Take new connections.
    Connections = "connections" in Gateway;
    Asking = "publisher of requests" in Gateway;
    /// Of a connection that publishes: notices that it is lost.
    LineWatch = "watch of a publishing connection" in Worker, Gateway;
    /// Of a consumer's connection: acknowledges.
    Acks = "acknowledgements" in Worker;
    /// Of a consumer's connection: marks acknowledgements that are sure.
    SureAcks = "marks of sure acknowledgements" in Worker;
    /// Of the connection that asks: takes replies.
    ReplyReader = "reader of replies" in Gateway;
    /// Of the connection that asks: looks how many requests wait.
    Backlog = "look at the backlog" in Gateway;
}
