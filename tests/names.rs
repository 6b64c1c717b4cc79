//! One word, one meaning: no two types of a crate share a name.
//!
//! Read are the definitions of `src` and of each crate in `crates`, without those under `#[cfg(test)]` and the associated
//! types of traits.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

const DEFINING: [&str; 5] = ["struct", "enum", "union", "trait", "type"];

#[test]
fn no_two_types_of_a_crate_share_a_name() {
    let mut crates = vec![PathBuf::from("src")];
    let members = fs::read_dir("crates").expect("the folder crates");
    crates.extend(members.map(|member| member.expect("a member").path().join("src")));
    let shared: Vec<String> = crates.iter().flat_map(|root| shared_names(root)).collect();
    assert!(shared.is_empty(), "types of one crate share a name:\n{}", shared.join("\n"));
}

fn shared_names(root: &Path) -> Vec<String> {
    let mut defined: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for file in source_files(root) {
        let text = fs::read_to_string(&file).expect("a source file");
        let tokens =
            TokenStream::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for name in types(tokens) {
            defined.entry(name).or_default().insert(file.clone());
        }
    }
    assert!(!defined.is_empty(), "{}: no types were found", root.display());
    let shared = defined.into_iter().filter(|(_, files)| files.len() > 1);
    shared.map(|(name, files)| format!("{name}: {files:?}")).collect()
}

/// The Rust files below a folder, without those that hold only tests.
fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files
}

/// The names of the types that the tokens define.
fn types(tokens: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    // Whether the next braces hold associated types.
    let mut is_impl = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' && tokens.peek().is_some_and(is_cfg_test) => {
                skip_item(&mut tokens);
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => is_impl = false,
            TokenTree::Ident(ident) if ident == "impl" => is_impl = true,
            TokenTree::Ident(ident) if DEFINING.iter().any(|word| ident == word) => {
                is_impl |= ident == "trait";
                if let Some(TokenTree::Ident(name)) = tokens.peek() {
                    names.push(name.to_string());
                }
            }
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace && !std::mem::take(&mut is_impl) =>
            {
                names.extend(types(group.stream()));
            }
            _ => {}
        }
    }
    names
}

fn is_cfg_test(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.stream().to_string().replace(' ', "").starts_with("cfg(test"))
}

/// Skips to the end of the item that follows: its body or its semicolon.
fn skip_item(tokens: &mut impl Iterator<Item = TokenTree>) {
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            _ => {}
        }
    }
}
