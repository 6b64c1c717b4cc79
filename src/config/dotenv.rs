//! The `.env` file of the working directory, and of no other folder: lines of `NAME=value`.
//!
//! A value is literal: `$` has no meaning, so that a token may have any characters. An error shows a variable's name, and
//! nothing else of the file.

use std::{fmt, fs::File, io, io::Read as _, os::unix::fs::PermissionsExt as _};

const FILE: &str = ".env";

/// The variables of the file.
#[derive(Default)]
pub(crate) struct DotEnv {
    /// The last value of a variable counts, as with a shell and with Docker Compose.
    variables: Vec<(String, String)>,
    /// Variables that the environment did not have.
    applied: Vec<String>,
    /// Whether every user of the machine may read the file.
    pub is_public: bool,
}

/// Without the values.
impl fmt::Debug for DotEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("DotEnv").field("names", &names).finish_non_exhaustive()
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DotEnvError {
    #[error("{FILE} cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{FILE}, line {line}{}: {fault}", .name.as_ref().map(|name| format!(", {name}")).unwrap_or_default())]
    Line { line: usize, name: Option<String>, fault: LineFault },
}

/// The fault of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineFault {
    #[error(
        "it must be NAME=value; the name is letters, digits and underscores, with no space before or after the ="
    )]
    NotAnAssignment,
    #[error("it is not UTF-8 text")]
    NotUtf8,
    #[error("the value holds white space, a quote or a backslash: put it in single quotes, 'like this'")]
    Unquoted,
    #[error(
        "the quote is not closed on its line; a value in single quotes is literal and has no single quote"
    )]
    Unclosed,
    #[error(
        "something other than a comment follows the closing quote; in double quotes write \\\" for a quote"
    )]
    Trailing,
    #[error("in double quotes only \\\", \\\\ and \\n are escapes; in single quotes all is literal")]
    Escape,
    #[error("the value has a zero byte, which no variable can hold")]
    Zero,
}

impl DotEnv {
    /// Reads the file. A missing file counts as empty.
    ///
    /// # Errors
    ///
    /// The first wrong line only: the lines below it may belong to a value whose quote was forgotten.
    pub(crate) fn read() -> Result<Self, DotEnvError> {
        let mut file = match File::open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let is_public = metadata.is_file() && metadata.permissions().mode() & 0o004 != 0;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(Self { variables: parse(&text)?, applied: Vec::new(), is_public })
    }

    /// Sets the variables that the environment does not have.
    ///
    /// To be called before the process has a second thread.
    pub(crate) fn apply(&mut self) {
        let missing: Vec<_> =
            self.variables.iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
        self.applied = missing.iter().map(|(name, _)| name.clone()).collect();
        for (name, value) in missing {
            #[expect(unsafe_code, reason = "libraries read their variables from the environment only")]
            // SAFETY: there is no second thread yet that could read the environment meanwhile.
            unsafe {
                std::env::set_var(name, value);
            }
        }
    }

    /// Whether the variable's value is the file's, and not the environment's.
    pub(crate) fn gives(&self, name: &str) -> bool {
        self.applied.iter().any(|applied| applied == name)
    }
}

type Variable = (String, String);

fn parse(text: &[u8]) -> Result<Vec<Variable>, DotEnvError> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut variables = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match variable(line) {
            Ok(found) => variables.extend(found),
            Err((name, fault)) => return Err(DotEnvError::Line { line: index + 1, name, fault }),
        }
    }
    Ok(variables)
}

/// The variable of a line; `None` for an empty line and a comment.
fn variable(line: &[u8]) -> Result<Option<Variable>, (Option<String>, LineFault)> {
    let start = line.trim_ascii_start();
    if start.is_empty() || start.starts_with(b"#") {
        return Ok(None);
    }
    let (name, text) = name(start).ok_or_else(|| (likely_name(start), LineFault::NotAnAssignment))?;
    match std::str::from_utf8(text).map_err(|_| LineFault::NotUtf8).and_then(value) {
        Ok(value) => Ok(Some((name, value))),
        Err(fault) => Err((Some(name), fault)),
    }
}

