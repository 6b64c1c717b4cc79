//! The dependencies between the modules of `src` point one way. In no crate do files depend on each other in a circle. No
//! module names what the code map of ARCHITECTURE.md lists in its column "knows nothing of".
//!
//! These tests read the `use` lines and every other path of the code, except code under `#[cfg(test)]`.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The modules by floor, from the roof to the ground. A module may only use modules of lower floors.
const FLOORS: &[&[&str]] = &[
    &["program"],
    &["cli"],
    &["commands"],
    &["console"],
    &["gateway", "doctor", "reconcile", "story"],
    &["dead_letters", "health", "measurements"],
    &["queue"],
    &["invite"],
    &["sessions"],
    &["group", "limits", "optouts", "processes", "sms", "suspects"],
    &["audit"],
    &["credential", "db", "http", "shutdown", "spans", "telemetry"],
    &["supervise", "config"],
    &["output", "phone", "seal", "session_key", "sms_text"],
    &[
        "backoff",
        "failpoint",
        "group_id",
        "hmac_key",
        "json",
        "masked",
        "metrics",
        "moment",
        "nodes",
        "pasted",
        "rate_limit",
        "refusal",
        "log_throttle",
        "traceparent",
        "trouble",
    ],
];

/// The crates that each word of the code map's column "knows nothing of" means.
const WORDS: &[(&str, &[&str])] = &[
    (
        "HTTP",
        &[
            "axum",
            "hyper",
            "hyper_rustls",
            "hyper_util",
            "http_body_util",
            "reqwest",
            "tower_http",
            "tower_service",
        ],
    ),
    ("AMQP", &["lapin", "async_rs"]),
    ("SQL", &["sqlx"]),
];

/// A path of modules, such as `["invite", "plan"]`.
type ModulePath = Vec<String>;

/// One source file.
struct Module {
    file: PathBuf,
    /// Paths that the file names, from the crate's root: modules and their items.
    names: BTreeSet<ModulePath>,
    /// The names that its `use` lines import or re-export, with their paths.
    hands_on: BTreeMap<String, ModulePath>,
    /// First segments of paths, which include crates.
    crates: BTreeSet<String>,
}

/// All modules of a crate.
struct House(BTreeMap<ModulePath, Module>);

impl House {
    /// The product's crate.
    fn read() -> Self {
        Self::read_from(Path::new("src/lib.rs"))
    }

    fn read_from(root: &Path) -> Self {
        let mut house = Self(BTreeMap::new());
        house.add(root, &[]);
        house
    }

    /// The arrows that are part of a circle.
    fn circles(&self) -> Vec<String> {
        let arrows = self.arrows();
        let reach: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
            arrows.keys().map(|from| (*from, reachable(&arrows, from))).collect();
        let all = arrows.iter().flat_map(|(from, to)| to.iter().map(move |to| (*from, to)));
        let name = |path: &ModulePath| self.0[path].file.display();
        all.filter(|(from, to)| reach[to].contains(from))
            .map(|(from, to)| format!("{} -> {}", name(from), name(to)))
            .collect()
    }

    fn add(&mut self, file: &Path, path: &[String]) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens =
            TokenStream::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens = without_tests(tokens);
        let mut module = Module {
            file: file.to_owned(),
            names: BTreeSet::new(),
            hands_on: BTreeMap::new(),
            crates: BTreeSet::new(),
        };
        let mut children = Vec::new();
        read(&tokens, path, &mut module, &mut children);
        let stem = file.file_stem().unwrap_or_default();
        let own = ["lib", "main", "mod"].iter().any(|name| stem == *name);
        let folder = if own { file.with_file_name("") } else { file.with_extension("") };
        self.0.insert(path.to_vec(), module);
        for child in children {
            let beside = folder.join(format!("{child}.rs"));
            let file = if beside.exists() { beside } else { folder.join(&child).join("mod.rs") };
            self.add(&file, &[path, &[child]].concat());
        }
    }

    /// The module that defines the item of a path. Re-exports are followed to their origin.
    fn home(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let depth =
                (0..=path.len()).rev().find(|depth| self.0.contains_key(&path[..*depth])).unwrap_or(0);
            let (module, rest) = path.split_at(depth);
            let on = rest.first().and_then(|name| self.0.get(module)?.hands_on.get(name));
            match on {
                // Except for an item of another crate, such as `use anyhow::anyhow`.
                Some(to) if !to.starts_with(&path[..=depth]) => path = [to.as_slice(), &rest[1..]].concat(),
                _ => return module.to_vec(),
            }
        }
        panic!("{} is re-exported in a circle", path.join("::"))
    }

    /// The modules that each module uses.
    fn arrows(&self) -> BTreeMap<&ModulePath, BTreeSet<ModulePath>> {
        let to = |module: &Module| module.names.iter().map(|path| self.home(path)).collect::<BTreeSet<_>>();
        self.0
            .iter()
            .map(|(path, module)| {
                let mut arrows = to(module);
                arrows.remove(path);
                arrows.remove(&Vec::new());
                (path, arrows)
            })
            .collect()
    }
}

