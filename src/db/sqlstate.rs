//! What to do about each of PostgreSQL's error codes. Only this module decides it
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

/// What the process does about an error of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorAction {
    /// The server is away or busy, or refuses something that an operator can allow: the same statement may succeed later.
    Wait,
    /// The same, on another connection: this one is closed, and so are all that were opened before it failed.
    RetireConnections,
    /// The statement or its data is wrong and stays wrong: this request fails, and no other.
    Refuse,
    /// The login is wrong. A process that starts ends; one that runs waits, because the operator may be changing the login.
    End,
}

use ErrorAction::{End, Refuse, RetireConnections, Wait};

/// A class (two characters) or a single code, which comes before its class.
const ACTIONS: [(&str, ErrorAction); 56] = [
    // Successful completion, warning, no data: these are not errors.
    ("00", Refuse),
    ("01", Refuse),
    ("02", Refuse),
    ("03", Refuse),
    // The connection. A pooler that refuses a startup parameter sends 08P01 too.
    ("08", RetireConnections),
    ("09", Refuse),
    // "cached plan must not change result type": a migration has changed a table under a prepared statement.
    ("0A", RetireConnections),
    ("0B", RetireConnections),
    ("0F", Refuse),
    ("0L", Refuse),
    ("0P", Refuse),
    ("0Z", Refuse),
    ("20", Refuse),
    ("21", Refuse),
    // The data: never tried again.
    ("22", Refuse),
    ("23", Refuse),
    ("24", RetireConnections),
    // The transaction's state. 25006: the server takes no writes, as a standby or a demoted primary.
    ("25", RetireConnections),
    // A prepared statement does not exist: a pooler in transaction mode has changed the server connection.
    ("26", RetireConnections),
    ("27", Refuse),
    ("28", End),
    ("2B", Refuse),
    ("2D", RetireConnections),
    ("2F", Refuse),
    ("34", RetireConnections),
    ("38", Refuse),
    ("39", Refuse),
    ("3B", RetireConnections),
    // The database or the schema does not exist.
    ("3D", End),
    ("3F", Wait),
    // Serialization, deadlock.
    ("40", Wait),
    ("40002", Refuse),
    ("40003", RetireConnections),
    ("42", Refuse),
    // An operator can restore what is missing: a right, a table, a column, a function, an index.
    ("42501", Wait),
    ("42P01", Wait),
    ("42703", Wait),
    ("42704", Wait),
    ("42883", Wait),
    ("42P10", Wait),
    // A prepared statement exists already: a pooler in transaction mode again.
    ("42P05", RetireConnections),
    ("44", Refuse),
    // Disk, memory, connections.
    ("53", Wait),
    ("54", Refuse),
    // Not in the state that the statement needs; 55P03: a lock was not available.
    ("55", Wait),
    // An operator: 57014 cancels one statement; 57P03: the server starts.
    ("57", Wait),
    ("57P01", RetireConnections),
    ("57P02", RetireConnections),
    ("57P04", RetireConnections),
    ("57P05", RetireConnections),
    // The server's own disk.
    ("58", Wait),
    ("72", Wait),
    ("F0", Wait),
    ("HV", Refuse),
    // Raised by a trigger that the operator added.
    ("P0", Refuse),
    // The server has a bug, or its data is damaged: an operator has to look.
    ("XX", Wait),
];

/// The action for a code, by the code itself or by its class. For an unknown code it is to wait: nothing is lost then, and the
/// readiness report names the code.
pub(super) fn action(code: &str) -> ErrorAction {
    let of = |key: &str| ACTIONS.iter().find(|(known, _)| *known == key).map(|(_, action)| *action);
    of(code).or_else(|| of(code.get(..2)?)).unwrap_or(Wait)
}

/// Whether this code, while a connection is set, means that the server refuses a setting: its name or value is wrong, or the
/// role may not set it. The server will not take it later either.
pub(super) fn refuses_a_setting(code: &str) -> bool {
    code.starts_with("22") || matches!(code, "42501" | "42601" | "42602" | "42704" | "55P02")
}

/// Whether a statement may have been carried out in spite of this code: the connection ended while it ran.
pub(super) fn may_hide_a_commit(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "40003" | "57P01" | "57P02" | "57P04" | "57P05")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All classes of appendix A, and the codes that differ from their class.
    #[test]
    fn every_class_of_the_appendix_has_its_action() {
        let expected = [
            (Refuse, "00000 01000 02000 03000 09000 0F000 0L000 0P000 0Z000 20000 21000"),
            (RetireConnections, "08000 08003 08006 08001 08004 08007 08P01 0A000 0B000"),
            (Refuse, "22000 22001 22003 22007 22021 22P02 22P05 23000 23502 23503 23505 23514 23P01"),
            (RetireConnections, "24000 25000 25001 25006 25P01 25P02 25P03 25P04 26000"),
            (Refuse, "27000 2B000 2BP01 2F000 38000 39000"),
            (End, "28000 28P01 3D000"),
            (RetireConnections, "2D000 34000 3B000 3B001"),
            (Wait, "3F000 40000 40001 40P01"),
            (Refuse, "40002"),
            (RetireConnections, "40003"),
            (Refuse, "42000 42601 42846 42803 42P18 42804 42701 42P07 42P02 42P06"),
            (Wait, "42501 42P01 42703 42704 42883 42P10"),
            (RetireConnections, "42P05"),
            (Refuse, "44000"),
            (Wait, "53000 53100 53200 53300 53400"),
            (Refuse, "54000 54001 54011 54023"),
            (Wait, "55000 55006 55P02 55P03 55P04 57000 57014 57P03"),
            (RetireConnections, "57P01 57P02 57P04 57P05"),
            (Wait, "58000 58030 58P01 58P02 72000 F0000 F0001 XX000 XX001 XX002"),
            (Refuse, "HV000 HV00R P0000 P0001 P0004"),
            // Not in the appendix.
            (Wait, "ZZ000 99999 x"),
        ];
        for (action_of, codes) in expected {
            for code in codes.split(' ') {
                assert_eq!(action(code), action_of, "{code}");
            }
        }
    }

    #[test]
    fn a_refused_setting_is_distinguished_from_a_server_that_is_away() {
        for code in ["22023", "22P02", "42501", "42704", "55P02"] {
            assert!(refuses_a_setting(code), "{code}");
        }
        for code in ["08006", "25006", "26000", "42P05", "53300", "55P03", "57014", "57P03", "XX000", ""] {
            assert!(!refuses_a_setting(code), "{code}");
        }
    }

    #[test]
    fn a_lost_connection_may_hide_a_commit_and_a_failed_statement_does_not() {
        for code in ["08006", "57P01", "57P02", "40003"] {
            assert!(may_hide_a_commit(code), "{code}");
        }
        for code in ["25006", "40001", "42501", "53100", "55P03", "57014"] {
            assert!(!may_hide_a_commit(code), "{code}");
        }
    }
}