/// The name before the `=`, and the text after it.
fn name(line: &[u8]) -> Option<(String, &[u8])> {
    let line = exported(line).unwrap_or(line);
    let (name, value) = line.split_at(line.iter().position(|byte| *byte == b'=')?);
    let name = std::str::from_utf8(name).ok()?;
    let begins = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let is_name = name.bytes().next().is_some_and(begins)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then(|| (name.to_owned(), &value[1..]))
}

/// What follows `export `.
fn exported(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"export")?;
    (rest.starts_with(b" ") || rest.starts_with(b"\t")).then(|| rest.trim_ascii_start())
}

/// The name of a line that has a space before its `=`, or none after `export NAME`. A word alone may be part of a value.
fn likely_name(line: &[u8]) -> Option<String> {
    let before = match line.iter().position(|byte| *byte == b'=') {
        Some(at) => &line[..at],
        None => exported(line)?,
    };
    name(&[before.trim_ascii_end(), b"="].concat()).map(|(name, _)| name)
}

fn value(text: &str) -> Result<String, LineFault> {
    if text.contains('\0') {
        return Err(LineFault::Zero);
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or(LineFault::Unclosed)?;
        return ends(rest).map(|()| value.to_owned());
    }
    if let Some(quoted) = text.strip_prefix('"') {
        return double_quoted(quoted);
    }
    let comment = [" #", "\t#"].into_iter().filter_map(|mark| text.find(mark)).min();
    let value = text[..comment.unwrap_or(text.len())].trim_end();
    let needs_quotes = |c: char| c.is_whitespace() || c.is_control() || "'\"\\‘’“”".contains(c);
    if value.contains(needs_quotes) { Err(LineFault::Unquoted) } else { Ok(value.to_owned()) }
}

/// The value of a text after its opening quote.
fn double_quoted(text: &str) -> Result<String, LineFault> {
    let mut value = String::with_capacity(text.len());
    let mut rest = text.chars();
    loop {
        match rest.next().ok_or(LineFault::Unclosed)? {
            '"' => return ends(rest.as_str()).map(|()| value),
            '\\' => value.push(match rest.next().ok_or(LineFault::Unclosed)? {
                'n' => '\n',
                same @ ('"' | '\\') => same,
                _ => return Err(LineFault::Escape),
            }),
            other => value.push(other),
        }
    }
}

