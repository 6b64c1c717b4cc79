//! The words that plain English does without, and what to write instead. The one file that may have them.

/// A word, or words in a row, and what to write instead. Each counts in names too: `is_told` has one.
pub(crate) const WORDS: [(&str, &str); 18] = [
    ("whoever", "the worker, the sender, or who it is"),
    ("whomever", "the worker, the sender, or who it is"),
    ("whosoever", "the worker, the sender, or who it is"),
    ("told", "reported, named, given"),
    ("untold", "not reported"),
    ("anew", "again"),
    ("mends", "repairs, corrects"),
    ("mended", "repaired, corrected"),
    ("mending", "repairing, correcting"),
    ("lest", "so that … not"),
    ("hereby", "by this, or nothing"),
    ("as good as", "almost"),
    ("of ours", "our own, or whose it is"),
    ("what is no", "one that is not"),
    ("so may have been", "name it, and what happened to it"),
    ("at too great a length", "larger than N KiB"),
    ("nothing where nothing", "name what is missing"),
    ("none that", "not one that"),
];
