//! Vectors, and what holds for whatever a peer sends.