/// Removes every item under `#[cfg(test)]`.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        if is_hash && tokens.peek().is_some_and(is_cfg_test) {
            // Skip up to the item's body or semicolon.
            for token in tokens.by_ref() {
                match token {
                    TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                    TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                    _ => {}
                }
            }
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let inside = without_tests(group.stream());
                TokenTree::Group(proc_macro2::Group::new(group.delimiter(), inside))
            }
            other => other,
        });
    }
    kept.into_iter().collect()
}

fn is_cfg_test(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let text = group.stream().to_string().replace(' ', "");
    group.delimiter() == Delimiter::Bracket && (text == "cfg(test)" || text == "cfg(fuzzing)")
}

/// Records every path in the tokens of the module `path`, and the names in its `mod` lines.
fn read(tokens: &TokenStream, path: &[String], module: &mut Module, children: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => read(&group.stream(), path, module, children),
            TokenTree::Ident(ident) if ident == "mod" => {
                if let (Some(TokenTree::Ident(name)), Some(next)) = (tokens.get(at + 1), tokens.get(at + 2)) {
                    match next {
                        TokenTree::Punct(_) => children.push(name.to_string()),
                        TokenTree::Group(group) => {
                            let inside = [path, &[name.to_string()]].concat();
                            read(&group.stream(), &inside, module, &mut Vec::new());
                        }
                        _ => {}
                    }
                    at += 3;
                    continue;
                }
            }
            TokenTree::Ident(ident) if ident == "use" => {
                let is_public = at > 0 && is_visibility(&tokens[..at]);
                let end = tokens[at..].iter().position(is_semicolon).map_or(tokens.len(), |end| at + end);
                for used in tree(&tokens[at + 1..end]) {
                    // A re-export is not a use.
                    if !is_public {
                        note(&used.path, path, module);
                    }
                    // Without `crate` or `super`, the path begins with a child module or another crate.
                    let child = || (used.path.len() > 1).then(|| [path, &used.path].concat());
                    if let Some(to) = absolute(&used.path, path).or_else(child) {
                        module.hands_on.insert(used.name, to);
                    }
                }
                at = end;
            }
            TokenTree::Ident(_) if is_start_of_path(&tokens, at) => {
                let (segments, end) = inline(&tokens, at);
                note(&segments, path, module);
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

fn is_semicolon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')
}

/// Whether the tokens end in `pub`, or `pub(…)`.
fn is_visibility(tokens: &[TokenTree]) -> bool {
    match tokens {
        [.., TokenTree::Ident(ident), TokenTree::Group(_)] | [.., TokenTree::Ident(ident)] => ident == "pub",
        _ => false,
    }
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |at| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

fn is_start_of_path(tokens: &[TokenTree], at: usize) -> bool {
    is_colons(tokens, at + 1) && !(at >= 2 && is_colons(tokens, at - 2))
}

/// The segments of a path in the code, and the position after it.
fn inline(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        segments.push(ident.to_string());
        at += 1;
        if !is_colons(tokens, at) {
            break;
        }
        at += 2;
    }
    (segments, at)
}

struct Used {
    path: Vec<String>,
    /// The name in this module.
    name: String,
}

/// The paths of a `use` line.
fn tree(tokens: &[TokenTree]) -> Vec<Used> {
    let mut path = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Group(group) => {
                let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |t: &TokenTree| matches!(t, TokenTree::Punct(punct) if punct.as_char() == ',');
                let branches = inside.split(is_comma).filter(|branch| !branch.is_empty()).flat_map(tree);
                return branches
                    .map(|used| {
                        let whole = [path.as_slice(), &used.path].concat();
                        if used.path == ["self"] {
                            let name = path.last().cloned().unwrap_or_default();
                            return Used { path: path.clone(), name };
                        }
                        Used { path: whole, name: used.name }
                    })
                    .collect();
            }
            TokenTree::Ident(ident) if ident == "as" => {
                let name = tokens.get(at + 1).map(ToString::to_string).unwrap_or_default();
                return vec![Used { path, name }];
            }
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            _ => {}
        }
        at += 1;
    }
    let name = path.last().cloned().unwrap_or_default();
    vec![Used { path, name }]
}

/// A path from the crate's root, if it leads into the crate.
fn absolute(segments: &[String], within: &[String]) -> Option<ModulePath> {
    let (first, rest) = segments.split_first()?;
    match first.as_str() {
        "crate" | "session_invite" => Some(rest.to_vec()),
        "self" => Some([within, rest].concat()),
        "super" => {
            let ups = segments.iter().take_while(|segment| *segment == "super").count();
            Some([&within[..within.len().saturating_sub(ups)], &segments[ups..]].concat())
        }
        _ => None,
    }
}

