//! Figures in a document: between two comments, so that no hand writes them.

const END: &str = "<!-- end of figures -->";

/// The text with these figures instead of what stands between the two comments; `None` when they are not there. `of` is
/// empty, or what the first comment calls them.
pub fn between(text: &str, of: &str, figures: &str) -> Option<String> {
    let begin = format!("<!-- figures{of}: written by ./dev bench --write -->");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{}\n\n{END}{after}", figures.trim_end()))
}
