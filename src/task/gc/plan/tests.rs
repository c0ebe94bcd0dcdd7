//! What a plan does with every kind of thing.
