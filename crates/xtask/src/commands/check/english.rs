//! Plain English: no file has a word of the list (`words.rs`), in text or in a name.

use super::{outcome::Outcome, words::WORDS};
use crate::shell::{self, RunToEnd as _};
use anyhow::{Result, bail};
use std::{fs, path::Path};

/// The list itself.
const LIST: &str = "crates/xtask/src/commands/check/words.rs";
/// What was applied to a database must not change: `migrate` compares checksums.
const APPLIED: &str = "migrations";
/// Its table of metrics quotes their earlier names, in backticks.
const QUOTES_OLD_NAMES: &str = "CHANGELOG.md";
const EXTENSIONS: [&str; 6] = ["rs", "md", "sql", "sh", "toml", "yml"];
const FOLDERS: [&str; 2] = [".ci", "scripts"];
const FILES: [&str; 4] = ["dev", "Dockerfile", ".env.example", "examples/run"];
/// What may stand between two words that a line's end or a name's spelling parts.
const BETWEEN: &str = " \t\n_/!#*>-";

pub(crate) fn check() -> Result<Outcome> {
    // A folder in a checkout, a file in a worktree.
    if !Path::new(".git").exists() {
        return Ok(Outcome::Skipped("this folder is not a git checkout"));
    }
    let listed = shell::command("git").args(["ls-files"]).read()?;
    let mut count = 0;
    for file in listed.lines().map(Path::new).filter(|file| is_checked(file)) {
        // What is deleted and not committed is listed too.
        let Ok(text) = fs::read_to_string(file) else { continue };
        let text = if file == Path::new(QUOTES_OLD_NAMES) { without_quotes(&text) } else { text };
        for (line, word, instead) in found(&text) {
            eprintln!("  {}:{line}: \"{word}\": write {instead}", file.display());
            count += 1;
        }
    }
    if count > 0 {
        bail!("{count} places are not in plain English");
    }
    Ok(Outcome::Passed)
}

fn is_checked(file: &Path) -> bool {
    let has_extension = |known: &[&str]| {
        file.extension().is_some_and(|extension| known.iter().any(|known| extension == *known))
    };
    let is_document = file.starts_with("docs") && has_extension(&["json"]);
    let is_named = FILES.iter().any(|name| file == Path::new(name));
    let is_in_folder = FOLDERS.iter().any(|folder| file.starts_with(folder));
    let is_applied = file.starts_with(APPLIED) && has_extension(&["sql"]);
    file != Path::new(LIST)
        && !is_applied
        && (has_extension(&EXTENSIONS) || is_document || is_named || is_in_folder)
}

/// The text with what stands in backticks left empty, line by line.
fn without_quotes(text: &str) -> String {
    let outside = |line: &str| -> String { line.split('`').step_by(2).collect::<Vec<_>>().join("``") };
    text.lines().map(|line| outside(line) + "\n").collect()
}

struct Token {
    word: String,
    line: usize,
    /// Whether it follows the token before it as a word follows another.
    follows: bool,
}

/// The words of a text and of the names in it: `is_sent` and `TextSent` have two each.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut line = 1;
    let mut between = String::new();
    let letters: Vec<char> = text.chars().collect();
    for (place, letter) in letters.iter().copied().enumerate() {
        if !letter.is_alphanumeric() {
            line += usize::from(letter == '\n');
            between.push(letter);
            continue;
        }
        let before = place.checked_sub(1).map(|before| letters[before]);
        let begins = !before.is_some_and(char::is_alphanumeric) || is_hump(&letters, place);
        match tokens.last_mut() {
            Some(token) if !begins => token.word.extend(letter.to_lowercase()),
            _ => {
                let follows = between.chars().all(|letter| BETWEEN.contains(letter));
                tokens.push(Token { word: letter.to_lowercase().collect(), line, follows });
                between.clear();
            }
        }
    }
    tokens
}

/// Whether a word begins inside a name: the S of `textStatus`, and of `HTTPServer`.
fn is_hump(letters: &[char], place: usize) -> bool {
    let is_upper = |letter: Option<&char>| letter.is_some_and(|letter| letter.is_uppercase());
    let is_lower = |letter: Option<&char>| letter.is_some_and(|letter| letter.is_lowercase());
    let before = place.checked_sub(1).and_then(|before| letters.get(before));
    is_upper(letters.get(place)) && (!is_upper(before) || is_lower(letters.get(place + 1)))
}

/// Each place of a word of the list: its line, the word, and what to write instead.
fn found(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        for (phrase, instead) in WORDS {
            let mut words = phrase.split(' ').enumerate();
            let is_here = words.all(|(offset, word)| {
                tokens
                    .get(place + offset)
                    .is_some_and(|token| token.word == word && (offset == 0 || token.follows))
            });
            if is_here {
                found.push((token.line, phrase, instead));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(usize, &'static str)> {
        found(text).into_iter().map(|(line, word, _)| (line, word)).collect()
    }

    #[test]
    fn a_word_counts_in_text_and_in_names() {
        // The words are spelt in two parts here, or this file would fail its own check.
        let word = ["to", "ld"].concat();
        let capital = ["To", "ld"].concat();
        for text in [
            format!("It was {word}."),
            format!("{capital} once"),
            format!("let is_{word} = 1;"),
            format!("struct Text{capital};"),
            format!("HTTP{capital}()"),
            format!("{}_COUNT", word.to_uppercase()),
        ] {
            assert_eq!(words(&text).len(), 1, "{text}");
        }
        for text in [format!("{word}er"), format!("s{word}"), "lesson, amend, recommend".to_owned()] {
            assert_eq!(words(&text), [], "{text}");
        }
    }

    #[test]
    fn words_in_a_row_count_across_a_comments_lines() {
        let (first, rest) = ("as good", "as");
        assert_eq!(words(&format!("x\n/// It is {first}\n/// {rest} done.")), [(2, WORDS[11].0)]);
        assert_eq!(words(&format!("{first}, {rest}")), []);
        assert_eq!(words("None => that(), None), that"), []);
    }

    #[test]
    fn quotes_of_the_changelog_do_not_count() {
        let word = ["to", "ld"].concat();
        let text = without_quotes(&format!("| `a_{word}` | new |\n{word}\n"));
        assert_eq!(words(&text), [(2, WORDS[3].0)]);
    }

    #[test]
    fn code_documents_and_scripts_are_checked() {
        for (file, expected) in [
            ("src/main.rs", true),
            ("docs/TESTING.md", true),
            ("migrations/0001_x.sql", false),
            ("migrations/README.md", true),
            ("examples/x.sql", true),
            ("docs/asyncapi.json", true),
            (".sqlx/query-1.json", false),
            ("dev", true),
            (".ci/run", true),
            ("scripts/within", true),
            ("fuzz/seeds/phone/x", false),
            (LIST, false),
        ] {
            assert_eq!(is_checked(Path::new(file)), expected, "{file}");
        }
    }
}
