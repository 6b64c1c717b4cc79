//! `Debug` for a type with a secret or personal data: it shows the listed fields, and `..` for the others.

macro_rules! debug_shows {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use debug_shows;

#[cfg(test)]
mod tests;