/// Checks that nothing but a comment follows a closing quote.
fn ends(rest: &str) -> Result<(), LineFault> {
    let comment = rest.trim_start();
    let is_comment = comment.starts_with('#') && comment.len() < rest.len();
    if comment.is_empty() || is_comment { Ok(()) } else { Err(LineFault::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    fn one(line: &str) -> Result<String, (Option<String>, LineFault)> {
        variable(line.as_bytes()).map(|found| found.expect("a variable").1)
    }

    #[test]
    fn a_value_is_literal() {
        let cases = [
            ("A=b", "b"),
            ("A=", ""),
            ("A= ", ""),
            ("A= # nothing", ""),
            ("A=pa$$w0rd$HOME${X}", "pa$$w0rd$HOME${X}"),
            ("A=b#c", "b#c"),
            ("A=#c", "#c"),
            ("A=b # c'", "b"),
            ("A=b\t# c", "b"),
            ("A=b=c==", "b=c=="),
            ("A=b  ", "b"),
            ("  A=b", "b"),
            ("export A=b", "b"),
            ("export   A=b", "b"),
            ("export=b", "b"),
            (r#"A='a "b" $c \n #d'"#, r#"a "b" $c \n #d"#),
            ("A='' # x", ""),
            ("A='b' ", "b"),
            (r#"A="a 'b' $c #d""#, "a 'b' $c #d"),
            (r#"A="a\"b\\c\nd" # e"#, "a\"b\\c\nd"),
            ("A=grün", "grün"),
        ];
        for (line, expected) in cases {
            assert_eq!(one(line).as_deref(), Ok(expected), "{line}");
        }
        for nothing in ["", "  ", "# A=b", "   # 'x", "#"] {
            assert_eq!(variable(nothing.as_bytes()), Ok(None), "{nothing:?}");
        }
    }

    #[test]
    fn any_other_line_is_an_error_that_names_the_variable() {
        let cases = [
            ("A=b c", Some("A"), LineFault::Unquoted),
            ("A= b", Some("A"), LineFault::Unquoted),
            ("A=b'c", Some("A"), LineFault::Unquoted),
            ("A=b\\c", Some("A"), LineFault::Unquoted),
            ("A=“b”", Some("A"), LineFault::Unquoted),
            ("A=b\u{a0}c", Some("A"), LineFault::Unquoted),
            ("export A='b", Some("A"), LineFault::Unclosed),
            ("A=\"b", Some("A"), LineFault::Unclosed),
            ("A=\"b\\\"", Some("A"), LineFault::Unclosed),
            ("A='b'c", Some("A"), LineFault::Trailing),
            ("A='b'#c", Some("A"), LineFault::Trailing),
            ("A='it''s'", Some("A"), LineFault::Trailing),
            ("A=\"\\t\"", Some("A"), LineFault::Escape),
            ("A=\"\\$b\"", Some("A"), LineFault::Escape),
            ("A=b\0", Some("A"), LineFault::Zero),
            ("A =b", Some("A"), LineFault::NotAnAssignment),
            ("A", None, LineFault::NotAnAssignment),
            ("=b", None, LineFault::NotAnAssignment),
            ("1A=b", None, LineFault::NotAnAssignment),
            ("A-B=c", None, LineFault::NotAnAssignment),
            ("export A", Some("A"), LineFault::NotAnAssignment),
            ("export\t A ", Some("A"), LineFault::NotAnAssignment),
            ("export A b", None, LineFault::NotAnAssignment),
            ("export", None, LineFault::NotAnAssignment),
            ("export ", None, LineFault::NotAnAssignment),
            ("exportA", None, LineFault::NotAnAssignment),
            ("exports A=b", None, LineFault::NotAnAssignment),
            ("A: b", None, LineFault::NotAnAssignment),
        ];
        for (line, name, fault) in cases {
            assert_eq!(one(line), Err((name.map(str::to_owned), fault)), "{line}");
        }
        assert_eq!(variable(b"A=\xff"), Err((Some("A".to_owned()), LineFault::NotUtf8)));
    }

    #[test]
    fn a_forgotten_quote_shows_its_line_and_nothing_of_the_values() {
        let text = b"\xef\xbb\xbf# head\r\nFIRST=1\r\nTOKEN='SECRET1\r\nSECRET2=SECRET3'\r\n";
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(".env, line 3, TOKEN: ") && !error.contains("SECRET"), "{error}");
        let utf16: Vec<u8> = "A=SECRET\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(parse(&utf16).unwrap_err().to_string().contains(".env, line 1: "));
        let fine = parse(b"\xef\xbb\xbfA=1\r\nB='2'\r\nA=3").unwrap();
        assert_eq!(fine, [("A", "1"), ("B", "2"), ("A", "3")].map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn debug_shows_no_value() {
        let variables = vec![("A".to_owned(), "SECRET".to_owned())];
        let read = DotEnv { variables, applied: Vec::new(), is_public: true };
        let shown = format!("{read:?}");
        assert!(shown.contains('A') && !shown.contains("SECRET"), "{shown}");
    }

    proptest! {
        #[test]
        fn a_value_in_single_quotes_is_read_unchanged(value in "[^'\0\r\n]{0,40}") {
            prop_assert_eq!(one(&format!("A='{value}'")), Ok(value));
        }

        #[test]
        fn an_escaped_value_in_double_quotes_is_read_back(value in "[^\0\r]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assert_eq!(one(&format!("A=\"{escaped}\"")), Ok(value));
        }

        #[test]
        fn no_error_shows_a_value(before in "[a-z '\"\\\\#$=]{0,6}", after in "[a-z '\"\\\\#$=\n]{0,6}") {
            let text = format!("TOKEN={before}5ECRET{after}\nOTHER='{before}5ECRET{after}'\n");
            if let Err(error) = parse(text.as_bytes()) {
                prop_assert!(!error.to_string().contains("5ECRET"), "{}", error);
            }
        }
    }
}