fn note(segments: &[String], within: &[String], module: &mut Module) {
    if let Some(path) = absolute(segments, within) {
        module.names.insert(path);
    } else {
        module.crates.extend(segments.first().cloned());
        // The path begins with a child module, or with an imported name, which the `use` line records.
        module.names.insert([within, segments].concat());
    }
}

fn top(path: &[String]) -> &str {
    path.first().map_or("lib", String::as_str)
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|floor| floor.contains(&module));
    floor.unwrap_or_else(|| panic!("the module {module} has no floor: put it into FLOORS"))
}

#[test]
fn every_module_uses_only_lower_floors() {
    let house = House::read();
    let mut wrong = Vec::new();
    for (from, arrows) in house.arrows() {
        for to in arrows.iter().filter(|to| top(to) != top(from) && !from.is_empty()) {
            if floor(top(from)) >= floor(top(to)) {
                wrong.push(format!("{} -> {}", house.0[from].file.display(), to.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "these arrows do not point to a lower floor:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_one_floor() {
    let house = House::read();
    let modules: BTreeSet<&str> = house.0.keys().map(|path| top(path)).collect();
    let listed: Vec<&str> = FLOORS.iter().copied().flatten().copied().collect();
    let unique: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(listed.len(), unique.len(), "a module is on two floors");
    assert!(unique.is_subset(&modules), "{:?}", unique.difference(&modules));
    assert!(house.0.len() > 150, "only {} files were read", house.0.len());
}

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let crates = fs::read_dir("crates").expect("crates").map(|folder| folder.expect("a folder").path());
    let roots = crates
        .chain([PathBuf::new()])
        .flat_map(|folder| ["src/lib.rs", "src/main.rs"].map(|root| folder.join(root)));
    let houses: Vec<House> = roots.filter(|root| root.exists()).map(|root| House::read_from(&root)).collect();
    assert!(houses.len() > 6, "only {} crates were read", houses.len());
    let circles: Vec<String> = houses.iter().flat_map(House::circles).collect();
    assert!(circles.is_empty(), "these arrows are part of a circle:\n{}", circles.join("\n"));
}

/// All modules that a module uses, directly or through others.
fn reachable<'a>(
    arrows: &'a BTreeMap<&ModulePath, BTreeSet<ModulePath>>,
    from: &ModulePath,
) -> BTreeSet<&'a ModulePath> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&ModulePath> = arrows[from].iter().collect();
    while let Some(next) = open.pop() {
        if found.insert(next) {
            open.extend(&arrows[next]);
        }
    }
    found
}

/// The rows of ARCHITECTURE.md's code map: the modules, and what they know nothing of.
fn code_map() -> Vec<(Vec<String>, Vec<String>)> {
    let text = fs::read_to_string("ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let mut lines = text.lines().skip_while(|line| !line.ends_with("| knows nothing of |"));
    assert!(lines.next().is_some(), "the code map has no column \"knows nothing of\"");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [modules, _, unknown] = cells.as_slice() else { panic!("not three cells: {line}") };
        let name = |word: &str| {
            word.trim_matches(['`', ' ']).trim_end_matches('/').trim_end_matches(".rs").to_owned()
        };
        let list = |cell: &str| cell.split(',').map(name).filter(|word| !word.is_empty()).collect::<Vec<_>>();
        (list(modules), list(unknown))
    })
    .collect()
}

#[test]
fn the_code_map_has_every_module_and_no_other() {
    let house = House::read();
    let modules: BTreeSet<String> = house.0.keys().filter_map(|path| path.first().cloned()).collect();
    let listed: BTreeSet<String> = code_map().into_iter().flat_map(|(modules, _)| modules).collect();
    assert_eq!(listed, modules);
}

#[test]
fn no_module_names_what_the_code_map_says_it_knows_nothing_of() {
    let house = House::read();
    let arrows = house.arrows();
    let ground = FLOORS.last().expect("a ground floor");
    let mut wrong = Vec::new();
    for (modules, unknown) in code_map() {
        for (path, module) in
            house.0.iter().filter(|(path, _)| modules.iter().any(|module| module == top(path)))
        {
            let others = || arrows[path].iter().filter(|to| top(to) != top(path));
            for word in &unknown {
                let named: Vec<String> = match WORDS.iter().find(|(known, _)| known == word) {
                    Some((_, crates)) => {
                        module.crates.iter().filter(|name| crates.contains(&name.as_str())).cloned().collect()
                    }
                    // Every module except those on the ground.
                    None if word == "all other modules" => {
                        others().filter(|to| !ground.contains(&top(to))).map(|to| to.join("::")).collect()
                    }
                    None => panic!("the code map has {word:?}, which this test does not know"),
                };
                wrong.extend(
                    named.iter().map(|name| format!("{} names {name}: {word}", module.file.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
