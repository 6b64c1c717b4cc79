//! Figures in a document: between two comments, so that no hand writes them.

const BEGIN: &str = "<!-- figures: written by ./dev bench --write -->";
const END: &str = "<!-- end of figures -->";

/// The text with these figures instead of what stands between the two comments; `None` when they are not there.
pub fn between(text: &str, figures: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", figures.trim_end()))
}
